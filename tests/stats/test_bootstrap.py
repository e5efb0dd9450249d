"""Intervals must cover the truth as often as they say, and be the same whenever they are asked again."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from align.stats.bootstrap import (
    CHUNK_ELEMENTS,
    Interval,
    accuracy,
    bootstrap_mean,
    bootstrap_statistic,
    by_cluster,
    ratios,
    resampled_sums,
    wilson,
    win_rate,
)


@pytest.mark.heavy
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


def test_twenty_values_are_enough_for_an_interval():
    rng = np.random.default_rng(2)
    intervals = [bootstrap_mean(rng.normal(size=20), n_resamples=500, seed=seed) for seed in range(1000)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.97  # plain percentiles: 0.92


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
    # At 20% Student's t of one degree of freedom, times sqrt(2), is 0.459: the percentiles 32% and 68%.
    assert bootstrap_mean([0.0, 1.0], level=0.2) == Interval(0.5, 0.5, 0.5)


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
    monkeypatch.setattr("align.stats.bootstrap.CHUNK_ELEMENTS", 700)  # two rows at a time, and one left
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
    ("n_right", "n", "expected"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilsons_interval_is_newcombes_table(n_right, n, expected):
    # Newcombe 1998, table I, method 3.
    assert wilson(n_right, n) == pytest.approx((n_right / n, *expected), abs=6e-5)


# -- clusters ---------------------------------------------------------------------------------------------------------


def test_sums_are_kept_by_cluster():
    parts = by_cluster(["b", "a", "b", "b"], [0, 0, 0, 1], [1.0, 2.0, 3.0, 5.0], 2)
    assert parts.toarray().tolist() == [[2, 4], [0, 5]]  # clusters a and b


def test_a_resample_draws_whole_clusters():
    parts = by_cluster([0, 1, 1], [0, 0, 1], [1.0, 10.0, 100.0], 2)
    drawn = {tuple(row) for row in resampled_sums(parts, 200).tolist()}
    assert drawn == {(2, 0), (11, 100), (20, 200)}  # a twice, each once, b twice


def test_many_clusters_are_drawn_in_groups_that_spread_as_much(monkeypatch):
    values = np.random.default_rng(0).normal(size=3000)
    parts = by_cluster(np.arange(3000), np.zeros(3000, dtype=int), values, 1)
    one_by_one = resampled_sums(parts, 4000).std()
    monkeypatch.setattr("align.stats.bootstrap.MAX_CLUSTERS", 500)
    assert resampled_sums(parts, 4000).std() == pytest.approx(one_by_one, rel=0.1)


def test_resamples_do_not_depend_on_chunks(monkeypatch):
    parts = by_cluster(np.arange(50), np.zeros(50, dtype=int), np.arange(50.0), 1)
    whole = resampled_sums(parts, 101, seed=3)
    monkeypatch.setattr("align.stats.bootstrap.CHUNK_ELEMENTS", 120)
    assert resampled_sums(parts, 101, seed=3).tolist() == whole.tolist()


def test_a_share_is_a_ratio_of_sums_in_each_group():
    found = ratios([0, 0, 1, 2], [0, 0, 0, 2], [1, 2, 0, 1], [2, 2, 1, 4], 3)
    assert [interval and interval.mean for interval in found] == [3 / 5, None, 1 / 4]


def test_votes_said_twice_make_nothing_surer():
    rng = np.random.default_rng(0)
    prompts, outcomes = np.arange(60), rng.random(60)
    once = ratios(prompts, prompts * 0, outcomes, np.ones(60), 1)
    thrice = ratios(np.tile(prompts, 3), np.zeros(180, dtype=int), np.tile(outcomes, 3), np.ones(180), 1)
    assert once[0] == pytest.approx(thrice[0])
    assert once[0] == pytest.approx(bootstrap_mean(outcomes), abs=0.01)


def test_clusters_of_one_value_give_the_librarys_interval():
    values = np.random.default_rng(0).random(400)
    (found,) = ratios(range(400), [0] * 400, values, [1] * 400, 1, n_resamples=20_000)
    expected = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert found[1:] == pytest.approx(tuple(expected), abs=1e-3)  # the interval is 0.056 wide


def test_votes_on_one_prompt_go_together():
    # 40 prompts with 5 votes each that are alike but for one in ten: 200 votes are not 200 witnesses.
    rng = np.random.default_rng(1)
    prompt = np.repeat(np.arange(40), 5)
    by_prompt = by_vote = 0
    for seed in range(400):
        votes = ((rng.random(40) < 0.6)[prompt] ^ (rng.random(200) < 0.1)).astype(float)
        for clusters in (prompt, np.arange(200)):
            (found,) = ratios(clusters, prompt * 0, votes, np.ones(200), 1, n_resamples=300, seed=seed)
            covers = found.low <= 0.6 * 0.9 + 0.4 * 0.1 <= found.high
            by_prompt, by_vote = by_prompt + covers * (clusters is prompt), by_vote + covers * (clusters is not prompt)
    assert 0.92 <= by_prompt / 400 <= 0.98
    assert by_vote / 400 < 0.8


def test_groups_whose_clusters_are_all_alike_are_no_certainty():
    (share,) = ratios(range(20), [0] * 20, [3] * 20, [3] * 20, 1)
    assert share == pytest.approx((1, 0.8316, 1), abs=1e-4)  # as for 20 of 20 above
    (tau,) = ratios(range(20), [0] * 20, [-1] * 20, [1] * 20, 1, lowest=-1)
    assert tau == pytest.approx((-1, -1, -1 + 2 * 0.1684), abs=1e-4)


def test_a_statistic_that_is_not_defined_is_none():
    parts = by_cluster([0, 1], [0, 0], [1.0, 2.0], 1)
    assert bootstrap_statistic(parts, lambda sums: sums[:, 0] * np.nan) is None
    assert bootstrap_statistic(parts, lambda sums: sums[:, 0]).mean == 3


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
        (lambda: wilson(3, 2), "3 of 2"),
        (lambda: wilson(0, 0), "0 of 0"),
        (lambda: ratios([0], [0], [1], [1], 1, level=95), "level is 95"),
        (lambda: accuracy([]), "correct is empty"),
        (lambda: accuracy([True, 0.7]), "correct holds 0.7"),
    ],
)
def test_what_has_no_mean_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
