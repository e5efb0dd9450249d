"""What a judge says. Some judges give each answer a score, others say which of two answers is better; both come to a
verdict for each prompt and two models: 1 if the first model's answer is better, 0 if the second's, 0.5 for a tie.

A prompt that a judge could not decide has the outcome None and a `trouble` in words, and the others stand. A judge that
cannot go on at all raises `JudgeError`.
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

ROUNDING = 1e-5  # of a score, or 1e-6 near 0: a batch of another shape changes that much of a reward model's score
N_TOLD = 5  # different troubles of a judge


class Mark(NamedTuple):
    """What an answer is worth."""

    score: float | None  # None: it could not be had
    flags: dict[str, bool] = {}  # noqa: RUF012 - what else was found in the answer, by name
    trouble: str = ""


class Verdict(NamedTuple):
    """Which of two answers to a prompt is better."""

    outcome: float | None  # 1: the first model's; 0: the second's; 0.5: a tie; None: it could not be had
    trouble: str = ""
    orders: tuple[float, float] | None = None  # the outcome with the first model's answer shown first, then second
    again: bool = False  # without outcome for a reason that may pass: not to be kept


class Said(NamedTuple):
    """A model's answers, one to each prompt."""

    texts: Sequence[str]
    names: Sequence[str] = ()  # what the model is called: in the recipe, and its path


class Scores(Protocol):
    """A judge that reads one answer at a time."""

    fingerprint: str  # all that its marks depend on, besides prompts and answers

    def score(self, prompts: Prompts, texts: Sequence[str]) -> list[Mark]:
        """A mark for each answer. Raises `JudgeError` if there is no going on."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A judge that reads two answers at a time."""

    fingerprint: str

    def compare(self, prompts: Prompts, first: Said, second: Said) -> list[Verdict]:
        """A verdict for each prompt. Raises `JudgeError` if there is no going on."""
        ...


def verdicts(first: Sequence[Mark], second: Sequence[Mark]) -> list[Verdict]:
    """Whose answer has the higher score, prompt by prompt. Scores that differ by rounding alone are a tie."""
    return [_verdict(a, b) for a, b in zip(first, second, strict=True)]


def _verdict(first: Mark, second: Mark) -> Verdict:
    if first.score is None or second.score is None:
        return Verdict(None, first.trouble or second.trouble)
    if math.isclose(first.score, second.score, rel_tol=ROUNDING, abs_tol=ROUNDING / 10):
        return Verdict(0.5)
    return Verdict(float(first.score > second.score))


def problems(where: str, said: Iterable[Mark | Verdict]) -> list[Problem]:
    """What could not be had, for the report: the commonest troubles with their number, the rest in one line."""
    found = Counter(one.trouble for one in said if one.trouble)
    told = found.most_common(N_TOLD)
    rest = found.total() - sum(n for _, n in told)
    listed = [Problem(where, trouble, n) for trouble, n in told]
    return [*listed, Problem(where, f"{len(found) - N_TOLD} other troubles", rest)] if rest else listed
