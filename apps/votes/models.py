"""The leaderboard of models from people's rankings. Pure: plain rows in, places out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from align.stats.bootstrap import Interval
from align.stats.bradley_terry import MIN_VOTES, leaderboard, votes_of
from apps.votes.labels import Label, decisive


class Place(NamedTuple):
    """A model on the leaderboard."""

    model: str
    score: Interval  # nats above the mean of all ranked
    place: int
    place_low: int
    place_high: int
    share: float  # share of comparisons won, ties as half
    n_votes: int


class NoPlace(NamedTuple):
    """A model that cannot be ranked, and why."""

    model: str
    n_votes: int
    reason: str


def standings(
    labels: Sequence[Label], min_votes: int = MIN_VOTES, seed: int = 0
) -> tuple[tuple[Place, ...], tuple[NoPlace, ...]]:
    """The models that can be ranked, best first, and those that cannot.

    An answer that several models gave counts for each of them, as a tie between them. Closed tasks do not count; of a
    task that a reviewer decided only the final ranking counts.
    """
    ranked = [label for label in decisive(labels) if label.ranks is not None]
    names = sorted({model for makers in _distinct(ranked) for own in makers for model in own})
    number = {name: n for n, name in enumerate(names)}
    people = {name: n for n, name in enumerate(sorted({label.person for label in ranked}))}
    models = {makers: [number[model] for own in makers for model in own] for makers in _distinct(ranked)}
    votes = votes_of(
        [label.prompt for label in ranked],
        [people[label.person] for label in ranked],
        [models[label.models] for label in ranked],
        [[rank for rank, own in zip(label.ranks or (), label.models, strict=True) for _ in own] for label in ranked],
    )
    found = leaderboard(votes, len(names), min_votes, seed=seed)
    won = np.bincount(votes.first, votes.won, len(names)) + np.bincount(votes.second, 1 - votes.won, len(names))
    times = np.bincount(np.concatenate([votes.first, votes.second]), minlength=len(names))
    share = won / np.maximum(1, times)
    places = tuple(
        Place(names[s.model], s.score, s.place, s.place_low, s.place_high, float(share[s.model]), s.n_votes)
        for s in found.standings
    )
    return places, tuple(NoPlace(names[one.model], one.n_votes, one.reason) for one in found.unranked)


def _distinct(ranked: Sequence[Label]) -> Iterable[tuple[tuple[str, ...], ...]]:
    return dict.fromkeys(label.models for label in ranked)
