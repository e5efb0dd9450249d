"""Bootstrap confidence intervals of means, shares and other statistics; also over clusters; and Wilson's interval.

An evaluation samples a few hundred prompts of many. The percentile bootstrap (Efron 1979, "Bootstrap Methods: Another
Look at the Jackknife"; Efron & Tibshirani 1993, chapter 13) estimates how much its mean varies: it resamples the
prompts with replacement many times and reports the middle 95% of the means. It assumes only that prompts are
independent. The percentiles are widened by the ratio of Student's t to the normal (Hesterberg 2015, 1411.5279,
"expanded percentile interval"): this matters for 20 prompts, not for 500.

Votes on one prompt are dependent, so the prompt is resampled as a whole, as a cluster. A statistic that is a function
of sums over votes (a share, a mean, Krippendorff's alpha, a Bradley-Terry fit) needs only each cluster's part of those
sums (`by_cluster`), which are added up for many resamples at once (`resampled_sums`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHUNK_ELEMENTS = 1_000_000  # per batch: two arrays of 8 MB, for any number of values and resamples

MAX_CLUSTERS = 5000  # above this, clusters are resampled in this many groups

Scores = Sequence[float] | NDArray[np.float64]


class Interval(NamedTuple):
    """A mean with its confidence interval (95% unless stated otherwise)."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Scores, n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of `values` with its percentile-bootstrap interval. The same seed gives the same interval.

    Raises ValueError if `values` is empty, is not one-dimensional, or holds a value that is not finite.
    """
    array = checked(values, "values")
    _check_settings(n_resamples, level)
    means = _resampled_means(array, n_resamples, seed)
    return Interval(float(array.mean()), *percentiles(means, len(array), level))


def win_rate(
    a_scores: Scores, b_scores: Scores, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Share of prompts on which A scores higher than B; a tie counts half, so 0.5 means no difference.

    The i-th scores of both belong to the i-th prompt. Prompts are resampled, in pairs of scores: a prompt that is hard
    for both models adds no uncertainty.
    """
    a, b = checked(a_scores, "a_scores"), checked(b_scores, "b_scores")
    if len(a) != len(b):
        raise ValueError(f"a_scores has {len(a)} scores and b_scores has {len(b)}: give both models the same prompts")
    outcomes = np.where(a > b, 1.0, np.where(a < b, 0.0, 0.5))  # (n_prompts,)
    return _proportion(outcomes, n_resamples, level, seed)


