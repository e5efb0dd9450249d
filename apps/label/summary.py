"""Statistics of a project's rankings for the lead's page: people, answers and models (progress is in `progress.py`).

Pure: plain rows in, one frozen `Summary` out. `rows.py` reads the rows, `figures.py` draws the figures.

The summary covers rankings of ranking tasks, including those beyond the overlap. Agreement uses only independent
rankings: no closed tasks and no final rankings of reviewers. Gold tasks count only for gold, practice tasks not at all:
both are the same few tasks for everybody, and known to be easy or hard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from align.stats.agreement import Agreement, Shared, agreement, agreement_by_person, compared, couples
from align.stats.bootstrap import Interval, ratios, wilson
from align.stats.bradley_terry import MIN_VOTES
from align.stats.position import PositionBias, earlier_won, position_bias
from apps.store.feedback import agreement as share_as_expected
from apps.votes.labels import Answers, Label, column, independent
from apps.votes.models import NoPlace, Place, standings

FAST = 1 / 3  # of everybody's median seconds: a faster ranking is suspicious
MOST_DISPUTES = 200
MOST_COUPLES = 200
MOST_SECONDS = 2000
DAY_S = 86400.0


class PersonFigures(NamedTuple):
    """One person's figures. Agreement is with all others together; None means unknown."""

    name: str
    n_ranked: int
    n_skipped: int
    n_flagged: int
    median_seconds: float | None
    fast: float | None  # share of their rankings that took less than a third of everybody's median
    ties: float | None  # share of pairs
    earlier: Interval | None  # share of decided pairs won by the answer shown first
    agreement: Agreement
    n_gold: int
    gold: Interval | None  # share of gold tasks passed


class CoupleFigures(NamedTuple):
    """Two people who ranked the same tasks."""

    first: str
    second: str
    n_tasks: int
    pairwise: float | None
    tau: float | None
    kappa: float | None


class FlagFigures(NamedTuple):
    """How often a flag is set, and whether people agree on it."""

    name: str
    share: Interval | None
    alpha: Interval | None  # Krippendorff's, nominal


class GoldTask(NamedTuple):
    """One gold task. If nearly everybody fails it, its expected ranks may be wrong."""

    task: int
    n: int
    n_passed: int


class Dispute(NamedTuple):
    """A task on which people disagree."""

    task: int
    n_people: int
    agreement: float  # share of pairs on which two people agree, of all that both decide
    tau: float | None


class Summary(NamedTuple):
    """All figures. Intervals are at 95%; None means that there are no data yet."""

    n_rankings: int
    n_people: int
    n_shared: int  # tasks ranked by two or more people
    median_seconds: float | None
    seconds: tuple[float, ...]  # of rankings, sorted; quantiles if there are very many
    by_day: tuple[tuple[int, int], ...]  # (days since 1970, rankings), in order
    ties: Interval | None  # share of pairs
    all_bad: Interval | None  # share of rankings
    skipped: Interval | None  # share of annotations
    flagged: Interval | None
    position: PositionBias
    agreement: Agreement
    alpha_ranks: Interval | None  # Krippendorff's, ordinal
    alpha_ratings: Interval | None
    flags: tuple[FlagFigures, ...]
    people: tuple[PersonFigures, ...]
    couples: tuple[CoupleFigures, ...]
    n_gold: int
    gold: Interval | None  # share of gold tasks passed
    gold_tasks: tuple[GoldTask, ...]  # hardest first
    disputes: tuple[Dispute, ...]  # largest disagreement first
    places: tuple[Place, ...]
    no_places: tuple[NoPlace, ...]


