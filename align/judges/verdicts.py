"""Verdicts of judges. Some judges score single answers, others compare two; both give one verdict per prompt and pair.

Outcome: 1 if the first model's answer is better, 0 if the second's, 0.5 for a tie, None with a `reason` if there is no
verdict. A judge that cannot continue raises `JudgeError`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from align.evals.problems import Problem

if TYPE_CHECKING:
    from align.text.records import Message

Prompts = Sequence[Sequence["Message"]]

ROUNDING = 1e-5  # relative, or 1e-6 near 0: the batch shape changes a reward model's score by that much
N_TOLD = 5  # reasons per judge that the report lists


class AnswerScore(NamedTuple):
    """The score of one answer."""

    score: float | None  # None: missing, see `reason`
    flags: dict[str, bool] = {}  # noqa: RUF012 - further findings, by name
    reason: str = ""


class Verdict(NamedTuple):
    """Which of two answers to a prompt is better."""

    outcome: float | None  # 1: the first model's; 0: the second's; 0.5: a tie; None: missing, see `reason`
    reason: str = ""
    orders: tuple[float, float] | None = None  # the outcome with the first model's answer shown first, then second
    again: bool = False  # missing for a temporary reason: not cached


class ModelAnswers(NamedTuple):
    """A model's answers, one per prompt."""

    texts: Sequence[str]
    names: Sequence[str] = ()  # of the model: in the recipe, and its path


class Scores(Protocol):
    """A judge that scores single answers."""

    fingerprint: str  # everything that its scores depend on, except prompts and answers

    def score(self, prompts: Prompts, texts: Sequence[str]) -> list[AnswerScore]:
        """One score per answer. Raises `JudgeError` if the judge cannot continue."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A judge that compares two answers."""

    fingerprint: str

    def compare(self, prompts: Prompts, first: ModelAnswers, second: ModelAnswers) -> list[Verdict]:
        """One verdict per prompt. Raises `JudgeError` if the judge cannot continue."""
        ...


def verdicts(first: Sequence[AnswerScore], second: Sequence[AnswerScore]) -> list[Verdict]:
    """Compare scores prompt by prompt. Scores that differ by rounding alone are a tie."""
    return [_verdict(a, b) for a, b in zip(first, second, strict=True)]


def _verdict(first: AnswerScore, second: AnswerScore) -> Verdict:
    if first.score is None or second.score is None:
        return Verdict(None, first.reason or second.reason)
    if math.isclose(first.score, second.score, rel_tol=ROUNDING, abs_tol=ROUNDING / 10):
        return Verdict(0.5)
    return Verdict(float(first.score > second.score))


def problems(where: str, judged: Iterable[AnswerScore | Verdict]) -> list[Problem]:
    """Missing results as problems: the most common reasons with counts, the rest in one line."""
    found = Counter(one.reason for one in judged if one.reason)
    listed = found.most_common(N_TOLD)
    rest = found.total() - sum(n for _, n in listed)
    named = [Problem(where, reason, n) for reason, n in listed]
    return [*named, Problem(where, f"{len(found) - N_TOLD} other reasons", rest)] if rest else named
