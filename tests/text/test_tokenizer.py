"""Tokenizers: trained ones read any text back, loaded ones have EOS and a template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.errors import UserError
from align.text.chat import MARKER_TEMPLATE, TEXT_TEMPLATE, ensure_chat_template
from align.text.encode import encode_conversation, encode_documents
from align.text.records import Message
from align.text.spans import special_token_remover
from align.text.tokenizer import (
    SMALLEST_VOCABULARY,
    SPECIAL_TOKENS,
    load_tokenizer,
    pad_id,
    rows_needed,
    same_words,
    token_ids,
    train_tokenizer,
    with_pad,
)

from .conftest import CHATML, TEXTS, build

TURNS = (Message("user", "Name a colour."), Message("assistant", "Red."))


def test_the_special_tokens_of_a_trained_tokenizer(ours):
    assert ours.convert_tokens_to_ids(SPECIAL_TOKENS) == [0, 1, 2, 3, 4]
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == ("<|endoftext|>", "<|endoftext|>", "<|pad|>")
    assert ours.pad_token_id != ours.eos_token_id
    assert ours.chat_template == MARKER_TEMPLATE
    assert ours("Red", add_special_tokens=True).input_ids == ours("Red", add_special_tokens=False).input_ids


def test_every_id_is_below_the_vocabulary_size(ours):
    assert max(ours.get_vocab().values()) < len(ours) <= 400
    smallest = train_tokenizer(TEXTS, SMALLEST_VOCABULARY)
    assert len(smallest) == SMALLEST_VOCABULARY
    assert max(smallest.get_vocab().values()) == SMALLEST_VOCABULARY - 1


def test_a_vocabulary_that_cannot_hold_the_bytes_is_refused():
    with pytest.raises(UserError, match=r"vocab_size=260: give at least 261"):
        train_tokenizer(TEXTS, 260)


def test_training_is_deterministic():
    one, other = (train_tokenizer(iter(TEXTS), 350) for _ in range(2))
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()


def test_words_are_learned(ours):
    assert ours.tokenize(" Red is a colour") == ["ĠRed", "Ġis", "Ġa", "Ġcolour"]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_unicode_reads_back(ours, text):
    ids = ours(text, add_special_tokens=False).input_ids
    assert ours.decode(ids) == text
    assert ours.decode(next(encode_documents(ours, [text]))[:-1]) == special_token_remover(ours)(text)


@pytest.mark.parametrize(
    "text", ["a .  b , c ?", " leading", "trailing \n", "don 't", "\r\n\t", "né 漢字 🙂‍↔️", "<|user"]
)
def test_these_texts_read_back(ours, text):
    assert ours.decode(ours(text).input_ids) == text


def test_saving_keeps_everything(ours, tmp_path):
    ours.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.backend_tokenizer.to_str() == ours.backend_tokenizer.to_str()
    assert loaded.chat_template == MARKER_TEMPLATE
    assert loaded.pad_token_id == ours.pad_token_id
    assert len(loaded) == len(ours)
    assert encode_conversation(loaded, TURNS, 100) == encode_conversation(ours, TURNS, 100)
    text = "a .  b 漢"
    assert loaded.decode(loaded(text).input_ids) == text


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gpt_neo"])
def test_it_loads_the_same_beside_the_config_of_a_stock_model(ours, tmp_path, model_type):
    ours.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = load_tokenizer(tmp_path)
    assert loaded.backend_tokenizer.to_str() == ours.backend_tokenizer.to_str()
    assert encode_conversation(loaded, TURNS, 100) == encode_conversation(ours, TURNS, 100)


def words_alone(folder: Path, **special: str) -> Any:
    """A tokenizer of three words, saved and loaded."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"</s>": 0, "red": 1, "<unk>": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", **special).save_pretrained(folder)
    return load_tokenizer(folder)


@pytest.mark.parametrize("special", [{}, {"pad_token": "</s>"}], ids=["none", "eos"])
def test_a_tokenizer_is_loaded_as_it_is_and_padded_only_for_who_asks(tmp_path, special):
    loaded = words_alone(tmp_path, **special)
    assert (len(loaded), loaded.pad_token, pad_id(loaded)) == (3, special.get("pad_token"), None)
    assert loaded.chat_template == TEXT_TEMPLATE
    padded = with_pad(loaded)
    assert (len(padded), padded.pad_token, pad_id(padded)) == (4, "<|pad|>", 3)
    assert (len(loaded), loaded.pad_token) == (3, special.get("pad_token"))
    assert with_pad(padded) is padded
    assert same_words(loaded, padded)
    padded.add_tokens(["blue"])
    assert not same_words(loaded, padded)


def test_holes_between_ids_are_no_tokens_and_need_rows(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "red": 4}, unk_token="<unk>"))
    holey = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="red")
    assert (len(holey), token_ids(holey), rows_needed(holey)) == (2, {0, 4}, 5)


def test_a_template_of_its_own_is_kept(tmp_path):
    tokenizer = build("chatml")
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).chat_template == CHATML
    ensure_chat_template(tokenizer)
    assert tokenizer.chat_template == CHATML


def test_a_tokenizer_without_eos_is_refused(tmp_path):
    tokenizer = build("text form")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no EOS token.*tokenizer_config.json"):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match=r"no tokenizer in this folder; it needs one of tokenizer.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"this is a file, but a tokenizer is a folder"):
        load_tokenizer(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no-such/tokenizer", "cannot load a tokenizer: "),
        ("runs/no-such/model", "there is no such folder; make it first"),
    ],
)
def test_a_tokenizer_that_is_nowhere_is_refused(name, told):
    with pytest.raises(UserError, match=f"^{name}: {told}"):
        load_tokenizer(name)
