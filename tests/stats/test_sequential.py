"""A test that may be looked at any time: its numbers, how often it cries wolf, how soon it sees a difference."""

import math
from functools import lru_cache

import numpy as np
import pytest
from scipy.special import betaln

from align.stats.sequential import log_bayes_factor, look
from align.stats.significance import mcnemar


def test_the_factor_by_hand():
    assert look(0, 0).bayes_factor == pytest.approx(1)
    assert look(1, 0).bayes_factor == pytest.approx(1)  # 2 / (2 * 1): one question says nothing yet
    assert look(3, 1).bayes_factor == pytest.approx(2**4 / (5 * 4))
    assert look(7, 0).bayes_factor == pytest.approx(2**7 / 8)
    assert look(60, 40).bayes_factor == pytest.approx(math.exp(betaln(61, 41) + 100 * math.log(2)))
    assert log_bayes_factor(3, 1, 0.9) == pytest.approx(betaln(4, 2) - 3 * math.log(0.9) - math.log(0.1))


def test_it_stops_at_one_over_alpha():
    assert look(7, 0).decision == "undecided"  # 16
    assert look(8, 0).decision == "a"  # 28.4
    assert look(0, 8).decision == "b"
    assert look(8, 0, alpha=0.01).decision == "undecided"
    assert look(60, 40).decision == "undecided"
    assert look(5000, 0).decision == "a"  # and does not overflow


def test_no_difference_is_expected_to_give_a_factor_of_1():
    """The martingale: over all outcomes of 12 fair questions the factor's mean is 1."""
    mean = sum(math.comb(12, k) / 2**12 * look(k, 12 - k).bayes_factor for k in range(13))
    assert mean == pytest.approx(1)


seen = lru_cache(None)(look)  # the same counts come up again and again


def decisions(share_of_a: float, n_runs: int, n_max: int, every: int, seed: int) -> tuple[list[str], list[int]]:
    """Of many runs, looked at after every `every` telling questions: what was decided, and after how many."""
    rng = np.random.default_rng(seed)
    found, after = [], []
    for _ in range(n_runs):
        falls_to_a = (rng.random(n_max) < share_of_a).cumsum()
        for n in range(every, n_max + 1, every):
            at = seen(int(falls_to_a[n - 1]), int(n - falls_to_a[n - 1]))
            if at.decision != "undecided":
                break
        found.append(at.decision)
        after.append(n)
    return found, after


@pytest.mark.heavy
@pytest.mark.parametrize("every", [1, 10])
def test_looking_after_every_batch_finds_no_difference_where_there_is_none(every):
    found, _ = decisions(0.5, 4000, 200, every, seed=every)
    wrong = np.mean([decision != "undecided" for decision in found])
    assert wrong <= 0.05
    assert wrong > 0  # it can decide


@pytest.mark.slow
def test_looking_at_a_p_value_as_often_would():
    """What the rule is for: McNemar's p below 0.05 at any of 30 looks is found far more often than 5 times in 100."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(100):
        a = rng.random(300) < 0.5
        wrong += any(mcnemar(a[:n], ~a[:n]).p < 0.05 for n in range(10, 301, 10))
    assert wrong / 100 > 0.12


def test_a_difference_is_seen_and_the_larger_the_sooner():
    clear, soon = decisions(0.8, 200, 300, 10, seed=3)
    small, late = decisions(0.65, 200, 300, 10, seed=4)
    assert np.mean([decision == "a" for decision in clear]) > 0.99
    assert np.mean([decision == "a" for decision in small]) > 0.9
    assert np.mean(soon) < 40 < np.mean(late) < 150
    assert "b" not in clear + small


def test_the_interval_holds_at_all_looks_together():
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(300):
        falls_to_a = (rng.random(200) < 0.7).cumsum()
        at = [seen(int(falls_to_a[n - 1]), int(n - falls_to_a[n - 1])).share for n in range(5, 201, 5)]
        missed += any(not one.low <= 0.7 <= one.high for one in at)
    assert missed / 300 <= 0.05
    assert look(0, 0).share == (0.5, 0, 1)
    assert look(70, 30).share.low < 0.7 < look(70, 30).share.high
    assert look(8, 0).share.low > 0.5 > look(7, 0).share.low  # it leaves out 1/2 when the test stops
    assert look(0, 8).share.high == pytest.approx(1 - look(8, 0).share.low)


@pytest.mark.parametrize("arguments", [(-1, 2), (2, -1), (1, 2, 0.0), (1, 2, 1.0)])
def test_what_is_no_count_is_refused(arguments):
    with pytest.raises(ValueError, match=r"no counts|alpha is"):
        look(*arguments)
