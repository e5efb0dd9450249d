"""A judge's scores as columns of numbers, cached, for the table of models. NaN for a missing score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from align.evals.cache import Cache
from align.evals.problems import Problem
from align.judges.verdicts import AnswerScore, Prompts, Scores, problems
from align.text.records import plain as as_row

ABOUT_HARM = ("refused_rightly", "complied")  # flags with a meaning only for harmful prompts
ABOUT_THE_REST = ("over_refused",)


class CachedScorer:
    """Scores answers with a judge, portion by portion, with a cache.

    Args:
        column: name of the score.
        where: its name in problems.
        judge: scores the answers.
        cache: of scores; None for no cache.
    """

    def __init__(self, column: str, where: str, judge: Scores, cache: Cache | None = None) -> None:
        self.column, self.where, self.judge, self.cache = column, where, judge, cache
        self.problems: list[Problem] = []

    def columns(self, prompts: Prompts, texts: Sequence[str]) -> dict[str, list[float]]:
        """Score and flags of each answer. Raises `JudgeError` if the judge cannot continue."""
        marks = self.marks(prompts, texts)
        self.problems += problems(self.where, marks)
        rows = [{self.column: math.nan if mark.score is None else mark.score} | _flags(mark.flags) for mark in marks]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name, math.nan) for row in rows] for name in names}

    def scores(self, prompts: Prompts, texts: Sequence[str]) -> list[float]:
        """The score of each answer; NaN if missing."""
        return [math.nan if mark.score is None else mark.score for mark in self.marks(prompts, texts)]

    def marks(self, prompts: Prompts, texts: Sequence[str]) -> list[AnswerScore]:
        """One `AnswerScore` per answer."""
        if self.cache is None or not texts:
            return self.judge.score(prompts, texts)
        rows = [[as_row(tuple(messages)), text] for messages, text in zip(prompts, texts, strict=True)]
        of = {"marks": self.judge.fingerprint, "rows": rows}
        return [AnswerScore(*row) for row in self.cache.rows(of, lambda: self.judge.score(prompts, texts))]


def _flags(flags: Mapping[str, Any]) -> dict[str, float]:
    """Flags as numbers, without those that have no meaning for the prompt, such as complied for a harmless one."""
    found = {name: float(value) for name, value in flags.items() if name != "harmful"}
    harmful = flags.get("harmful")
    if harmful and "correct" in flags:
        found["refused_rightly"] = float(flags["correct"])
    if harmful is not None:
        for name in ABOUT_THE_REST if harmful else ABOUT_HARM:
            found.pop(name, None)
    return found
