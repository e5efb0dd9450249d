"""Tests of chance must say what exact computation says, and cry wolf as often as they are allowed to."""

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test, ttest_rel

from align.stats.significance import mcnemar, paired_permutation


def test_mcnemar_is_a_binomial_test_of_the_prompts_that_differ():
    a = [True] * 12 + [False] * 4 + [True] * 30 + [False] * 10
    b = [False] * 12 + [True] * 4 + [True] * 30 + [False] * 10
    found = mcnemar(a, b)
    assert found.p == pytest.approx(binomtest(4, 16).pvalue)
    assert found.difference.mean == pytest.approx(8 / 56)
    assert mcnemar(b, a).p == pytest.approx(found.p)


def test_mcnemar_by_hand():
    # 5 prompts on which just A is right and none on which just B is: 2 * (1/2)^5.
    assert mcnemar([1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0, 1]).p == pytest.approx(2 / 32)
    assert mcnemar([1, 0], [1, 0]).p == 1
    assert mcnemar([1, 0], [0, 1]).p == 1


def test_all_swaps_are_tried_where_few_prompts_differ():
    # Differences 1, 2, 3: of the 8 signs two give a sum of +-6.
    assert paired_permutation([2, 3, 4, 9], [1, 1, 1, 9]).p == pytest.approx(2 / 8)
    assert paired_permutation([1, 2], [1, 2]).p == 1
    a, b = np.random.default_rng(0).normal(size=(2, 10))
    exact = permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
    assert paired_permutation(a, b).p == pytest.approx(exact.pvalue)


def test_many_prompts_are_swapped_at_random():
    a, b = np.random.default_rng(0).normal(size=(2, 40)) + np.array([[0.4], [0.0]])
    drawn = permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=1)
    found = paired_permutation(a, b, n_permutations=20_000)
    assert found.p == pytest.approx(drawn.pvalue, abs=0.01)
    assert found == paired_permutation(a, b, n_permutations=20_000)
    assert paired_permutation(a + 9, b, n_permutations=999).p == 1 / 1000  # none as extreme, and never 0


def test_chunks_leave_no_swap_out(monkeypatch):
    a, b = np.random.default_rng(0).normal(size=(2, 12))
    whole = paired_permutation(a, b).p
    monkeypatch.setattr("align.stats.significance.CHUNK_ELEMENTS", 100)
    assert paired_permutation(a, b).p == whole


@pytest.mark.heavy
@pytest.mark.parametrize("n", [12, 40])
def test_no_difference_is_called_one_in_5_of_100(n):
    rng = np.random.default_rng(n)
    scores = rng.normal(size=(600, 2, n))
    permuted = np.mean([paired_permutation(a, b, n_permutations=500).p <= 0.05 for a, b in scores])
    assert 0.03 <= permuted <= 0.07
    right = rng.random((600, 2, n)) < rng.random((600, 1, n))
    assert np.mean([mcnemar(a, b).p <= 0.05 for a, b in right]) <= 0.05  # exact, so it keeps below


@pytest.mark.heavy
def test_the_interval_of_a_difference_covers_it_95_times_of_100():
    """Prompts hard for both, scores far from normal: what is paired makes it narrow, and it still covers."""
    rng, covered, widths = np.random.default_rng(7), [], []
    for seed in range(500):
        hard = rng.exponential(2.0, size=80)
        a, b = hard + rng.exponential(1.0, size=80) + 0.3, hard + rng.exponential(1.0, size=80)
        difference = paired_permutation(a, b, n_permutations=1, seed=seed).difference
        covered.append(difference.low <= 0.3 <= difference.high)
        widths.append((difference.high - difference.low) / 2 / (1.96 * np.sqrt((a.var() + b.var()) / 80)))
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(widths) < 0.6  # of the interval of two separate samples


@pytest.mark.heavy
def test_the_interval_of_a_difference_in_accuracy_covers_it():
    rng, covered = np.random.default_rng(8), []
    for _ in range(500):
        luck = rng.random(120)
        right = luck < 0.6, np.where(rng.random(120) < 0.8, luck, rng.random(120)) < 0.5
        difference = mcnemar(*right).difference
        covered.append(difference.low <= 0.1 <= difference.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_a_real_difference_is_found_as_often_as_the_t_test_finds_it():
    rng = np.random.default_rng(9)
    scores = rng.normal(size=(300, 2, 40)) + np.array([[0.5], [0.0]])
    permuted = np.mean([paired_permutation(a, b, n_permutations=500).p <= 0.05 for a, b in scores])
    expected = np.mean([ttest_rel(a, b).pvalue <= 0.05 for a, b in scores])
    assert expected > 0.5
    assert permuted == pytest.approx(expected, abs=0.03)


def test_twenty_alike_are_no_certainty_that_there_is_no_difference():
    # Clopper & Pearson's bound for 20 of 20 is 0.8316; a difference may be on either side.
    assert mcnemar([True] * 20, [True] * 20).difference == pytest.approx((0, -0.1684, 0.1684), abs=1e-4)
    assert mcnemar([True] * 20, [False] * 20).difference == pytest.approx((1, 1 - 2 * 0.1684, 1), abs=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar([True], [True, False]), "1 values against 2"),
        (lambda: mcnemar([0.5], [1]), "a_correct holds 0.5"),
        (lambda: mcnemar([1], [3]), "b_correct holds 3"),
        (lambda: paired_permutation([], []), "the first is empty"),
        (lambda: paired_permutation([1.0], [float("nan")]), r"the second\[0\] is nan"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
