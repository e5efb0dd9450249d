"""Bradley-Terry leaderboard of models from rankings: scores such that P(i beats j) = sigmoid(s_i - s_j).

A ranking of K answers counts as C(K, 2) comparisons (Bradley & Terry 1952; as Chatbot Arena's leaderboard of pairs,
Chiang et al. 2024, 2403.04132). **A tie is half a win for each.** Davidson (1970) and Rao & Kupper (1967) give ties a
parameter of their own, which must then hold for all models and people. Half wins need no parameter and keep the order
(in Davidson's model, too, a score depends on wins plus half the ties). They agree with `bootstrap.win_rate`: the fit
matches each model's wins plus half its ties.

**Which models are ranked.** Scores exist only within a group in which each model has beaten or tied each other one,
directly or through others (Ford 1957; Hunter 2004, assumption 1). The largest such group of models with enough votes is
ranked; all other models are listed with the reason.

**Intervals** generalise to other prompts and annotators of these kinds. Votes on one prompt are dependent, and so are
votes of one person; the two clusterings cross, so neither is nested in the other. Variances add up as in Cameron,
Gelbach & Miller (2011, "Robust Inference with Multiway Clustering"):

    V = V(prompts resampled) + max(0, V(people resampled) - V(single rankings resampled))

each by its own cluster bootstrap, with Student's t and Satterthwaite's (1946) degrees of freedom for prompts and people
together. Resampling both at once and multiplying weights (Owen's pigeonhole bootstrap) counts the noise of single votes
three times: in simulation its 95% interval covered 98% to 100%. This one covered 94% to 98% with ten people or more,
and 91% to 93% with three to five whose tastes differ, who are few to generalise from. With a single person the
intervals hold for that person only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from align.stats.agreement import Lists, by_length
from align.stats.bootstrap import Interval, by_cluster, resampled_sums

PRIOR_SD = (
    3.0  # prior of a score, in nats: keeps scores finite in resamples where a model wins all; 30 votes outweigh it
)
MIN_VOTES = 30
ITERATIONS = 100


class Votes(NamedTuple):
    """Comparisons of two models' answers; all arrays (n,)."""

    prompt: NDArray[np.int64]
    person: NDArray[np.int64]
    first: NDArray[np.int64]  # models, as integers
    second: NDArray[np.int64]
    won: NDArray[np.float64]  # by the first: 1, 0, or 0.5 for a tie


class Standing(NamedTuple):
    """A model that is ranked."""

    model: int
    score: Interval  # nats above the mean of ranked models: e^score are the odds against an average one
    place: int  # 1 is first
    place_low: int  # 1 + number of models that are significantly better
    place_high: int  # n - number of models that are significantly worse
    n_votes: int


class Unranked(NamedTuple):
    """A model without a place, and the reason."""

    model: int
    n_votes: int
    reason: str


class Leaderboard(NamedTuple):
    """Ranked models, best first, and unranked ones."""

    standings: list[Standing]
    unranked: list[Unranked]
    n_prompts: int
    n_people: int


