"""Takes length out where length decides, leaves the rate where it does not, and knows how sure it is."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from align.stats.bootstrap import win_rate
from align.stats.length_control import PRIOR_SD, Controlled, length_controlled


def lengths(rng, n, longer=150.0):
    """Of a wordy model's answers and a brief one's."""
    second = rng.gamma(4.0, 60.0, size=n).round()
    return (second + rng.normal(longer, 200.0, size=n)).clip(1).round(), second


def test_where_only_length_decides_the_controlled_rate_is_a_half():
    first, second = lengths(np.random.default_rng(0), 1000)
    raw = win_rate(first, second)
    controlled = length_controlled(np.sign(first - second) / 2 + 0.5, first, second).rate
    assert raw.low > 0.7
    assert controlled.low < 0.5 < controlled.high
    assert 0.4 < controlled.mean < 0.6


@pytest.mark.parametrize("longer", [0.0, 150.0])
def test_where_length_decides_nothing_both_rates_agree(longer):
    rng = np.random.default_rng(1)
    won = (rng.random(2000) < 0.7).astype(float)
    controlled = length_controlled(won, *lengths(rng, 2000, longer)).rate
    assert controlled.mean == pytest.approx(won.mean(), abs=0.02)
    assert controlled.low < 0.7 < controlled.high
    assert controlled.low > 0.6


def test_quality_is_left_when_length_helps_too():
    """The first model is better, and wins more than it should because it is longer."""
    rng = np.random.default_rng(2)
    first, second = lengths(rng, 4000)
    push = np.tanh((first - second) / (first - second).std())
    won = (rng.random(4000) < expit(0.5 + 1.5 * push)).astype(float)
    controlled = length_controlled(won, first, second).rate
    assert won.mean() > 0.7
    assert controlled.mean == pytest.approx(expit(0.5), abs=0.03)


@pytest.mark.slow
def test_the_interval_covers_the_rate_at_equal_lengths_95_times_of_100():
    rng, covered, raw_covered = np.random.default_rng(3), [], []
    for seed in range(600):
        first, second = lengths(rng, 200)
        push = np.tanh((first - second) / (first - second).std())
        won = (rng.random(200) < expit(0.4 + 1.0 * push)).astype(float)
        low, high = length_controlled(won, first, second, n_resamples=300, seed=seed).rate[1:]
        covered.append(low <= expit(0.4) <= high)
        raw_covered.append(abs(won.mean() - expit(0.4)) < 1.96 * won.std() / 200**0.5)
    assert 0.925 <= np.mean(covered) <= 0.975
    assert np.mean(raw_covered) < 0.7  # so the simulation is one in which controlling matters


def test_the_fit_is_what_a_general_optimiser_finds():
    rng = np.random.default_rng(4)
    first, second = lengths(rng, 60)
    won = rng.choice([0.0, 0.5, 1.0], size=60)
    x = np.tanh((first - second) / (first - second).std()).round(3)

    def loss(found):
        eta = found[0] + found[1] * x
        return -(won * np.log(expit(eta)) + (1 - won) * np.log(expit(-eta))).sum() + (found**2).sum() / 2 / PRIOR_SD**2

    expected = minimize(loss, np.zeros(2), tol=1e-10).x[0]
    assert length_controlled(won, first, second).rate.mean == pytest.approx(expit(expected), abs=1e-5)


def test_swapped_models_have_the_rest_of_the_rate():
    rng = np.random.default_rng(5)
    first, second = lengths(rng, 300)
    won = rng.choice([0.0, 0.5, 1.0], size=300, p=[0.2, 0.2, 0.6])
    there, back = length_controlled(won, first, second).rate, length_controlled(1 - won, second, first).rate
    assert back == pytest.approx((1 - there.mean, 1 - there.high, 1 - there.low), abs=1e-9)


def test_the_seed_decides_and_chunks_do_not(monkeypatch):
    rng = np.random.default_rng(6)
    first, second = lengths(rng, 100)
    won = rng.choice([0.0, 1.0], size=100)
    whole = length_controlled(won, first, second, seed=3)
    assert length_controlled(won, first, second, seed=4) != whole
    monkeypatch.setattr("align.stats.length_control.CHUNK_ELEMENTS", 1000)
    assert length_controlled(won, first, second, seed=3).rate == pytest.approx(whole.rate)


@pytest.mark.parametrize(("first", "which"), [([5, 6, 7], "longer"), ([1, 2, 1], "shorter")])
def test_where_no_prompt_shows_equal_lengths_there_is_no_rate(first, which):
    found = length_controlled([1, 0, 1], first, [3, 3, 3])
    assert found == Controlled(None, f"its answers are {which} to every prompt: none shows equal lengths")


def test_equal_lengths_leave_the_rate_as_it_is():
    won = [1.0] * 40 + [0.5] * 10 + [0.0] * 10
    assert length_controlled(won, [7] * 60, [7] * 60).rate.mean == pytest.approx(0.75, abs=0.005)  # the prior's part


def test_twenty_wins_of_twenty_are_no_certainty():
    found = length_controlled([1.0] * 20, range(20), [10] * 20).rate
    assert found == pytest.approx((1, 0.8316, 1), abs=1e-4)


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="3 outcomes and 2 lengths"):
        length_controlled([1, 0, 1], [1, 2], [2, 1])
