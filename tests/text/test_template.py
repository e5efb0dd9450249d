"""A chat template of the user's own, its options and its dates; and thoughts of sampled answers kept apart."""

from __future__ import annotations

import copy
import datetime
import json

import pytest

from align.errors import UserError
from align.text.encode import DecodedAnswer, decode_answer, decode_response, encode_prompt, encode_response
from align.text.ends import ends_of
from align.text.records import Message
from align.text.template import Template, fix_date, share_date, use_template
from align.text.tokenizer import load_tokenizer

from .conftest import CHATML, build
from .kinds import tokenizer_of

ASKED = (Message("user", "Name a colour."),)
THINKS = (  # as the templates of Qwen 3 and of Llama 3.1: a switch, and today's date
    "{% set today = strftime_now('%d %b %Y') if strftime_now is defined else '?' %}"
    "{{ today }} {{ 'thinks' if enable_thinking is not defined or enable_thinking else 'does not' }}\n"
)


@pytest.fixture
def tokenizer():
    found = build("chatml")
    found.chat_template = THINKS + CHATML
    return found


def start(tokenizer) -> str:
    return tokenizer.decode(encode_prompt(tokenizer, ASKED)).partition("\n")[0]


def test_a_template_and_its_options_are_saved_with_the_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "mine.jinja").write_text("{{ lead }} {{ place }}\n" + CHATML)
    options = {"lead": 'a "word"', "place": None}
    loaded = load_tokenizer(tmp_path / "model", template=str(tmp_path / "mine.jinja"), options=options)
    assert start(loaded) == 'a "word" None'
    loaded.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert start(again) == 'a "word" None'
    turns = [ASKED[0].as_dict()]
    assert again.apply_chat_template(turns, tokenize=False, lead="b").startswith("b None\n")  # who says it decides


@pytest.mark.parametrize(("value", "said"), [(False, "does not"), (True, "thinks"), (0, "does not")])
def test_an_option_is_a_variable_of_the_models_own_template(tokenizer, value, said):
    use_template(tokenizer, options={"enable_thinking": value})
    assert start(tokenizer).endswith(said)


def test_options_reach_each_of_several_named_templates(tokenizer):
    tokenizer.chat_template = {"default": THINKS + CHATML, "tool_use": "with tools " + THINKS + CHATML}
    use_template(tokenizer, options={"enable_thinking": False})
    assert start(tokenizer).endswith("does not")
    tools = json.dumps([{"type": "function", "function": {"name": "colour", "description": "A colour."}}])
    with pytest.raises(
        UserError,
        match=r"does not write all of message 1 \(tools\): .*set data.template to a template that writes tools",
    ):
        encode_prompt(tokenizer, (Message("tools", tools), *ASKED))


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("absent.jinja", None, "data.template: cannot read .*absent.jinja"),
        ("broken.jinja", None, "broken.jinja, line 2: not a valid Jinja template: .*endfor"),
        (None, {"thinking": True}, "data.template_options: .* does not read thinking; it reads enable_thinking"),
    ],
)
def test_what_cannot_be_is_said(tokenizer, tmp_path, file, options, message):
    (tmp_path / "broken.jinja").write_text("{{ bos_token }}\n{% for message in messages %}\n")
    with pytest.raises(UserError, match=message):
        use_template(tokenizer, None if file is None else str(tmp_path / file), options)


def test_a_date_is_written_as_it_was_fixed(tokenizer):
    today = datetime.datetime.now().strftime("%d %b %Y")
    assert start(tokenizer).startswith(today)
    fix_date(tokenizer, datetime.date(2020, 2, 3))
    assert start(tokenizer) == "03 Feb 2020 thinks"
    fix_date(tokenizer, datetime.date(2020, 2, 4))
    assert start(copy.deepcopy(tokenizer)) == "04 Feb 2020 thinks"
    other = build("chatml")
    other.chat_template = THINKS + CHATML
    share_date(other, tokenizer)
    assert start(other) == "04 Feb 2020 thinks"
    assert tokenizer.apply_chat_template([ASKED[0].as_dict()], tokenize=False).startswith(today)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("strftime_now('%-d/%-m %F %e')", "3/2 2020-02-03  3"),
        ("strftime_now(format='%B %d, %Y')", "February 03, 2020"),
        ("strftime_now('%y') | int + 1", "21"),
    ],
)
def test_a_date_is_fixed_however_it_is_asked_for(tokenizer, written, expected):
    tokenizer.chat_template = "{{ " + written + " }}\n" + CHATML
    fix_date(tokenizer, datetime.date(2020, 2, 3))
    assert start(tokenizer) == expected


