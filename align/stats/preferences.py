"""Pairwise preferences: win rates with intervals and p-values, rankings of models, agreement and bias of judges.

An outcome is 1 if the first model's answer won, 0 if the second's did, 0.5 for a tie, None without a verdict. The i-th
outcome of every list belongs to the i-th prompt. Shares are of the prompts with an outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from align.stats.agreement import cohen_kappa
from align.stats.bootstrap import Interval, accuracy, ratios
from align.stats.bradley_terry import MIN_VOTES, Votes, leaderboard
from align.stats.length_control import Controlled, length_controlled
from align.stats.position import position_bias
from align.stats.significance import mcnemar

Outcomes = Sequence[float | None]


class Preference(NamedTuple):
    """The first of two models against the second."""

    win: Interval  # shares of prompts
    tie: Interval
    loss: Interval
    rate: Interval  # of wins, ties half: 0.5 is no difference
    p: float  # two-sided p-value of wins against losses
    controlled: Controlled  # length-controlled rate
    n: int
    n_failed: int

    def block(self) -> dict[str, Any]:
        """For report.json."""
        found: dict[str, Any] = {name: getattr(self, name)._asdict() for name in ("win", "tie", "loss", "rate")}
        rate, reason = self.controlled
        found["controlled"] = rate._asdict() if rate else None
        found |= {"controlled_missing": reason} if reason else {}
        return found | {"p": self.p, "n": self.n, "n_failed": self.n_failed}


def preference(
    outcomes: Outcomes, first: Sequence[int], second: Sequence[int], n_resamples: int = 1000, seed: int = 0
) -> Preference | None:
    """Two models by one judge. `first` and `second`: lengths of their answers. None without any outcome.

    The p-value is that of the paired permutation test. For wins, losses and ties it equals McNemar's exact binomial
    test.
    """
    known = [i for i, outcome in enumerate(outcomes) if outcome is not None]
    if not known:
        return None
    won = np.array([outcomes[i] for i in known], dtype=np.float64)
    one, other = ([side[i] for i in known] for side in (first, second))
    win, tie, loss = (accuracy(won == value, n_resamples, seed=seed) for value in (1, 0.5, 0))
    return Preference(
        win,
        tie,
        loss,
        accuracy(won, n_resamples, seed=seed),
        mcnemar(won == 1, won == 0).p,
        length_controlled(won, one, other, n_resamples, seed=seed),
        len(known),
        len(outcomes) - len(known),
    )


def ranking(pairs: Mapping[tuple[str, str], Outcomes], min_votes: int = MIN_VOTES, seed: int = 0) -> dict[str, Any]:
    """Bradley-Terry ranking of all models from the outcomes of (first, second) pairs, for report.json."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    found = leaderboard(_votes(pairs, names), len(names), min_votes, seed=seed)
    standings = [
        {"model": names[one.model], "score": one.score._asdict(), "place": one.place}
        | {"place_low": one.place_low, "place_high": one.place_high, "n_votes": one.n_votes}
        for one in found.standings
    ]
    unranked = [{"model": names[one.model], "reason": one.reason, "n_votes": one.n_votes} for one in found.unranked]
    return {"standings": standings, "unranked": unranked, "n_prompts": found.n_prompts}


def _votes(pairs: Mapping[tuple[str, str], Outcomes], names: Sequence[str]) -> Votes:
    number = {name: i for i, name in enumerate(names)}
    rows = [
        (prompt, number[first], number[second], outcome)
        for (first, second), outcomes in pairs.items()
        for prompt, outcome in enumerate(outcomes)
        if outcome is not None
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    prompt, one, other = table[:, :3].T.astype(np.int64)
    return Votes(prompt, np.zeros_like(prompt), one, other, table[:, 3])


# -- judges -----------------------------------------------------------------------------------------------------------


class JudgesAgree(NamedTuple):
    """Two judges on the same answers."""

    same: Interval | None  # share of prompts with equal outcomes: win, tie or loss
    kappa: float | None  # Cohen's: 1 is perfect agreement, 0 is chance
    n: int

    def block(self) -> dict[str, Any]:
        """For report.json."""
        return {"same": self.same._asdict() if self.same else None, "kappa": self.kappa, "n": self.n}


def judges_agree(one: Outcomes, other: Outcomes, n_prompts: int | None = None, seed: int = 0) -> JudgesAgree:
    """Agreement of two judges on two models' answers.

    Outcomes of several pairs may be concatenated, `n_prompts` each; outcomes of one prompt form a cluster.
    """
    places = [i for i, pair in enumerate(zip(one, other, strict=True)) if None not in pair]
    if not places:
        return JudgesAgree(None, None, 0)
    outcomes = np.array([[one[i], other[i]] for i in places], dtype=np.float64)
    counts: NDArray[np.float64] = np.zeros((3, 3))
    np.add.at(counts, tuple((2 * outcomes).astype(np.int64).T), 1)
    prompts = np.array(places) % (n_prompts or len(one))
    alike, all_one = outcomes[:, 0] == outcomes[:, 1], np.ones(len(places))
    (same,) = ratios(prompts, np.zeros_like(prompts), alike, all_one, 1, seed=seed)
    # The order of the two models is arbitrary: each prompt counts in both orders.
    return JudgesAgree(same, cohen_kappa(counts + counts[::-1, ::-1]), len(places))


def order_bias(orders: Sequence[tuple[float, float] | None], seed: int = 0) -> dict[str, Any] | None:
    """Order bias of a judge, for report.json. None if no prompt was judged in both orders.

    Args:
        orders: the outcome with the first model's answer shown first, and with it shown second.
    """
    known = [pair for pair in orders if pair is not None]
    if not known:
        return None
    tasks = [task for task in range(len(known)) for _ in range(2)]
    places = [[0, 1], [1, 0]] * len(known)
    ranks = [[1 + (outcome < 0.5), 1 + (outcome > 0.5)] for pair in known for outcome in pair]
    earlier = position_bias(tasks, places, ranks, seed).earlier
    disagree = accuracy([with_first != with_second for with_first, with_second in known], seed=seed)
    found = {"n": len(known), "orders_disagree": disagree._asdict()}
    return found | {"first_shown_wins": earlier._asdict() if earlier else None}
