"""Krippendorff's alpha on the published example, against another implementation, and its interval in simulation."""

import krippendorff
import numpy as np
import pytest
from scipy.stats import rankdata

from align.stats.krippendorff import krippendorff_alpha, relative_ranks

NAN = float("nan")
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section D: four observers, twelve units, gaps.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


def alpha_of(table, level="ordinal", **settings):
    """Of a table (people, units) with NaN where nothing was said."""
    people, units = np.nonzero(~np.isnan(table))
    return krippendorff_alpha(units, table[people, units], level, **settings)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_the_published_example(level, published):
    assert alpha_of(PUBLISHED, level).mean == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_another_implementation_gives(level, seed):
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 8, size=(6, 40)).astype(float)
    table[rng.random(table.shape) < 0.6] = NAN
    expected = krippendorff.alpha(reliability_data=table, level_of_measurement=level)
    assert alpha_of(table, level, n_resamples=2).mean == pytest.approx(expected, abs=1e-12)


def test_two_people_by_hand():
    # Two units alike, one not: o_00 = 2, o_11 = 2, o_01 = o_10 = 1; n_0 = n_1 = 3. 1 - 5 * 2 / 18.
    assert alpha_of(np.array([[0.0, 1, 0], [0, 1, 1]]), "nominal").mean == pytest.approx(1 - 10 / 18)


def test_what_is_not_defined_is_none():
    assert krippendorff_alpha([], []) is None
    assert krippendorff_alpha([0, 1, 2], [1, 2, 3]) is None  # nobody judged what another did
    assert alpha_of(np.ones((3, 5))) is None  # one value only: no chance to disagree


def test_order_of_values_and_people_does_not_matter():
    people, units = np.nonzero(~np.isnan(PUBLISHED))
    values, order = PUBLISHED[people, units], np.random.default_rng(0).permutation(len(units))
    assert krippendorff_alpha(units[order], values[order]) == pytest.approx(krippendorff_alpha(units, values))
    assert krippendorff_alpha(units, values**3) == krippendorff_alpha(units, values)  # only their order counts


def test_agreement_on_few_prompts_is_no_certainty():
    table = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4]])
    assert alpha_of(table) == pytest.approx((1, 0.025 ** (1 / 4), 1))


def test_ties_share_their_mean_rank():
    assert relative_ranks([1, 2]) == [0.25, 0.75]
    assert relative_ranks([1, 1, 3]) == relative_ranks([1, 1, 2]) == pytest.approx([1 / 3, 1 / 3, 5 / 6])
    assert relative_ranks([3, 1, 2, 4]) == [0.625, 0.125, 0.375, 0.875]
    ranks = [2, 5, 5, 1, 7, 5, 2]
    assert relative_ranks(ranks) == pytest.approx((rankdata(ranks) - 0.5) / len(ranks))


def ranked(rng, n_prompts):
    """(2, n_prompts, 4): two people's ranks of four answers that differ in truth, seen with noise, with ties."""
    seen = rng.normal(size=(n_prompts, 4)) + 0.7 * rng.normal(size=(2, n_prompts, 4))
    seen = np.round(seen / 0.7)
    return 1 + (seen[..., None, :] > seen[..., :, None]).sum(axis=-1)


def alpha_of_ranks(ranks, **settings):
    n = ranks.shape[1]
    values = [relative_ranks(row) for row in ranks.reshape(-1, 4)]
    units = np.tile(np.arange(4 * n), 2)
    return krippendorff_alpha(units, np.ravel(values), "ordinal", units // 4, **settings)


@pytest.mark.heavy
def test_the_interval_covers_the_truth_95_times_of_100():
    rng = np.random.default_rng(0)
    truth = alpha_of_ranks(ranked(rng, 20_000), n_resamples=2).mean
    found = [alpha_of_ranks(ranked(rng, 40), n_resamples=300, seed=seed) for seed in range(200)]
    assert 0.92 <= np.mean([interval.low <= truth <= interval.high for interval in found]) <= 0.98


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one length"):
        krippendorff_alpha([1, 2], [1.0])
    with pytest.raises(ValueError, match="leave out what is missing"):
        krippendorff_alpha([1, 1], [1.0, NAN])
