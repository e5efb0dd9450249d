"""Krippendorff's alpha: agreement beyond chance for any number of annotators and missing values.

    alpha = 1 - D_o / D_e,    D_o = sum_ck o_ck d_ck / n,    D_e = sum_ck n_c n_k d_ck / (n (n - 1))

o_ck counts the pairs of values (c, k) that two people gave the same unit, weighted so that a unit counts as many times
as it has values; n_c = sum_k o_ck; d_ck is the distance of two values. 1 is perfect agreement, 0 is chance, below 0 is
less than chance (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"; Hayes & Krippendorff 2007). Units
with a single value are ignored.

The interval resamples clusters of units (all answers to a prompt). Krippendorff's own bootstrap draws single
coincidences and holds D_e fixed; it covered 60% where it promised 95%, while drawing units kept the promise (Zapf et
al. 2016, BMC Medical Research Methodology 16:93).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.stats.bootstrap import Interval, bootstrap_statistic, by_cluster

Level = Literal["nominal", "ordinal"]


def krippendorff_alpha(
    units: ArrayLike,
    values: ArrayLike,
    level: Level = "ordinal",
    clusters: ArrayLike | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Alpha with its 95% interval. None if undefined: no unit with two values, or all values equal.

    Args:
        units: (n,) the unit of each value. Annotators are not needed; leave out missing values.
        values: (n,) numbers, ordered for `ordinal`, categories for `nominal`.
        clusters: (n,) the cluster of each unit, such as its prompt. Default: each unit is a cluster.
    """
    unit, value = np.asarray(units), np.asarray(values, dtype=np.float64)
    if unit.shape != value.shape or value.ndim != 1:
        raise ValueError(f"units {unit.shape} and values {value.shape} must be flat and of one length")
    if not np.isfinite(value).all():
        raise ValueError("values must be finite: leave out what is missing")
    known, code = np.unique(value, return_inverse=True)
    cluster, cell, count = _coincidences(unit, code, len(known), unit if clusters is None else np.asarray(clusters))
    if not len(count):
        return None
    parts = by_cluster(cluster, cell, count, len(known) ** 2)
    found = bootstrap_statistic(parts, lambda sums: _alpha(sums, len(known), level), n_resamples, seed=seed)
    if found is not None and found.mean == 1:  # the bootstrap interval would have width 0
        return Interval(1.0, 0.025 ** (1 / parts.shape[1]), 1.0)
    return found


def relative_ranks(ranks: Sequence[int]) -> list[float]:
    """Ranks of K answers as values for alpha, between 0 (best) and 1 for any K; ties share their mean.

    (midrank - 1/2) / K: of equal ranks 1, 1, 3 the midranks are 1.5, 1.5, 3, so 1, 1, 2 says the same.
    """
    array = np.asarray(ranks)
    better = (array[:, None] > array[None, :]).sum(axis=1)
    alike = (array[:, None] == array[None, :]).sum(axis=1)
    return [float(rank) for rank in (better + alike / 2) / len(array)]


def _coincidences(
    unit: NDArray[np.generic], code: NDArray[np.int64], n_values: int, cluster: NDArray[np.generic]
) -> tuple[NDArray[np.generic], NDArray[np.int64], NDArray[np.float64]]:
    """For each pair of values in a unit, in both directions: its cluster, its cell c * n_values + k, and its weight.

    The weight is 1 / (m - 1) for a unit with m values.
    """
    order = np.argsort(unit, kind="stable")
    unit, code, cluster = unit[order], code[order], cluster[order]
    _, first, size = np.unique(unit, return_index=True, return_counts=True)
    n_of, start = np.repeat(size, size), np.repeat(first, size)
    place = np.arange(len(unit)) - start  # of each value within its unit
    here, cells, counts = [], [], []
    for shift in range(1, int(size.max(initial=1))):  # each value with the next, the one after, ... of its unit
        one = np.flatnonzero(n_of > shift)
        other = start[one] + (place[one] + shift) % n_of[one]
        here.append(one)
        cells.append(code[one] * n_values + code[other])
        counts.append(1 / (n_of[one] - 1))
    if not here:
        return cluster[:0], np.zeros(0, dtype=np.int64), np.zeros(0)
    return cluster[np.concatenate(here)], np.concatenate(cells), np.concatenate(counts)


def _alpha(sums: NDArray[np.float64], n_values: int, level: Level) -> NDArray[np.float64]:
    """(m, n_values ** 2) coincidences to (m,) alphas; NaN if all values are equal."""
    observed = sums.reshape(-1, n_values, n_values)
    n_c = observed.sum(axis=2)  # (m, n_values)
    n = n_c.sum(axis=1)
    if level == "nominal":
        distance = np.broadcast_to(1 - np.eye(n_values), observed.shape)
    else:  # (n_c / 2 + all between + n_k / 2) squared: the distance of the values' mean places in the order
        middle = np.cumsum(n_c, axis=1) - n_c / 2
        distance = (middle[:, :, None] - middle[:, None, :]) ** 2
    expected = np.einsum("mc,mk,mck->m", n_c, n_c, distance)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (n - 1) * np.einsum("mck,mck->m", observed, distance) / expected
