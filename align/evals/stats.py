"""How sure an evaluation can be: means with confidence intervals, by the percentile bootstrap.

An evaluation asks a few hundred prompts and speaks about all prompts of that kind. The bootstrap (Efron 1979,
"Bootstrap Methods: Another Look at the Jackknife"; Efron & Tibshirani 1993, chapter 13) measures how far its mean could
have fallen elsewhere: it draws as many prompts again, with replacement, many times over, and reports the middle 95% of
the means it gets. It assumes nothing about how scores are distributed, only that prompts were drawn independently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK_ELEMENTS = 1_000_000  # drawn at a time: two arrays of 8 MB, however many values and resamples there are

Scores = Sequence[float] | NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and the interval that covers the true one, at the level it was asked for (95% unless said)."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Scores, n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of `values` with its percentile-bootstrap interval. The same seed gives the same interval.

    Raises ValueError if `values` is empty, is not one-dimensional, or holds a value that is not finite.
    """
    array = _checked(values, "values")
    _check_settings(n_resamples, level)
    means = np.concatenate(list(_resampled_means(array, n_resamples, seed)))  # (n_resamples,)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high))


def win_rate(
    a_scores: Scores, b_scores: Scores, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """How often A's answer scores higher than B's to the same prompt; a tie counts half, so 0.5 means no difference.

    The i-th scores of both belong to the i-th prompt, and prompts are what is resampled: a prompt that is hard for
    both models adds nothing to the uncertainty, as it would if the two were resampled apart.
    """
    a, b = _checked(a_scores, "a_scores"), _checked(b_scores, "b_scores")
    if len(a) != len(b):
        raise ValueError(f"a_scores has {len(a)} scores and b_scores has {len(b)}: give both models the same prompts")
    outcomes = np.where(a > b, 1.0, np.where(a < b, 0.0, 0.5))  # (n_prompts,)
    return _proportion(outcomes, n_resamples, level, seed)


def accuracy(correct: Scores, n_resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """The share of True (or 1) in `correct`; 0.5 stands for a tie that is half right, as a coin would be."""
    array = _checked(correct, "correct")
    if wrong := [value for value in np.unique(array) if value not in (0.0, 0.5, 1.0)]:
        raise ValueError(f"correct holds {wrong[0]:g}: each must be True, False or 0.5")
    return _proportion(array, n_resamples, level, seed)


def _proportion(outcomes: NDArray[np.float64], n_resamples: int, level: float, seed: int) -> Interval:
    """Outcomes of 0, 0.5 or 1. If all are the same, no resample can differ, and the bootstrap would be sure of it.

    Twenty right of twenty is not certainty. The exact binomial bound (Clopper & Pearson 1934) says what share p of
    other outcomes could still have stayed unseen: (1 - p) ** n = (1 - level) / 2.
    """
    if np.ptp(outcomes) > 0:
        return bootstrap_mean(outcomes, n_resamples, level, seed)
    _check_settings(n_resamples, level)
    value, unseen = float(outcomes[0]), 1 - ((1 - level) / 2) ** (1 / len(outcomes))
    return Interval(value, value - unseen * value, value + unseen * (1 - value))


def _resampled_means(values: NDArray[np.float64], n_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Means of resamples, in chunks, so that memory does not grow with their number."""
    rng = np.random.default_rng(seed)
    n_rows = max(1, CHUNK_ELEMENTS // len(values))
    for done in range(0, n_resamples, n_rows):
        drawn = rng.integers(0, len(values), size=(min(n_rows, n_resamples - done), len(values)))
        yield values[drawn].mean(axis=1)


def _checked(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """As a 1-D float array, or a ValueError that names the argument, the place and the value."""
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