def summarise(
    labels: Iterable[Label],
    gold_pass: float = 0.7,
    decided: Collection[int] = (),
    min_votes: int = MIN_VOTES,
    seed: int = 0,
) -> Summary:
    """The summary of a project.

    Args:
        decided: tasks decided by a reviewer, which are no longer disputes.
        gold_pass: share of a gold task's pairs that must be in the expected order to pass.
        min_votes: comparisons that a model needs to be ranked.
    """
    known = [label for label in labels if label.kind != "practice"]
    golds = [label for label in known if label.kind == "gold" and label.status == "submitted"]
    rank_labels = [label for label in known if label.kind == "rank"]
    done = [label for label in rank_labels if label.status == "submitted"]
    ranked = [label for label in done if label.ranks is not None]
    names = sorted({label.person for label in known})
    answers, shared = Answers(independent(done)), _shared(independent(ranked), names)
    by_prompt = shared._replace(task=_prompts(shared, ranked))
    seconds = [label.seconds for label in done if label.seconds > 0]
    usual = median(seconds) if seconds else None
    agreements = agreement_by_person(by_prompt, len(names), seed)
    places, no_places = standings(done, min_votes, seed)
    return Summary(
        n_rankings=len(done),
        n_people=len({label.person for label in done}),
        n_shared=len(np.unique(shared.task)),
        median_seconds=usual,
        seconds=_spread(seconds),
        by_day=tuple(sorted(Counter(int(label.at // DAY_S) for label in done).items())),
        ties=_ties(ranked, seed),
        all_bad=_share([label.all_bad for label in done], done, seed),
        skipped=_share([label.status == "skipped" for label in rank_labels], rank_labels, seed),
        flagged=_share([label.status == "flagged" for label in rank_labels], rank_labels, seed),
        position=_position(ranked, seed),
        agreement=agreement(by_prompt, seed),
        alpha_ranks=answers.alpha(answers.ranks, "ordinal", seed),
        alpha_ratings=answers.alpha(answers.ratings, "ordinal", seed),
        flags=_flags(answers, seed),
        people=_people(names, rank_labels, ranked, golds, agreements, usual, gold_pass),
        couples=_couples(shared, names),
        n_gold=len(golds),
        gold=_passed(golds, gold_pass),
        gold_tasks=_gold_tasks(golds, gold_pass),
        disputes=_disputes(shared, decided),
        places=places,
        no_places=no_places,
    )


# -- how people work --------------------------------------------------------------------------------------------------


def _share(yes: Sequence[bool], labels: Sequence[Label], seed: int) -> Interval | None:
    """The share of labels with the property, with an interval over prompts."""
    if not labels:
        return None
    n = len(labels)
    return ratios([label.prompt for label in labels], [0] * n, list(map(float, yes)), [1] * n, 1, seed=seed)[0]


def _spread(values: Sequence[float]) -> tuple[float, ...]:
    if len(values) <= MOST_SECONDS:
        return tuple(sorted(values))
    return tuple(np.quantile(values, np.linspace(0, 1, MOST_SECONDS)).tolist())


def _ties(ranked: Sequence[Label], seed: int) -> Interval | None:
    if not ranked:
        return None
    pairs = [len(label.models) * (len(label.models) - 1) // 2 for label in ranked]
    tied = [_n_tied(label) for label in ranked]
    return ratios([label.prompt for label in ranked], [0] * len(ranked), tied, pairs, 1, seed=seed)[0]


def _n_tied(label: Label) -> int:
    return sum(n * (n - 1) // 2 for n in Counter(label.ranks).values())


def _position(ranked: Sequence[Label], seed: int) -> PositionBias:
    prompts, places = [label.prompt for label in ranked], [label.places for label in ranked]
    return position_bias(prompts, places, [label.ranks or () for label in ranked], seed)


def _people(
    names: Sequence[str],
    rank_labels: Sequence[Label],
    ranked: Sequence[Label],
    golds: Sequence[Label],
    agreements: Sequence[Agreement],
    usual: float | None,
    gold_pass: float,
) -> tuple[PersonFigures, ...]:
    mine, my_ranked, my_golds = (_by_person(labels, names) for labels in (rank_labels, ranked, golds))
    earlier = _earlier_by_person(ranked, names)
    rows = zip(names, mine, my_ranked, my_golds, earlier, agreements, strict=True)
    return tuple(_person(name, a, b, c, d, e, usual, gold_pass) for name, a, b, c, d, e in rows)


def _earlier_by_person(ranked: Sequence[Label], names: Sequence[str]) -> list[Interval | None]:
    if not ranked:
        return [None] * len(names)
    number = {name: n for n, name in enumerate(names)}
    won, decided = earlier_won([label.places for label in ranked], [label.ranks or () for label in ranked])
    people = [number[label.person] for label in ranked]
    return ratios([label.prompt for label in ranked], people, won, decided, len(names))


def _by_person(labels: Sequence[Label], names: Sequence[str]) -> list[list[Label]]:
    found: dict[str, list[Label]] = {name: [] for name in names}
    for label in labels:
        found[label.person].append(label)
    return list(found.values())


def _person(
    name: str,
    rank_labels: list[Label],
    ranked: list[Label],
    golds: list[Label],
    earlier: Interval | None,
    agreed: Agreement,
    usual: float | None,
    gold_pass: float,
) -> PersonFigures:
    statuses = Counter(label.status for label in rank_labels)
    seconds = [label.seconds for label in rank_labels if label.status == "submitted" and label.seconds > 0]
    n_pairs = sum(len(label.models) * (len(label.models) - 1) // 2 for label in ranked)
    return PersonFigures(
        name=name,
        n_ranked=statuses["submitted"],
        n_skipped=statuses["skipped"],
        n_flagged=statuses["flagged"],
        median_seconds=median(seconds) if seconds else None,
        fast=sum(s < FAST * usual for s in seconds) / len(seconds) if seconds and usual else None,
        ties=sum(map(_n_tied, ranked)) / n_pairs if n_pairs else None,
        earlier=earlier,
        agreement=agreed,
        n_gold=len(golds),
        gold=_passed(golds, gold_pass),
    )


# -- whether they agree -----------------------------------------------------------------------------------------------


def _shared(ranked: Sequence[Label], names: Sequence[str]) -> Shared:
    number = {name: n for n, name in enumerate(names)}
    people = (number[label.person] for label in ranked)
    return compared((label.task for label in ranked), people, [label.ranks or () for label in ranked])


def _prompts(shared: Shared, ranked: Sequence[Label]) -> NDArray[np.int64]:
    """The prompt of each comparison: intervals resample prompts, since a prompt can have several tasks."""
    prompt = {label.task: label.prompt for label in ranked}
    return column(prompt[task] for task in shared.task.tolist())


def _flags(answers: Answers, seed: int) -> tuple[FlagFigures, ...]:
    found = []
    for name, is_set in answers.flags().items():
        (share,) = ratios(answers.prompt, 0 * answers.prompt, is_set, np.ones_like(is_set), 1, seed=seed)
        found.append(FlagFigures(name, share, answers.alpha(is_set, "nominal", seed)))
    return tuple(found)


def _couples(shared: Shared, names: Sequence[str]) -> tuple[CoupleFigures, ...]:
    return tuple(
        CoupleFigures(names[couple.first], names[couple.second], *couple[2:])
        for couple in couples(shared)[:MOST_COUPLES]
    )


def _disputes(shared: Shared, decided: Collection[int]) -> tuple[Dispute, ...]:
    """Tasks on which two people decide a pair differently, largest disagreement first."""
    tasks, place = np.unique(shared.task, return_inverse=True)
    agreed, n_pairs = (np.bincount(place, n, len(tasks)) for n in (shared.n_agreed, shared.n_decided))
    known = np.isfinite(shared.tau)
    tau, n_tau = np.bincount(place, np.where(known, shared.tau, 0), len(tasks)), np.bincount(place, known, len(tasks))
    n_couples = np.bincount(place, minlength=len(tasks))
    differ = np.flatnonzero((agreed < n_pairs) & ~np.isin(tasks, list(decided)))
    order = differ[np.lexsort((-n_couples[differ], agreed[differ] / n_pairs[differ]))][:MOST_DISPUTES]
    return tuple(
        Dispute(
            int(tasks[i]),
            round((1 + (1 + 8 * int(n_couples[i])) ** 0.5) / 2),  # n people form n (n - 1) / 2 couples
            float(agreed[i] / n_pairs[i]),
            float(tau[i] / n_tau[i]) if n_tau[i] else None,
        )
        for i in order
    )


# -- whether they are right -------------------------------------------------------------------------------------------


def _passes(label: Label, gold_pass: float) -> bool:
    assert label.expected is not None  # imports refuse gold tasks without expected ranks
    ranks = None if label.ranks is None else list(label.ranks)
    return share_as_expected(ranks, list(label.expected)) >= gold_pass


def _passed(golds: Sequence[Label], gold_pass: float) -> Interval | None:
    return wilson(sum(_passes(label, gold_pass) for label in golds), len(golds)) if golds else None


def _gold_tasks(golds: Sequence[Label], gold_pass: float) -> tuple[GoldTask, ...]:
    n = Counter(label.task for label in golds)
    n_passed = Counter(label.task for label in golds if _passes(label, gold_pass))
    tasks = (GoldTask(task, n[task], n_passed[task]) for task in n)
    return tuple(sorted(tasks, key=lambda gold: (gold.n_passed / gold.n, -gold.n, gold.task)))
