"""Position bias: found where it is, not found where it is not, by the tests that statistics knows by name."""

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, page_trend_test

from align.stats.position import position_bias


def shown(rng, n, k=4, bias=0.0, tie=0.0):
    """Tasks, places and ranks of n rankings of k answers shown in random orders; later places cost `bias` each."""
    places = np.argsort(rng.random((n, k)), axis=1)
    seen = rng.normal(size=(n, k)) - bias * places
    seen = np.round(seen / tie) if tie else seen
    ranks = 1 + (seen[:, None, :] > seen[:, :, None]).sum(axis=2)
    return list(range(n)), places.tolist(), ranks.tolist()


def test_by_hand():
    # Both put what they saw first on top: once the answer 0, once the answer 2.
    found = position_bias([1, 2], [[0, 1, 2], [1, 2, 0]], [[1, 2, 3], [2, 2, 1]])
    assert found.earlier.mean == 1  # of 3 and 2 pairs decided
    assert [interval.mean for interval in found.by_place] == [1, 0.375, 0.125]
    assert found.n_rankings == 2


def test_it_is_friedmans_test_with_ties():
    tasks, places, ranks = shown(np.random.default_rng(0), 50, tie=0.7)
    in_order = np.take_along_axis(np.array(ranks), np.argsort(places, axis=1), axis=1)
    assert position_bias(tasks, places, ranks).p_any == pytest.approx(friedmanchisquare(*in_order.T).pvalue)


def test_it_is_pages_test():
    tasks, places, ranks = shown(np.random.default_rng(1), 60, bias=0.1)
    in_order = np.take_along_axis(np.array(ranks), np.argsort(places, axis=1), axis=1)
    one_sided = page_trend_test(in_order, ranked=True, method="asymptotic").pvalue
    assert position_bias(tasks, places, ranks).p_trend == pytest.approx(2 * one_sided, rel=1e-6)


def test_rankings_of_different_size_are_taken_together():
    rng = np.random.default_rng(2)
    pairs, fives = shown(rng, 150, k=2, bias=0.3), shown(rng, 150, k=5, bias=0.3)
    both = position_bias(*([*a, *b] for a, b in zip(pairs, fives, strict=True)))
    assert both.p_trend < min(position_bias(*pairs).p_trend, position_bias(*fives).p_trend) < 0.05
    assert len(both.by_place) == 5


@pytest.mark.heavy
def test_no_bias_is_called_one_in_5_of_100_and_intervals_cover_a_half():
    rng = np.random.default_rng(3)
    found = [position_bias(*shown(rng, 40, tie=0.7), seed=seed) for seed in range(200)]
    assert 0.025 <= np.mean([one.p_trend <= 0.05 for one in found]) <= 0.08
    assert 0.025 <= np.mean([one.p_any <= 0.05 for one in found]) <= 0.08
    assert 0.92 <= np.mean([one.earlier.low <= 0.5 <= one.earlier.high for one in found]) <= 0.98
    assert 0.93 <= np.mean([i.low <= 0.5 <= i.high for one in found for i in one.by_place]) <= 0.97


def test_a_bias_is_found_and_measured():
    found = position_bias(*shown(np.random.default_rng(4), 400, bias=0.3))
    assert found.earlier.low > 0.5
    assert found.p_trend < 1e-6
    assert found.p_any < 1e-4
    assert [round(interval.mean, 1) for interval in found.by_place] == sorted(
        (round(interval.mean, 1) for interval in found.by_place), reverse=True
    )


def test_a_bias_for_the_middle_is_no_trend_and_is_found_all_the_same():
    rng = np.random.default_rng(5)
    places = np.argsort(rng.random((500, 3)), axis=1)
    seen = rng.normal(size=(500, 3)) + 0.6 * (places == 1)
    ranks = 1 + (seen[:, None, :] > seen[:, :, None]).sum(axis=2)
    found = position_bias(list(range(500)), places.tolist(), ranks.tolist())
    assert found.p_any < 1e-4 < found.p_trend


def test_nothing_to_tell_it_from():
    empty = position_bias([], [], [])
    assert empty == (None, [], None, None, 0)
    tied = position_bias([0, 1], [[0, 1], [1, 0]], [[1, 1], [1, 1]])
    assert (tied.earlier, tied.p_trend, tied.p_any) == (None, None, None)
    assert [interval.mean for interval in tied.by_place] == [0.5, 0.5]
