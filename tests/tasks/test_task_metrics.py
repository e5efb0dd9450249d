"""Answers in words, measured by hand."""

from __future__ import annotations

import pytest

from align.tasks.metrics import exact, f1, majority, normalised, number_of, rouge_l


@pytest.mark.parametrize(
    ("text", "found"),
    [("The  Cat.", "cat"), ("an apple, a pear", "apple pear"), ("U.S.", "us"), ("+", "+"), (" The ", "the"), ("", "")],
)
def test_normalisation_is_squads(text, found):
    assert normalised(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("72", "72"),
        ("$1,234.50", "1234.5"),
        ("72.00 dollars", "72"),
        ("-3.", "-3"),
        ("−3", "-3"),
        ("007", "7"),
        ("-0", "0"),
        (".5", "0.5"),
        ("10%", "10"),
        ("100000000000000000000000", "100000000000000000000000"),
        ("1000", "1000"),
        ("no number", None),
        ("", None),
    ],
)
def test_numbers_have_one_way_of_writing(text, found):
    assert number_of(text) == found


def test_exact_match():
    assert exact("The cat.", ["dog", "cat"]) == 1
    assert exact("cats", ["cat"]) == 0
    assert exact("1,000 clips", ["1000"], number=True) == 1
    assert exact("1000 clips", ["1000"]) == 0
    assert exact("twelve", ["12"], number=True) == 0


def test_f1_by_hand():
    assert f1("the big red cat", ["red cat"]) == pytest.approx(2 * 2 / (3 + 2))  # "the" does not count
    assert f1("cat cat", ["cat"]) == pytest.approx(2 / 3)  # a word counts as often as both have it
    assert f1("cat", ["dog", "cat"]) == 1
    assert f1("", ["cat"]) == 0
    assert f1("red", ["cat"]) == 0


def test_rouge_l_by_hand():
    # The longest common subsequence of "police killed the gunman" and "police kill the gunman" is "police the gunman".
    assert rouge_l("police kill the gunman", ["police killed the gunman"]) == pytest.approx(3 / 4)
    # "the gunman" of 4 and 4 words (Lin 2004, section 3.1)
    assert rouge_l("the gunman kill police", ["police killed the gunman"]) == pytest.approx(2 / 4)
    assert rouge_l("gunman", ["nothing", "the gunman"]) == pytest.approx(2 / 3)
    assert rouge_l("", ["police"]) == 0


def test_the_majority():
    assert majority(["5", "6", "6"]) == 1
    assert majority(["5", "6", "6", "5"]) == 0  # of as many votes the first that was said
    assert majority([None, "The cat", "dog", "cat."]) == 1
    assert majority(["$6.00", "5", "6"], number=True) == 0
    assert majority([None, None]) is None
    assert majority([]) is None
