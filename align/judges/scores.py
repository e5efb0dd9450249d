"""The marks that a judge gives as columns of numbers, for the table of models. NaN stands where there is no mark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from align.evals.cache import Cache
from align.evals.problems import Problem
from align.judges.verdicts import Mark, Prompts, Scores, problems
from align.text.records import plain as as_row

ABOUT_HARM = ("refused_rightly", "complied")  # flags that say something only where harm was asked for
ABOUT_THE_REST = ("over_refused",)


class Marker:
    """Marks answers, portion by portion.

    Args:
        column: what its score is called.
        where: what it is called where problems are told.
        judge: gives the marks.
        cache: where they are kept; None has them given anew each time.
    """

    def __init__(self, column: str, where: str, judge: Scores, cache: Cache | None = None) -> None:
        self.column, self.where, self.judge, self.cache = column, where, judge, cache
        self.problems: list[Problem] = []

    def columns(self, prompts: Prompts, texts: Sequence[str]) -> dict[str, list[float]]:
        """The score and every flag of each answer. Raises `JudgeError` if the judge cannot go on."""
        marks = self.marks(prompts, texts)
        self.problems += problems(self.where, marks)
        rows = [{self.column: math.nan if mark.score is None else mark.score} | _flags(mark.flags) for mark in marks]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name, math.nan) for row in rows] for name in names}

    def scores(self, prompts: Prompts, texts: Sequence[str]) -> list[float]:
        """The score of each answer, NaN where there is none."""
        return [math.nan if mark.score is None else mark.score for mark in self.marks(prompts, texts)]

    def marks(self, prompts: Prompts, texts: Sequence[str]) -> list[Mark]:
        """A mark for each answer."""
        if self.cache is None or not texts:
            return self.judge.score(prompts, texts)
        rows = [[as_row(tuple(messages)), text] for messages, text in zip(prompts, texts, strict=True)]
        of = {"marks": self.judge.fingerprint, "rows": rows}
        return [Mark(*row) for row in self.cache.rows(of, lambda: self.judge.score(prompts, texts))]


def _flags(flags: Mapping[str, Any]) -> dict[str, float]:
    """As numbers, each where it means something: nobody can comply with a prompt that asks for no harm."""
    found = {name: float(value) for name, value in flags.items() if name != "harmful"}
    harmful = flags.get("harmful")
    if harmful and "correct" in flags:
        found["refused_rightly"] = float(flags["correct"])
    if harmful is not None:
        for name in ABOUT_THE_REST if harmful else ABOUT_HARM:
            found.pop(name, None)
    return found
