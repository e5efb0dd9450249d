"""What came of a task: an outcome for each question, figures with intervals, and what could not be had.

The report's block of a task, as `block` makes it:

    kind, metric                    choice, generate or perplexity; the score that models are compared by
    n                               questions (documents), before any is left out
    rounds[i].shots                 how many solved examples stood before each question
    rounds[i].n                     questions that were answered and measured
    rounds[i].scores.<name>         {mean, low, high} over questions
    rounds[i].n_without_answer      generate: answers in which nothing was found; they count as wrong
    rounds[i].contradictions        generate, several votes: how often samples disagree, as align.stats.texts tells
    rounds[i].chance                choice: what guessing would get
    rounds[i].{tokens, words, bytes, window, stride}      perplexity: what was read, and how

Scores: `raw`, `per_token` and `per_byte` of choices (right by the likelihood as it is, over tokens, over bytes);
`exact`, `f1`, `rouge_l` and, where several samples vote, `exact_single` (one sample's share of right answers);
`per_token`, `per_word` and `per_byte` perplexity and `bits_per_byte`. Bounds are null where one document is all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from align.evals.problems import Problem
from align.stats.bootstrap import Interval, bootstrap_mean, unvaried, wilson
from align.stats.significance import mcnemar, paired_permutation


class Outcome(NamedTuple):
    """One question to one model."""

    place: str  # where it stands: file:line
    scores: dict[str, float]  # empty where there is none
    reason: str = ""  # then, why
    said: str = ""  # the answer, or the choice
    found: str | None = None  # of a generated answer: what the template extracts from it
    probabilities: tuple[float, ...] = ()  # over the choices, for calibration
    right: int | None = None  # index of the right choice
    samples: tuple[str | None, ...] = ()  # where several vote: each sample's answer, in one spelling


class Round(NamedTuple):
    """All questions with one number of examples."""

    shots: int
    outcomes: list[Outcome]
    block: dict[str, Any]  # its part of the report


class Result(NamedTuple):
    """A task's outcome for one model."""

    kind: str
    metric: str
    rounds: list[Round]

    @property
    def block(self) -> dict[str, Any]:
        """For report.json."""
        n = len(self.rounds[0].outcomes)
        return {"kind": self.kind, "metric": self.metric, "n": n, "rounds": [one.block for one in self.rounds]}

    def problems(self, where: str) -> list[Problem]:
        """What could not be asked or measured, each reason with its count; `where` as in tasks.gsm8k.base."""
        counts: dict[str, int] = {}
        for one in self.rounds:
            for outcome in one.outcomes:
                if outcome.reason:
                    counts[outcome.reason] = counts.get(outcome.reason, 0) + 1
        return [Problem(where, what, n) for what, n in counts.items()]


def scored(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that were measured."""
    return [outcome for outcome in outcomes if outcome.scores]


def summary(outcomes: Sequence[Outcome], names: Sequence[str]) -> dict[str, Any]:
    """Each score's mean with its interval, and over how many questions."""
    measured = scored(outcomes)
    scores = {name: interval([outcome.scores[name] for outcome in measured])._asdict() for name in names if measured}
    return {"n": len(measured), "scores": scores}


def interval(values: Sequence[float]) -> Interval:
    """Wilson's for shares of right answers, which holds for few questions too; else by bootstrap."""
    if set(values) <= {0.0, 1.0}:
        return wilson(int(sum(values)), len(values))
    return bootstrap_mean(values) if np.ptp(values) > 0 else unvaried(values[0], len(values))


def compare(a: Result, b: Result) -> list[dict[str, Any]]:
    """A less B by the task's metric, a dict for each number of examples: {shots, n, mean, low, high, p}.

    Paired over the questions that both were measured on: McNemar's test of right and wrong, else by permutation. Of
    perplexities the bits per byte of each document are compared; there less is better. With A tuned from B this is the
    alignment tax.
    """
    rows = []
    for one, other in zip(a.rounds, b.rounds, strict=True):
        pairs = [
            (x.scores[a.metric], y.scores[a.metric])
            for x, y in zip(one.outcomes, other.outcomes, strict=True)
            if x.scores and y.scores
        ]
        row: dict[str, Any] = {"shots": one.shots, "n": len(pairs)}
        if pairs:
            left, right = zip(*pairs, strict=True)
            decided = {*left, *right} <= {0.0, 1.0}
            found = mcnemar(left, right) if decided else paired_permutation(left, right)
            row |= found.difference._asdict() | {"p": found.p}
        rows.append(row)
    return rows