def votes_of(prompts: Sequence[int], people: Sequence[int], models: Lists, ranks: Lists) -> Votes:
    """All pairwise comparisons of each ranking, without pairs of one model's answers.

    Args:
        prompts, people: one for each ranking.
        models: of each ranking's answers, as integers.
        ranks: of the same answers; 1 is best, equal ranks are ties.
    """
    prompt, person = np.asarray(prompts, dtype=np.int64), np.asarray(people, dtype=np.int64)
    found = [_votes(*(np.zeros(0) for _ in Votes._fields))]
    for rows, (model, rank) in by_length(models, ranks):
        for i, j in combinations(range(rank.shape[1]), 2):
            won = (1 + np.sign(rank[:, j] - rank[:, i])) / 2
            votes = _votes(prompt[rows], person[rows], model[:, i], model[:, j], won)
            found.append(_kept(votes, votes.first != votes.second))
    return _votes(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _votes(*columns: NDArray[Any]) -> Votes:
    *whole, won = columns
    prompt, person, first, second = (column.astype(np.int64, copy=False) for column in whole)
    return Votes(prompt, person, first, second, won.astype(np.float64, copy=False))


def _kept(votes: Votes, rows: NDArray[np.bool_]) -> Votes:
    return votes if rows.all() else _votes(*(column[rows] for column in votes))


def leaderboard(
    votes: Votes, n_models: int, min_votes: int = MIN_VOTES, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Leaderboard:
    """Rank models 0 to n_models - 1. Models with fewer than `min_votes` comparisons are not ranked."""
    n_votes = np.bincount(np.concatenate([votes.first, votes.second]), minlength=n_models)
    few = n_votes < min_votes
    votes = _kept(votes, ~few[votes.first] & ~few[votes.second])
    beaten = _reach(_wins(votes, n_models))
    ranked = _largest_group(beaten, few)
    if len(ranked) < 2:
        ranked = ranked[:0]
    own = _kept(votes, np.isin(votes.first, ranked) & np.isin(votes.second, ranked))
    standings = _standings(own, ranked, n_resamples, level, seed) if len(ranked) else []
    standings = [standing._replace(n_votes=int(n_votes[standing.model])) for standing in standings]
    unranked = [
        Unranked(model, int(n_votes[model]), _reason(model, ranked, beaten, bool(few[model]), min_votes))
        for model in range(n_models)
        if model not in ranked
    ]
    return Leaderboard(standings, unranked, len(np.unique(own.prompt)), len(np.unique(own.person)))


def fit(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maximum a posteriori scores under N(0, PRIOR_SD^2), by Newton's method, centred to mean 0.

    Args:
        wins: (m, n_models, n_models), how often the row's model beat the column's, ties half; m sets of votes.

    Returns:
        (m, n_models).
    """
    n_pairs = wins + wins.swapaxes(1, 2)
    scores = np.zeros(wins.shape[:2])
    diagonal = np.arange(wins.shape[1])
    for _ in range(ITERATIONS):
        chance = _sigmoid(scores[:, :, None] - scores[:, None, :])  # (m, i, j): i beats j
        slope = (wins - n_pairs * chance).sum(axis=2) - scores / PRIOR_SD**2
        weight = n_pairs * chance * (1 - chance)
        curvature = -weight
        curvature[:, diagonal, diagonal] += weight.sum(axis=2) + 1 / PRIOR_SD**2
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        step /= np.maximum(1, np.abs(step).max(axis=1, keepdims=True))  # at most 1 per step, against overshooting
        scores += step
        if np.abs(step).max() < 1e-9:
            break
    return scores - scores.mean(axis=1, keepdims=True)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import expit

    return np.asarray(expit(x), dtype=np.float64)


def _standings(votes: Votes, ranked: NDArray[np.int64], n_resamples: int, level: float, seed: int) -> list[Standing]:
    """Standings from votes between ranked models."""
    from scipy.special import stdtrit

    n = len(ranked)
    votes = votes._replace(first=np.searchsorted(ranked, votes.first), second=np.searchsorted(ranked, votes.second))
    scores = fit(_wins(votes, n)[None])[0]
    variances, freedom = _variances(votes, n, n_resamples, seed)
    half = stdtrit(freedom, (1 + level) / 2) * np.sqrt(variances)  # (n + 1, n): of differences; the last row: of scores
    is_better = scores[:, None] - scores[None, :] > half[:n]  # (i, j): i is better than j
    order = np.argsort(-scores, kind="stable")
    return [
        Standing(
            int(ranked[i]),
            Interval(float(scores[i]), float(scores[i] - half[n, i]), float(scores[i] + half[n, i])),
            place + 1,
            1 + int(is_better[:, i].sum()),
            n - int(is_better[i].sum()),
            0,
        )
        for place, i in enumerate(order)
    ]


def _variances(votes: Votes, n: int, n_resamples: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances of score differences, (n, n), with those of scores as a last row; and degrees of freedom."""
    both = votes.prompt * (int(votes.person.max()) + 1) + votes.person
    prompts, n_prompts = _contrasts(votes, votes.prompt, n, n_resamples, seed)
    people, n_people = _contrasts(votes, votes.person, n, n_resamples, seed + 1)
    if n_people < 2:
        return prompts, np.full_like(prompts, max(1, n_prompts - 1))
    single, _ = _contrasts(votes, both, n, n_resamples, seed + 2)
    extra = np.maximum(0, people * n_people / (n_people - 1) - single)
    with np.errstate(invalid="ignore"):
        freedom = (prompts + extra) ** 2 / (prompts**2 / max(1, n_prompts - 1) + extra**2 / (n_people - 1))
    return prompts + extra, np.maximum(np.nan_to_num(freedom, nan=1.0), n_people - 1)


def _contrasts(
    votes: Votes, clusters: NDArray[np.int64], n: int, n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], int]:
    """(n + 1, n) variances as in `_variances` from resampled clusters, and the number of clusters."""
    parts = by_cluster(clusters, votes.first * n + votes.second, votes.won, n * n)
    parts = parts + by_cluster(clusters, votes.second * n + votes.first, 1 - votes.won, n * n)
    drawn = fit(resampled_sums(parts, n_resamples, seed).reshape(-1, n, n))
    covariance = np.atleast_2d(np.cov(drawn, rowvar=False))
    own = np.diag(covariance)
    return np.vstack([own[:, None] + own[None, :] - 2 * covariance, own]), parts.shape[1]


# -- which models can be ranked ---------------------------------------------------------------------------------------


def _wins(votes: Votes, n_models: int) -> NDArray[np.float64]:
    """(n_models, n_models): how often the row's model beat the column's, ties half."""
    forth = np.bincount(votes.first * n_models + votes.second, votes.won, n_models**2)
    back = np.bincount(votes.second * n_models + votes.first, 1 - votes.won, n_models**2)
    return np.asarray(forth + back, dtype=np.float64).reshape(n_models, n_models)


def _reach(wins: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(i, j): i has beaten or tied j, directly or through others; true for i = j."""
    from scipy.sparse.csgraph import shortest_path

    return np.isfinite(shortest_path(wins > 0, unweighted=True)) if len(wins) else np.zeros((0, 0), dtype=bool)


def _largest_group(reach: NDArray[np.bool_], few: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The largest group of models that all reach each other; of equal groups the one with the lowest index."""
    mutual = reach & reach.T & ~few[:, None] & ~few[None, :]
    if not mutual.any():
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(mutual[mutual.sum(axis=1).argmax()])


def _reason(model: int, ranked: NDArray[np.int64], reach: NDArray[np.bool_], few: bool, min_votes: int) -> str:
    if few:
        return f"fewer than {min_votes} comparisons with other models"
    if not len(ranked):
        return "no two models have each beaten or tied the other"
    above, below = bool(reach[model, ranked].any()), bool(reach[ranked, model].any())
    if above:
        return "above all that are ranked: it never lost to them, so how far above cannot be told"
    if below:
        return "below all that are ranked: it never beat or tied one, so how far below cannot be told"
    return "never compared with those that are ranked, nor through others"
