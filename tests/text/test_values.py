"""Values as they stand in rows: what is a list, a number or a text, and what is said of the rest."""

from __future__ import annotations

import math

import pytest

from align.text.messages import messages_of
from align.text.records import Message
from align.text.rows import Cell
from align.text.values import (
    BadRow,
    as_list,
    is_missing,
    listed,
    optional,
    rank_of,
    scalar,
    shown,
    string,
    trimmed,
    turns_or_text,
)

CODE = "    total = 0\n    return total"


def test_a_list_is_read_in_a_cell_and_nowhere_else():
    assert listed(Cell('[{"role": "user"}]')) == [{"role": "user"}]
    assert listed('["a"]') == '["a"]'
    assert listed(Cell("[sic] a text")) == "[sic] a text"
    assert listed(["a"]) == ["a"]
    assert turns_or_text(Cell("[1, 2]")) == "[1, 2]"
    assert turns_or_text(Cell('[{"role": "user"}]')) == [{"role": "user"}]
    assert as_list(Cell('{"role": "user"}')) == [{"role": "user"}]


@pytest.mark.parametrize(
    "cell",
    [
        "[{'role': 'user', 'content': 'Hi'}]",
        "[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant', 'content': 'Ho'}]",
        "['a', \"it's\"]",
        "['a' 'b']",
        "[('a', 'b')]",
        "array(['a', 'b'], dtype=object)",
        "{'role': 'assistant', 'content': 'Ho'}",
        "[\"a\", None, 'b']",
    ],
)
def test_a_list_that_python_wrote_is_refused(cell):
    with pytest.raises(BadRow, match=r"a list in Python's form .*json\.dumps"):
        listed(Cell(cell))
    assert listed(cell) == cell


def test_numbers_are_read_in_a_cell_and_nowhere_else():
    cells = ("3", " 2.5", "1e999", "true", "False", "", "NaN", "three", "9" * 5000)
    assert [scalar(Cell(cell)) for cell in cells] == [3, 2.5, math.inf, True, False, None, None, "three", math.inf]
    assert scalar("3") == "3"
    assert scalar(3) == 3


def test_nan_is_missing():
    row = {"nan": math.nan, "null": None, "text": " a "}
    assert [is_missing(value) for value in row.values()] == [True, True, False]
    assert [optional(row, name) for name in (*row, "other")] == ["", "", "a", ""]
    with pytest.raises(BadRow, match="input must be a string, found 42"):
        optional({"input": 42}, "input")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" Red", "Red"),
        ("    return 1\n", "return 1"),
        ("  Sure:\n1. a\n2. b\n", "Sure:\n1. a\n2. b"),
        (f"\n \n{CODE}\n\n", CODE),
        ("\tif x:\n\t\treturn x ", "\tif x:\n\t\treturn x"),
        (" \n", ""),
    ],
)
def test_only_code_keeps_the_space_before_it(text, said):
    assert trimmed(text) == said


def test_a_system_turn_that_says_nothing_is_none():
    empty = [{"role": "system", "content": content} for content in ("", " ", None, [])]
    assert messages_of([*empty, {"role": "user", "content": "a"}], "messages") == (Message("user", "a"),)
    with pytest.raises(BadRow, match=r"message 1 of messages \(user\) is empty"):
        messages_of([{"role": "user", "content": ""}], "messages")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "a"},
        {"type": "text", "value": "a"},
        {"text": "a"},
        {"type": "output_text", "text": "a"},
        {"type": "text", "text": "a", "image_url": None},
    ],
)
def test_parts_of_a_content_that_are_text(part):
    assert messages_of([{"role": "user", "content": [part, part]}], "messages")[0].content == "aa"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "image_url", "image_url": {}}, 'a part of the type "image_url"; only text is read'),
        ({"text": "a", "image": "b.png"}, 'a part of the type "image"; only text is read'),
        ({"type": "text", "text": "a", "image": "b.png"}, 'a part of the type "image"; only text is read'),
        (
            {"type": "thinking", "thinking": "a"},
            ".* only text is read; write thoughts to the message's reasoning_content",
        ),
        ({"type": "text", "body": "a"}, "a part with 'type', 'body'; a part must be"),
        ("a", 'a part "a"; a part must be'),
    ],
)
def test_parts_of_a_content_that_are_not(part, said):
    with pytest.raises(BadRow, match=f"message 1 of messages has content that is not text: {said}"):
        messages_of([{"role": "user", "content": [part]}], "messages")


def test_a_rank_may_be_any_whole_number():
    assert [rank_of(rank) for rank in (2, 2.0, 10**400)] == [2, 2, 10**400]
    with pytest.raises(BadRow, match="a whole number, found Infinity"):
        rank_of(math.inf)


def test_half_of_a_surrogate_pair_is_refused_and_can_be_shown():
    with pytest.raises(BadRow, match="text is not valid Unicode"):
        string("\ud800", "text")
    assert shown("\ud800").isascii()
