"""A reward model against its annotators, and they against each other, on numbers small enough to check by hand."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from align.stats.agreement import (
    accuracy_by_prompt,
    agreement,
    agreement_by_person,
    annotators,
    cohen_kappa,
    compared,
    couples,
)
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


# -- people against each other ----------------------------------------------------------------------------------------


def rankings(rng, n_tasks, noise=1.0, tie=0.7, n_people=4, k=4):
    """Tasks, people and ranks: two of the people rank each task's answers, which they see with noise."""
    truth = rng.normal(size=(n_tasks, k))
    who = np.argsort(rng.random((n_tasks, n_people)), axis=1)[:, :2]
    seen = np.round((truth[:, None] + noise * rng.normal(size=(n_tasks, 2, k))) / tie)
    ranks = 1 + (seen[..., None, :] > seen[..., :, None]).sum(axis=-1)
    return np.repeat(np.arange(n_tasks), 2).tolist(), who.ravel().tolist(), ranks.reshape(-1, k).tolist()


def test_two_people_are_compared_pair_by_pair():
    shared = compared([5, 6, 5], [0, 0, 1], [[1, 2, 2], [1, 2, 3], [1, 3, 2]])
    assert (shared.task.tolist(), shared.first.tolist(), shared.second.tolist()) == ([5], [0], [1])
    assert (shared.n_decided.tolist(), shared.n_agreed.tolist()) == ([2], [2])  # the tie is no decision
    assert shared.outcomes[0].tolist() == [[2, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_three_people_are_three_comparisons():
    shared = compared([1, 1, 1], [4, 2, 9], [[1, 2], [2, 1], [1, 2]])
    assert set(zip(shared.first.tolist(), shared.second.tolist(), shared.n_agreed.tolist(), strict=True)) == {
        (4, 2, 0),
        (2, 9, 0),
        (4, 9, 1),
    }


def test_tau_is_kendalls_with_ties():
    rng = np.random.default_rng(0)
    ranks = [rng.integers(1, 4, size=k).tolist() for k in (2, 3, 5, 9) for _ in range(20)]
    shared = compared([i // 2 for i in range(80)], [i % 2 for i in range(80)], ranks)
    expected = [kendalltau(ranks[2 * task], ranks[2 * task + 1]).statistic for task in shared.task]
    assert np.isnan(expected).any()  # all tied
    assert shared.tau == pytest.approx(expected, nan_ok=True)


def test_agreement_is_over_all_pairs_that_both_decide():
    found = agreement(compared([0, 0, 1, 1], [0, 1, 0, 1], [[1, 2, 3], [1, 2, 3], [1, 2, 2], [2, 1, 2]]))
    assert found.pairwise.mean == 3 / 4
    assert found.tau.mean == pytest.approx((1 - 0.5) / 2)
    assert found.n_tasks == 2
    assert agreement(compared([0, 1], [0, 1], [[1, 2], [1, 2]])) == (None, None, 0)
    assert agreement(compared([0, 0], [0, 1], [[1, 1], [1, 2]])) == (None, None, 1)


def test_each_person_is_held_against_the_others():
    odd = [[2, 1], [2, 1], [2, 1]]
    shared = compared([0, 1, 2] * 3, [0] * 3 + [1] * 3 + [2] * 3, [[1, 2]] * 6 + odd)
    found = agreement_by_person(shared, 4)
    assert [one.pairwise and one.pairwise.mean for one in found] == [0.5, 0.5, 0, None]
    assert [one.tau and one.tau.mean for one in found] == [0, 0, -1, None]
    assert [one.n_tasks for one in found] == [3, 3, 3, 0]


def test_every_two_people_are_a_couple_whichever_comes_first():
    found = couples(compared([0, 0, 1, 1, 2, 2], [0, 1, 1, 0, 1, 2], [[1, 2], [1, 2], [2, 1], [1, 2], [1, 1], [1, 1]]))
    assert [(one.first, one.second, one.n_tasks, one.pairwise, one.tau) for one in found] == [
        (0, 1, 2, 0.5, 0.0),
        (1, 2, 1, None, None),
    ]
    assert found[0].kappa == pytest.approx(0)


def test_naming_the_other_answer_first_changes_nothing():
    tasks, people, ranks = rankings(np.random.default_rng(1), 50)
    other = compared(tasks, people, [row[::-1] for row in ranks])
    assert couples(other) == [pytest.approx(couple) for couple in couples(compared(tasks, people, ranks))]
    assert agreement(other) == agreement(compared(tasks, people, ranks))


def test_kappa_is_the_librarys():
    metrics = pytest.importorskip("sklearn.metrics", reason="comes with the extra lm-eval")
    first, second = np.random.default_rng(0).integers(0, 3, size=(2, 200))
    counts = np.zeros((3, 3))
    np.add.at(counts, (first, second), 1)
    assert cohen_kappa(counts) == pytest.approx(metrics.cohen_kappa_score(first, second))


def test_kappa_by_hand():
    # 50 proposals, both yes 20, both no 15: 0.7 observed, 0.5 by chance.
    assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)
    assert cohen_kappa([[3, 0], [0, 2]]) == 1
    assert cohen_kappa([[5, 0], [0, 0]]) is None
    assert cohen_kappa([[0, 0], [0, 0]]) is None


@pytest.mark.heavy
def test_intervals_of_agreement_cover_the_truth_95_times_of_100():
    rng = np.random.default_rng(2)
    truth = agreement(compared(*rankings(rng, 30_000)))
    found = [agreement(compared(*rankings(rng, 40)), seed) for seed in range(200)]
    for name in ("pairwise", "tau"):
        mean = getattr(truth, name).mean
        intervals = [getattr(one, name) for one in found]
        assert 0.92 <= np.mean([interval.low <= mean <= interval.high for interval in intervals]) <= 0.98
