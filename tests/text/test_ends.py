"""Where an answer ends: what the tokenizer, its template and the files beside it say. And BOS, at the other end."""

from __future__ import annotations

import copy
import json

import pytest

from align.text.encode import decode_response, encode_conversation, encode_documents, encode_prompt, encode_response
from align.text.ends import ends_of
from align.text.records import Message
from align.text.tokenizer import load_tokenizer, pad_id, with_pad

from .conftest import CHATML, NO_EOS, build

ASKED = (Message("user", "Name a colour."),)
ANSWERED = (*ASKED, Message("assistant", "Red."))


def names(tokenizer) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(ends_of(tokenizer).ids))


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("markers", ["<|endoftext|>"]),
        ("text form", ["<|endoftext|>"]),
        ("chatml", ["<|im_end|>"]),
        ("thinking", ["<|im_end|>"]),
        ("llama 3 with another eos", ["<|eot_id|>", "<|endoftext|>"]),
        ("phi 3", ["<|end|>", "<|endoftext|>"]),
        ("instruct", ["<|endoftext|>"]),
        ("no eos", ["<|endoftext|>"]),
    ],
)
def test_the_template_closes_a_turn_and_eos_ends_it_too(tokenizers, name, ends):
    assert names(tokenizers[name]) == ends


def test_a_template_that_is_changed_closes_otherwise(tokenizers):
    tokenizer = copy.deepcopy(tokenizers["chatml"])
    tokenizer.eos_token = "<|endoftext|>"  # a base model's, beside the template of its chat model
    assert names(tokenizer) == ["<|im_end|>", "<|endoftext|>"]
    tokenizer.chat_template = NO_EOS
    assert names(tokenizer) == ["<|endoftext|>"]
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    assert names(tokenizer) == ["<|endoftext|>"]


def test_an_added_token_closes_a_turn_without_being_special():
    tokenizer = build("no eos")
    tokenizer.add_tokens(["\n\n", "<end>"])  # some vocabularies add white space: it is text
    assert names(tokenizer) == ["<|endoftext|>"]
    tokenizer.chat_template = NO_EOS.replace("\n\n'", "<end>\n'")
    assert names(tokenizer) == ["<end>", "<|endoftext|>"]
    ids = encode_response(tokenizer, ASKED, "Red<end>.")
    assert tokenizer.decode(ids) == "Red.<end>"
    assert decode_response(tokenizer, [*ids, *ids]) == "Red."


def test_an_end_that_is_written_before_the_next_turn_alone_is_not_written_twice():
    tokenizer = build("no eos")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ eos_token if message['role'] == 'user' and not loop.first else '' }}"
        "{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    ids = encode_conversation(tokenizer, [*ANSWERED, *ANSWERED], 1000).ids
    turn = "user: Name a colour.assistant: Red.<|endoftext|>"
    assert tokenizer.decode(ids) == turn + turn


def test_space_that_the_closing_token_takes_in_begins_no_piece():
    from tokenizers import AddedToken

    tokenizer = build("phi 3")
    tokenizer.add_tokens([AddedToken("<|end|>", rstrip=True, special=True)], special_tokens=True)
    turns = (*ANSWERED, Message("user", "And another?"))
    theirs = tokenizer.apply_chat_template([turn._asdict() for turn in turns], add_generation_prompt=True)["input_ids"]
    assert encode_prompt(tokenizer, turns) == theirs
    assert "<|end|><|user|>" in tokenizer.decode(theirs)


LLAMA3 = {"generation_config.json": {"eos_token_id": [0, 3, 4]}, "config.json": {"eos_token_id": 300}}


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (LLAMA3, (4, 0, 3)),
        ({"generation_config.json": {"eos_token_id": 3}}, (4, 0, 3)),
        ({"generation_config.json": {"eos_token_id": [300, -1, 5000]}}, (4, 0)),  # a word, and numbers of no token
        ({"generation_config.json": {"do_sample": True}, "config.json": {"eos_token_id": [0, 3]}}, (4, 0, 3)),
        ({"config.json": {"model_type": "gemma3", "text_config": {"eos_token_id": [0, 3]}}}, (4, 0, 3)),
        ({"config.json": {"eos_token_id": None}}, (4, 0)),
        ({}, (4, 0)),
    ],
)
def test_the_files_beside_a_model_name_further_ends(tokenizers, tmp_path, files, ids):
    tokenizer = tokenizers["llama 3 with another eos"]
    tokenizer.save_pretrained(tmp_path / "base")
    for name, content in files.items():
        (tmp_path / "base" / name).write_text(json.dumps(content))
    loaded = load_tokenizer(tmp_path / "base")
    assert ends_of(loaded) == (4, ids)
    assert ends_of(copy.deepcopy(loaded)).ids == ids
    tokenizer.save_pretrained(tmp_path / "adapter")  # which says nothing itself
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "base")})
    )
    assert ends_of(load_tokenizer(tmp_path / "adapter")).ids == ids
    loaded.save_pretrained(tmp_path / "saved")
    assert ends_of(load_tokenizer(tmp_path / "saved")).ids == (4, 0)
    assert not any("_align" in file.read_text() for file in (tmp_path / "saved").iterdir())


def test_decoding_stops_at_whichever_end_comes_first(tokenizers):
    tokenizer = tokenizers["llama 3 with another eos"]
    red, eos, eot = tokenizer("Red.", add_special_tokens=False).input_ids, 0, 4
    for end in (eos, eot):
        assert decode_response(tokenizer, [*red, end, *red, eos]) == "Red."


def test_a_pad_token_that_closes_a_turn_stands_for_padding_in_no_classifier(tmp_path):
    tokenizer = build("llama 3 with another eos")
    tokenizer.pad_token = "<|eot_id|>"
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert pad_id(loaded) is None
    assert with_pad(loaded).pad_token == "<|pad|>"
    assert ends_of(loaded).turn == ends_of(with_pad(loaded)).turn == loaded.convert_tokens_to_ids("<|eot_id|>")


def adding_bos(name: str, template: str | None):
    from tokenizers.processors import TemplateProcessing

    tokenizer = build(name)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.chat_template = template
    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
    return tokenizer


@pytest.mark.parametrize("name", ["markers", "text form"])
def test_our_templates_begin_with_bos_where_the_tokenizer_does(tmp_path, name):
    adding_bos(name, None).save_pretrained(tmp_path / "base")
    loaded = load_tokenizer(tmp_path / "base")
    loaded.save_pretrained(tmp_path / "trained")
    ids = encode_conversation(loaded, [*ANSWERED, *ANSWERED], 1000).ids
    assert encode_conversation(load_tokenizer(tmp_path / "trained"), [*ANSWERED, *ANSWERED], 1000).ids == ids
    assert [place for place, token in enumerate(ids) if token == loaded.bos_token_id] == [0]
    assert ids[1:] == encode_conversation(build(name), [*ANSWERED, *ANSWERED], 1000).ids
    for document in encode_documents(loaded, ["Red.", ""]):
        assert (document[0], document[-1]) == (loaded.bos_token_id, loaded.eos_token_id)
        assert document.count(loaded.bos_token_id) == 1


def test_a_template_of_its_own_decides_about_bos(tmp_path):
    for template, n in ((CHATML, 0), ("{{ bos_token }}" + CHATML, 1)):
        adding_bos("chatml", template).save_pretrained(tmp_path / str(n))
        loaded = load_tokenizer(tmp_path / str(n))
        assert encode_prompt(loaded, ASKED).count(loaded.bos_token_id) == n