def test_what_ends_an_answer_may_stand_before_the_next_turn_alone():
    tokenizer = build("phi 3")  # as GLM: a turn is closed by the next one's marker, which its model says
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    assert ends_of(tokenizer).turn == tokenizer.eos_token_id
    vars(tokenizer)["_align_ends"] = {"of_model": (user,)}
    assert ends_of(tokenizer) == (user, (user, tokenizer.eos_token_id))
    assert tokenizer.decode(encode_response(tokenizer, ASKED, "Red.")) == "Red.<|user|>"


def said(tokenizer, text: str, prompt: str = "") -> DecodedAnswer:
    ids, before = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in (text, prompt))
    found = decode_answer(tokenizer, ids, before)
    if not prompt:
        assert decode_response(tokenizer, ids) == found.text
    return found


THOUGHT = (
    "{% if message.reasoning_content %}{{ '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("text", "answer", "thoughts"),
    [
        ("<think>\nIt is red.\n</think>\n\nRed.<|im_end|>", "Red.", "It is red."),
        ("It is red.\n</think>Red.<|im_end|>\n", "Red.", "It is red."),  # its template forgot to open it
        ("<think>\nIt is red, or", "", "It is red, or"),  # cut before it was closed
        ("<think>\n\n</think>\n\nRed.", "Red.", ""),
        ("Red.<|im_end|>", "Red.", ""),
        ("I <think> so.<|im_end|>", "I <think> so.", ""),
    ],
)
def test_thoughts_are_kept_apart_from_the_answer(text, answer, thoughts):
    tokenizer = build("chatml")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        + THOUGHT
        + "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    assert Template.of(tokenizer).thoughts_key == "reasoning_content"
    assert said(tokenizer, text) == (answer, thoughts)


def test_a_thought_may_be_opened_by_the_generation_prompt():
    tokenizer = build("chatml")
    tokenizer.chat_template = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    prompt = "<|im_start|>assistant\n<think>\n"
    assert said(tokenizer, "It is red.\n</think>\n\nRed.<|im_end|>", prompt) == ("Red.", "It is red.")
    assert said(tokenizer, "It is red, or", prompt) == ("", "It is red, or")


def test_a_thought_is_known_also_where_the_generation_prompt_closes_an_empty_one():
    tokenizer = tokenizer_of("qwen 3 that does not think", "bytes")
    assert said(tokenizer, "<think>\nIt is red.\n</think>\n\nRed.<|im_end|>") == ("Red.", "It is red.")
    assert said(tokenizer, "Red.<|im_end|>") == ("Red.", "")


def test_thoughts_between_special_tokens_are_no_part_of_the_answer():
    tokenizer = build("instruct")
    assert said(tokenizer, "[THINK]It is red.[/THINK]Red.") == ("[THINK]It is red.[/THINK]Red.", "")
    tokenizer.add_special_tokens({"extra_special_tokens": ["[THINK]", "[/THINK]"]})
    tokenizer.chat_template += " "  # what was found of the template holds for the tokens that were there
    assert said(tokenizer, "[THINK]It is red.[/THINK]Red.<|endoftext|>") == ("Red.", "It is red.")
    assert said(tokenizer, "[THINK]It is red, or") == ("", "It is red, or")


@pytest.mark.parametrize(
    ("written", "as_text"),
    [
        ("call.arguments | tojson", False),
        ("'' + call.arguments", True),  # fails with an object
        ("call.arguments", True),  # would write it as Python does
    ],
)
def test_arguments_of_calls_are_written_alike_after_a_row_that_was_refused(written, as_text):
    tokenizer = build("chatml")
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{% for tool in message.tool_calls or [] %}{% set call = tool.function %}"
        "{{ call.name + '(' }}{{ " + written + " }}{{ ')' }}{% endfor %}{{ message['content'] }}{% endfor %}"
    )
    calls = json.dumps([{"type": "function", "function": {"name": "f", "arguments": {"a": "b"}}}])
    turns = (*ASKED, Message("assistant", "", calls=calls), Message("tool", "7"))
    for _ in range(2):
        with pytest.raises(UserError, match="refuses these messages"):
            encode_prompt(tokenizer, (Message("system", "s"), *turns))
        assert 'f({"a": "b"})' in tokenizer.decode(encode_prompt(tokenizer, turns))
    assert Template.of(tokenizer)._arguments_as_text == as_text
