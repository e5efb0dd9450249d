"""Results of a task: one outcome per question, scores with intervals, comparison of two models.

The report's block of a task, `Result.block`:

    kind, metric                    choice, generate or perplexity; the score by which models are compared
    n                               questions (documents), including skipped ones
    rounds[i].shots                 number of solved examples before each question
    rounds[i].n                     questions that were measured
    rounds[i].scores.<name>         {mean, low, high} over questions
    rounds[i].n_without_answer      generate: answers without an extracted answer; they count as wrong
    rounds[i].contradictions        generate, several votes: how often samples disagree; see align.stats.texts
    rounds[i].chance                choice: accuracy of guessing
    rounds[i].{tokens, words, bytes, window, stride}      perplexity: amount of text, and windows

Scores: `raw`, `per_token` and `per_byte` of choices (accuracy by total likelihood, per token, per byte);
`exact`, `f1`, `rouge_l` and, with several votes, `exact_single` (accuracy of a single sample);
`per_token`, `per_word` and `per_byte` perplexity and `bits_per_byte`. Bounds are null for a single document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from align.evals.problems import Problem
from align.stats.bootstrap import Interval, bootstrap_mean, unvaried, wilson
from align.stats.significance import mcnemar, paired_permutation


class Outcome(NamedTuple):
    """One model's result on one question."""

    place: str  # file:line
    scores: dict[str, float]  # empty if not measured
    reason: str = ""  # why not measured
    prediction: str = ""  # the answer, or the choice
    found: str | None = None  # the answer extracted from a generated text
    probabilities: tuple[float, ...] = ()  # over the choices, for calibration
    right: int | None = None  # index of the right choice
    samples: tuple[str | None, ...] = ()  # with several votes: each sample's normalised answer


class Round(NamedTuple):
    """Results with one number of examples."""

    shots: int
    outcomes: list[Outcome]
    block: dict[str, Any]  # for the report


class Result(NamedTuple):
    """One model's results on a task."""

    kind: str
    metric: str
    rounds: list[Round]

    @property
    def block(self) -> dict[str, Any]:
        """For report.json."""
        n = len(self.rounds[0].outcomes)
        return {"kind": self.kind, "metric": self.metric, "n": n, "rounds": [one.block for one in self.rounds]}

    def problems(self, where: str) -> list[Problem]:
        """Skipped or unmeasured questions as problems, each reason with its count. `where`: as in tasks.gsm8k.base."""
        counts: dict[str, int] = {}
        for one in self.rounds:
            for outcome in one.outcomes:
                if outcome.reason:
                    counts[outcome.reason] = counts.get(outcome.reason, 0) + 1
        return [Problem(where, what, n) for what, n in counts.items()]


def scored(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The measured outcomes."""
    return [outcome for outcome in outcomes if outcome.scores]


def summary(outcomes: Sequence[Outcome], names: Sequence[str]) -> dict[str, Any]:
    """Mean and interval of each score, and the number of questions."""
    measured = scored(outcomes)
    scores = {name: interval([outcome.scores[name] for outcome in measured])._asdict() for name in names if measured}
    return {"n": len(measured), "scores": scores}


def interval(values: Sequence[float]) -> Interval:
    """Wilson's interval for 0/1 scores, which is valid for few questions too; else bootstrap."""
    if set(values) <= {0.0, 1.0}:
        return wilson(int(sum(values)), len(values))
    return bootstrap_mean(values) if np.ptp(values) > 0 else unvaried(values[0], len(values))


def compare(a: Result, b: Result) -> list[dict[str, Any]]:
    """A minus B by the task's metric, a dict per number of examples: {shots, n, mean, low, high, p}.

    Paired over questions measured on both: McNemar's test for 0/1 scores, else the permutation test. Perplexity is
    compared by bits per byte of each document, where less is better. If A was tuned from B, this is the alignment tax.
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