def accuracy(correct: Scores, n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """The share of True (or 1) in `correct`; 0.5 is a tie, half right."""
    array = checked(correct, "correct")
    if wrong := [value for value in np.unique(array) if value not in (0.0, 0.5, 1.0)]:
        raise ValueError(f"correct holds {wrong[0]:g}: each must be True, False or 0.5")
    return _proportion(array, n_resamples, level, seed)


def _proportion(outcomes: NDArray[np.float64], n_resamples: int, level: float, seed: int) -> Interval:
    """The mean of outcomes 0, 0.5 or 1. If all are equal, the bootstrap interval would have width 0.

    Twenty of twenty is not certainty. The exact binomial bound (Clopper & Pearson 1934) is the largest share p of other
    outcomes that can stay unseen: (1 - p) ** n = (1 - level) / 2.
    """
    if np.ptp(outcomes) > 0:
        return bootstrap_mean(outcomes, n_resamples, level, seed)
    _check_settings(n_resamples, level)
    return unvaried(float(outcomes[0]), len(outcomes), level)


def unvaried(value: float, n: int, level: float = 0.95, lowest: float = 0.0, highest: float = 1.0) -> Interval:
    """The interval if n independent outcomes all were `value`: unseen outcomes are taken as extreme."""
    unseen = 1 - ((1 - level) / 2) ** (1 / n)
    return Interval(value, value - unseen * (value - lowest), value + unseen * (highest - value))


def wilson(n_right: int, n: int, level: float = 0.95) -> Interval:
    """The share n_right / n with Wilson's interval (1927), which is valid for few trials too.

    Newcombe 1998, "Two-sided confidence intervals for the single proportion", method 3. Raises ValueError for n < 1.
    """
    from scipy.stats import binomtest

    if not 0 <= n_right <= n or n < 1:
        raise ValueError(f"{n_right} of {n} is not a share: give 0 to n, and n of at least 1")
    low, high = binomtest(n_right, n).proportion_ci(level, "wilson")
    return Interval(n_right / n, float(low), float(high))


def _resampled_means(values: NDArray[np.float64], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """(n_resamples,): scipy's bootstrap, in batches, so that memory does not grow with `n_resamples`."""
    from scipy.stats import bootstrap

    if len(values) == 1:  # scipy refuses a single value, and every resample of it is the same
        return values
    batch = max(1, CHUNK_ELEMENTS // len(values))
    settings = {"n_resamples": n_resamples, "batch": batch, "method": "percentile", "rng": seed}
    return np.asarray(bootstrap((values,), np.mean, **settings).bootstrap_distribution)


# -- clusters ---------------------------------------------------------------------------------------------------------


def by_cluster(clusters: ArrayLike, columns: ArrayLike, values: ArrayLike, n_columns: int) -> csr_array:
    """Each cluster's part of `n_columns` sums, (n_columns, n_clusters). The row sums are the sums themselves.

    Args:
        clusters: (n,) labels of each value's cluster, such as prompt or person; sortable.
        columns: (n,) integers, the sum that each value belongs to.
        values: (n,).
    """
    from scipy.sparse import csr_array

    labels, place = np.unique(np.asarray(clusters), return_inverse=True)
    entries = np.asarray(values, dtype=np.float64), (np.asarray(columns, dtype=np.int64), place)
    return csr_array(entries, shape=(n_columns, len(labels)))


def resampled_sums(parts: csr_array, n_resamples: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """(n_resamples, n_columns): the sums over resampled clusters: as many clusters, with replacement.

    Above `MAX_CLUSTERS`, clusters are first grouped at random and groups are resampled: sums of groups are independent
    too and have the same variance, and the time stays bounded.
    """
    rng = np.random.default_rng(seed)
    if parts.shape[1] > MAX_CLUSTERS:
        parts = _grouped(parts, rng.permutation(parts.shape[1]) % MAX_CLUSTERS)
    n_columns, n_clusters = parts.shape
    sums = np.empty((n_resamples, n_columns))
    n_rows = max(1, CHUNK_ELEMENTS // max(1, n_clusters))
    for done in range(0, n_resamples, n_rows):
        n = min(n_rows, n_resamples - done)
        drawn = rng.integers(0, n_clusters, size=(n, n_clusters)) + n_clusters * np.arange(n)[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * n_clusters).reshape(n, n_clusters)
        sums[done : done + n] = (parts @ times.T.astype(np.float64)).T
    return sums


def _grouped(parts: csr_array, group: NDArray[np.int64]) -> csr_array:
    entries = parts.tocoo()
    columns, clusters = entries.coords
    return by_cluster(group[clusters], columns, entries.data, parts.shape[0])


def bootstrap_statistic(
    parts: csr_array,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """A function of sums, (n, n_columns) -> (n,), with its interval over clusters. None if undefined."""
    _check_settings(n_resamples, level)
    value = float(statistic(np.asarray(parts.sum(axis=1), dtype=np.float64)[None])[0])
    if not math.isfinite(value):
        return None
    low, high = percentiles(statistic(resampled_sums(parts, n_resamples, seed)), parts.shape[1], level)
    return Interval(value, low, high)


def ratios(
    clusters: ArrayLike,
    groups: ArrayLike,
    parts: ArrayLike,
    wholes: ArrayLike,
    n_groups: int,
    lowest: float = 0.0,
    highest: float = 1.0,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval | None]:
    """For each group, sum of `parts` / sum of `wholes`, with its interval over clusters; None if the divisor is 0.

    Args:
        clusters, groups, parts, wholes: (n,). Groups are integers below `n_groups`.
        lowest, highest: bounds of a ratio, for groups with equal clusters (see `unvaried`).
    """
    _check_settings(n_resamples, level)
    group, whole = np.asarray(groups, dtype=np.int64), np.asarray(wholes, dtype=np.float64)
    upper = by_cluster(clusters, group, parts, n_groups)
    lower = by_cluster(clusters, group, whole, n_groups)
    tops, bottoms = (resampled_sums(sums, n_resamples, seed) for sums in (upper, lower))  # one seed: the same clusters
    with np.errstate(invalid="ignore", divide="ignore"):
        values, drawn = upper.sum(axis=1) / lower.sum(axis=1), tops / bottoms
    found: list[Interval | None] = []
    for g in range(n_groups):
        n_clusters = int(np.count_nonzero(lower[[g]].toarray()))
        if not n_clusters:
            found.append(None)
        elif np.nanmax(drawn[:, g]) - np.nanmin(drawn[:, g]) < 1e-12:  # all clusters equal
            found.append(unvaried(float(values[g]), n_clusters, level, lowest, highest))
        else:
            found.append(Interval(float(values[g]), *percentiles(drawn[:, g], n_clusters, level)))
    return found


def percentiles(drawn: NDArray[np.float64], n_clusters: int, level: float) -> tuple[float, float]:
    """The expanded percentiles of the finite values of `drawn`."""
    from scipy.special import ndtr, stdtrit

    tail = (1 - level) / 2
    if n_clusters > 1:
        tail = float(ndtr(math.sqrt(n_clusters / (n_clusters - 1)) * stdtrit(n_clusters - 1, tail)))
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail])
    return float(low), float(high)


def checked(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """`values` as a 1-D float array. Raises ValueError with argument, index and value."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be a flat list of numbers, not of shape {array.shape}")
    if not array.size:
        raise ValueError(f"{name} is empty: there is nothing to take a mean of")
    if not np.isfinite(array).all():
        where = int(np.argmin(np.isfinite(array)))
        raise ValueError(f"{name}[{where}] is {array[where]}: drop what could not be scored before taking a mean")
    return array


def _check_settings(n_resamples: int, level: float) -> None:
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}: it must be at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: it must lie between 0 and 1, as 0.95 does")
