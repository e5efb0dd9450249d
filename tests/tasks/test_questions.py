"""Rows of questions, and every way in which one can be wrong: told with its file and line."""

from __future__ import annotations

import pytest

from align.errors import UserError
from align.tasks.questions import Question, read_questions, read_texts

GOOD = {"question": "2+2?", "choices": ["3", "4"], "answer": 1}


def test_choices(written):
    path = written([GOOD])
    assert read_questions(path, "test", {}, True) == [Question("2+2?", ("4",), f"{path}:1", ("3", "4"), 1)]


def test_open_questions_have_one_answer_or_several(written):
    path = written([{"question": "q", "answer": "a"}, {"question": "q", "answer": ["a", "b"], "more": 1}])
    assert [one.answers for one in read_questions(path, "test", {}, False)] == [("a",), ("a", "b")]


def test_columns_of_other_names(written):
    path = written([{"ctx": "q", "gold": "a"}])
    found = read_questions(path, "test", {"question": "ctx", "answer": "gold"}, False)
    assert (found[0].text, found[0].answers) == ("q", ("a",))
    texts = read_texts(written([{"body": " some text "}], "texts.jsonl"), "test", {"text": "body"})
    assert texts[0].text == " some text "


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"answer": 2}, r"rows\.jsonl:2: answer = 2: give the index of the right choice, 0 to 1"),
        ({"answer": -1}, r"rows\.jsonl:2: answer = -1: give the index"),
        ({"answer": "4"}, r"rows\.jsonl:2: answer = '4': give the index"),
        ({"answer": True}, r"rows\.jsonl:2: answer = True: give the index"),
        ({"choices": []}, r"rows\.jsonl:2: choices = \[\]: give a list of two texts or more"),
        ({"choices": ["4"]}, r"rows\.jsonl:2: choices = \['4'\]: give a list of two"),
        ({"choices": ["4", " "]}, "none of them empty"),
        ({"choices": ["4", 5]}, "give a list of two"),
        ({"choices": "34"}, "choices = '34'"),
        ({"question": ""}, r"rows\.jsonl:2: question = '': give a text that is not empty"),
        ({"question": None}, r"question = None"),
    ],
)
def test_a_row_that_cannot_be_asked(written, changes, told):
    with pytest.raises(UserError, match=told):
        read_questions(written([GOOD, GOOD | changes]), "test", {}, True)


@pytest.mark.parametrize("answer", ["", [], ["a", ""], 5, None])
def test_an_answer_that_is_none(written, answer):
    with pytest.raises(UserError, match=r"rows\.jsonl:1: answer = .*: give a text that is not empty"):
        read_questions(written([{"question": "q", "answer": answer}]), "test", {}, False)


def test_a_column_that_is_not_there(written):
    with pytest.raises(UserError, match=r"rows\.jsonl:1: no column 'choices'; there are 'question', 'answer'"):
        read_questions(written([{"question": "q", "answer": "a"}]), "test", {}, True)
    with pytest.raises(UserError, match="no column 'text'"):
        read_texts(written([{"question": "q"}]), "test", {})


def test_a_file_without_rows(written):
    for read in (lambda path: read_questions(path, "test", {}, True), lambda path: read_texts(path, "test", {})):
        with pytest.raises(UserError, match=r"rows\.jsonl: no rows"):
            read(written([]))
