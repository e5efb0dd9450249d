"""Intervals must cover the truth as often as they say, and be the same whenever they are asked again."""

import numpy as np
import pytest

from align.evals.stats import CHUNK_ELEMENTS, Interval, accuracy, bootstrap_mean, win_rate


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(2.0, 3.0, size=500), 2.0),
        (lambda rng: (rng.random(500) < 0.1).astype(float), 0.1),
    ],
    ids=["normal", "bernoulli"],
)
def test_the_95_percent_interval_covers_the_truth_95_times_of_100(draw, truth):
    rng = np.random.default_rng(2026)
    intervals = [bootstrap_mean(draw(rng), n_resamples=500, seed=seed) for seed in range(400)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.97


def test_the_interval_is_as_wide_as_the_normal_one_for_many_values():
    values = np.random.default_rng(0).normal(size=4000)
    mean, low, high = bootstrap_mean(values, n_resamples=4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert high - mean == pytest.approx(half, rel=0.06)
    assert mean - low == pytest.approx(half, rel=0.06)


def test_two_values_have_three_possible_resamples():
    # The means of two draws from {0, 1} are 0, 1/2, 1/2 and 1: a quarter lies at each end, half in the middle.
    assert bootstrap_mean([0.0, 1.0], level=0.95) == Interval(0.5, 0.0, 1.0)
    assert bootstrap_mean([0.0, 1.0], level=0.4) == Interval(0.5, 0.5, 0.5)


def test_a_higher_level_is_a_wider_interval():
    values = list(range(50))
    narrow, wide = bootstrap_mean(values, level=0.8), bootstrap_mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_the_seed_decides_the_interval():
    values = np.random.default_rng(0).normal(size=100)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_chunks_are_of_bounded_size_and_leave_no_resample_out(monkeypatch):
    values = np.random.default_rng(0).normal(size=300)
    whole = bootstrap_mean(values, n_resamples=101)
    monkeypatch.setattr("align.evals.stats.CHUNK_ELEMENTS", 700)  # two rows at a time, and one left
    chunked = bootstrap_mean(values, n_resamples=101)
    assert chunked == pytest.approx(whole)
    assert CHUNK_ELEMENTS * 8 <= 16e6


def test_win_rate_counts_a_tie_as_half():
    assert win_rate([1, 2, 3, 4], [0, 2, 5, 1]).mean == (1 + 0.5 + 0 + 1) / 4
    a, b = np.random.default_rng(0).integers(0, 4, size=(2, 200))
    assert win_rate(a, b).mean + win_rate(b, a).mean == pytest.approx(1)


def test_win_rate_compares_prompt_by_prompt():
    hard = np.random.default_rng(0).normal(0, 100, size=200)  # how hard a prompt is, for both models alike
    rate = win_rate(hard + 0.1, hard)
    assert rate.mean == 1
    assert rate.low > 0.95


def test_accuracy_takes_booleans_and_halves():
    assert accuracy([True, False, True, 0.5]).mean == 2.5 / 4
    assert 0 < accuracy([True] * 70 + [False] * 30).low < 0.7 < accuracy([True] * 70 + [False] * 30).high < 1


@pytest.mark.parametrize(
    ("value", "expected"), [(True, (1, 0.8316, 1)), (False, (0, 0, 0.1684)), (0.5, (0.5, 0.4158, 0.5842))]
)
def test_twenty_alike_of_twenty_is_no_certainty(value, expected):
    # Clopper & Pearson's bound for 20 of 20: 0.025 ** (1 / 20) = 0.8316.
    assert accuracy([value] * 20) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([]), "values is empty"),
        (lambda: bootstrap_mean([1.0, float("nan")]), r"values\[1\] is nan"),
        (lambda: bootstrap_mean([float("inf")]), r"values\[0\] is inf"),
        (lambda: bootstrap_mean([[1.0], [2.0]]), r"not of shape \(2, 1\)"),
        (lambda: bootstrap_mean([1.0, 2.0], level=95), "level is 95"),
        (lambda: bootstrap_mean([1.0, 2.0], n_resamples=0), "n_resamples is 0"),
        (lambda: win_rate([1.0], [1.0, 2.0]), "a_scores has 1 scores and b_scores has 2"),
        (lambda: win_rate([], []), "a_scores is empty"),
        (lambda: win_rate([1.0, 2.0], [1.0, float("nan")]), r"b_scores\[1\] is nan"),
        (lambda: accuracy([]), "correct is empty"),
        (lambda: accuracy([True, 0.7]), "correct holds 0.7"),
    ],
)
def test_what_has_no_mean_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
