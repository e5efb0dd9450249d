"""How a text file becomes documents."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.text.documents import BLOCK, cut_row, cut_text


def test_at_separators():
    text = "One.\n<|endoftext|>\n\nTwo,\n\ngoing on.\n<|endoftext|>Three.<|endoftext|>\n"
    assert list(cut_text(text)) == [(1, "One."), (4, "Two,\n\ngoing on."), (7, "Three.")]


def test_a_row_is_one_document_unless_it_has_separators():
    assert cut_row("\n\nOne.\n\nStill one.\n") == ["\n\nOne.\n\nStill one.\n"]
    assert cut_row("One.\n<|endoftext|>\n Two.<|endoftext|>") == ["One.", " Two."]


def test_before_wikitext_headings():
    text = " \n = Lobster = \n \n It is red . \n = = Food = = \n It eats . \n = Bird = \n It flies . \n"
    assert list(cut_text(text)) == [
        (2, " = Lobster = \n \n It is red . \n = = Food = = \n It eats . "),
        (7, " = Bird = \n It flies . "),
    ]


def test_into_blocks_of_paragraphs():
    paragraph = "word " * 100
    text = "\n\n".join([paragraph] * 10)
    documents = list(cut_text(text))
    assert [document.count(paragraph) for _, document in documents] == [4, 4, 2]
    assert [line for line, _ in documents] == [1, 9, 17]


def test_into_blocks_of_lines_where_no_line_is_blank():
    line = "word " * 100
    assert [document.count("\n") + 1 for _, document in cut_text("\n".join([line] * 10) + "\n")] == [4, 4, 2]


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n", "<|endoftext|>\n<|endoftext|>"])
def test_nothing_but_space(text):
    assert list(cut_text(text)) == []


def test_a_short_text_is_one_document():
    assert list(cut_text("\n\nA line.\n\nAnother.\n")) == [(3, "A line.\n\nAnother.")]


@settings(deadline=None)
@given(st.text(st.sampled_from("ab \n"), max_size=60).map(lambda text: text.replace("a", "word " * 100)))
def test_no_word_is_lost_and_lines_are_right(text):
    documents = list(cut_text(text))
    assert [word for _, document in documents for word in document.split()] == text.split()
    lines = text.split("\n")
    assert all(lines[line - 1].startswith(document.split("\n")[0]) for line, document in documents)
    assert all(len(document) > BLOCK // 2 for _, document in documents[:-1])
