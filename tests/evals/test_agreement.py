"""A reward model against its annotators, on numbers small enough to check by hand."""

import pytest

from align.evals.agreement import accuracy_by_prompt, annotators
from align.text.rankings import Ranked
from align.text.records import Message


def ranked(ranks: tuple[int, ...], name: str = "a") -> Ranked:
    responses = tuple(f"{name}{i}" for i in range(len(ranks)))
    return Ranked([[1, 2, 3]] * len(ranks), ranks, (Message("user", name),), responses)


def test_accuracy_is_the_share_of_pairs_in_the_annotators_order():
    row = ranked((1, 2, 3))
    assert accuracy_by_prompt([row], [3.0, 2.0, 1.0]) == [1.0]
    assert accuracy_by_prompt([row], [1.0, 2.0, 3.0]) == [0.0]
    assert accuracy_by_prompt([row], [2.0, 3.0, 1.0]) == [pytest.approx(2 / 3)]


def test_ties_of_annotators_do_not_count_and_ties_of_scores_count_half():
    assert accuracy_by_prompt([ranked((1, 2, 2))], [3.0, 1.0, 2.0]) == [1.0]
    assert accuracy_by_prompt([ranked((1, 2))], [1.0, 1.0]) == [0.5]


def test_each_prompt_gives_one_figure_however_many_ranked_it():
    rows = [ranked((1, 2)), ranked((2, 1)), ranked((1, 2), "b")]
    assert accuracy_by_prompt(rows, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]) == [0.5, 0.0]


def test_agreement_of_annotators_is_over_the_pairs_that_both_prefer():
    figures = annotators([ranked((1, 2, 3)), ranked((1, 3, 2)), ranked((1, 2), "b")])
    assert figures["annotator_agreement"] == pytest.approx(2 / 3)
    assert figures["accuracy_bound"] == pytest.approx((1 + (1 / 3) ** 0.5) / 2)
    assert annotators([ranked((1, 2)), ranked((1, 2), "b")]) == {}
    assert annotators([ranked((1, 2, 2)), ranked((1, 1, 2))]) == {"annotator_agreement": 1.0, "accuracy_bound": 1.0}


def test_annotators_who_agree_by_chance_allow_no_better_than_chance():
    figures = annotators([ranked((1, 2)), ranked((2, 1))])
    assert figures == {"annotator_agreement": 0.0, "accuracy_bound": 0.5}
