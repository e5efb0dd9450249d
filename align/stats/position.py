"""Position bias of annotators and LLM judges: does the place where an answer is shown change its rank?

Answers are shown in random order for each person and task. Without bias, all assignments of a ranking's ranks to places
are equally likely; the tests use this alone and assume nothing about the answers. An answer's mark is the share of the
other answers in its ranking that it beats, ties half: without bias its mean over any place is 1/2, for any K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from align.stats.agreement import Lists, by_length
from align.stats.bootstrap import Interval, ratios


class PositionBias(NamedTuple):
    """Figures are None without data."""

    earlier: Interval | None  # share of decided pairs won by the answer shown earlier; 0.5: no bias
    by_place: list[Interval | None]  # mean mark of the answer shown first, second, ...
    p_trend: float | None  # p-value of a trend of marks over places
    p_any: float | None  # p-value of any difference between places
    n_rankings: int


def position_bias(tasks: Sequence[int], places: Lists, ranks: Lists, seed: int = 0) -> PositionBias:
    """Intervals are over tasks. `p_any` is Friedman's test, `p_trend` Page's, with ties, summed over sizes of ranking.

    Friedman 1937, "The Use of Ranks to Avoid the Assumption of Normality"; Page 1963, "Ordered Hypotheses for Multiple
    Treatments", whose statistic is here divided by its exact standard deviation under random orders.

    Args:
        tasks: one for each ranking.
        places: of each ranking's answers, 0 for the one shown first to K - 1.
        ranks: of the same answers; 1 is best, equal ranks are ties.
    """
    shown = _Shown.of(tasks, places, ranks)
    if not any(len(marks) for marks in shown.marks):
        return PositionBias(None, [], None, None, len(ranks))
    earlier = ratios(tasks, [0] * len(ranks), *earlier_won(places, ranks), 1, seed=seed)[0]
    return PositionBias(earlier, _by_place(shown, seed), *_tests(shown.marks), len(ranks))


def earlier_won(places: Lists, ranks: Lists) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each ranking: decided pairs won by the answer shown earlier, and all decided pairs."""
    won, decided = np.zeros(len(ranks), dtype=np.int64), np.zeros(len(ranks), dtype=np.int64)
    for rows, (place, rank) in by_length(places, ranks):
        rank = np.take_along_axis(rank, np.argsort(place, axis=1, kind="stable"), axis=1)
        first, later = np.triu_indices(rank.shape[1], 1)
        won[rows] = (rank[:, first] < rank[:, later]).sum(axis=1)
        decided[rows] = (rank[:, first] != rank[:, later]).sum(axis=1)
    return won, decided


class _Shown(NamedTuple):
    """Marks by place, grouped by K, the number of answers."""

    tasks: list[NDArray[np.int64]]  # (n,) each
    marks: list[NDArray[np.float64]]  # (n, K) each, in the order of places

    @classmethod
    def of(cls, tasks: Sequence[int], places: Lists, ranks: Lists) -> _Shown:
        found = cls([], [])
        for rows, (place, rank) in by_length(places, ranks):
            k = rank.shape[1]
            rank = np.take_along_axis(rank, np.argsort(place, axis=1, kind="stable"), axis=1)
            beaten = np.sign(rank[:, None, :] - rank[:, :, None])  # (n, i, j): 1 if i is better than j
            found.tasks.append(np.asarray(tasks, dtype=np.int64)[rows])
            found.marks.append(0.5 + beaten.sum(axis=2) / (2 * (k - 1)))
        return found


def _by_place(shown: _Shown, seed: int) -> list[Interval | None]:
    n_places = max(marks.shape[1] for marks in shown.marks)
    tasks = np.concatenate([np.repeat(t, m.shape[1]) for t, m in zip(shown.tasks, shown.marks, strict=True)])
    places = np.concatenate([np.tile(np.arange(m.shape[1]), len(m)) for m in shown.marks])
    marks = np.concatenate([m.ravel() for m in shown.marks])
    return ratios(tasks, places, marks, np.ones_like(marks), n_places, seed=seed)


def _tests(every: Sequence[NDArray[np.float64]]) -> tuple[float | None, float | None]:
    """(p_trend, p_any). Without bias the marks m_1..m_K of a ranking are a random permutation:

    the sum over rankings of sum_p (p - mean p) m_p has variance S_m S_p / (K - 1), with S the sums of squares about the
    mean; and the sum of m_p over rankings has, over all places together, a chi-squared of K - 1 degrees of freedom.
    """
    from scipy.special import chdtrc, ndtr

    trend = variance = chi2 = 0.0
    freedom = 0
    for marks in every:
        k = marks.shape[1]
        centred, place = marks - 0.5, np.arange(k) - (k - 1) / 2
        spread = float((centred**2).sum())
        if spread == 0:
            continue  # all tied
        trend += float((centred @ place).sum())
        variance += spread * float(place @ place) / (k - 1)
        chi2 += (k - 1) * float((centred.sum(axis=0) ** 2).sum()) / spread
        freedom += k - 1
    if not freedom:
        return None, None
    return float(2 * ndtr(-abs(trend) / variance**0.5)), float(chdtrc(freedom, chi2))
