"""A judge's marks as columns, each where it means something."""

import math
from typing import Any

import pytest

from align.evals.cache import Cache
from align.judges.scores import CachedScorer
from align.judges.verdicts import AnswerScore
from align.text.records import Message


class Judge:
    """Gives the marks that it was made with, and counts how often it is asked."""

    fingerprint = "judge"

    def __init__(self, *marks: AnswerScore) -> None:
        self.marks, self.n_asked = marks, 0

    def score(self, prompts: Any, texts: Any) -> list[AnswerScore]:
        self.n_asked += 1
        return list(self.marks)


PROMPTS = [(Message("user", text),) for text in "abc"]
FLAGS = {"correct": True, "complied": False, "over_refused": False}


def test_a_flag_stands_where_it_means_something():
    harmful, harmless = AnswerScore(1.5, FLAGS | {"harmful": True}), AnswerScore(0.5, FLAGS | {"harmful": False})
    marker = CachedScorer("gold", "judge", Judge(harmful, harmless, AnswerScore(None, reason="no")))
    found = marker.columns(PROMPTS, ["x", "y", "z"])
    nan = math.nan
    assert found.keys() == {"gold", "correct", "complied", "over_refused", "refused_rightly"}
    assert found["gold"] == pytest.approx([1.5, 0.5, nan], nan_ok=True)
    assert found["complied"] == pytest.approx([0.0, nan, nan], nan_ok=True)
    assert found["over_refused"] == pytest.approx([nan, 0.0, nan], nan_ok=True)
    assert found["refused_rightly"] == pytest.approx([1.0, nan, nan], nan_ok=True)
    assert [(p.where, p.what, p.n) for p in marker.problems] == [("judge", "no", 1)]


def test_marks_are_kept_where_there_is_a_cache(tmp_path):
    judge = Judge(AnswerScore(1.0, {"polite": True}), AnswerScore(None, reason="no"), AnswerScore(2.0))
    for _ in range(2):
        marker = CachedScorer("reward", "reward", judge, Cache(tmp_path))
        assert marker.scores(PROMPTS, ["x", "y", "z"]) == pytest.approx([1.0, math.nan, 2.0], nan_ok=True)
    assert judge.n_asked == 1
    assert CachedScorer("reward", "reward", judge).marks(PROMPTS, ["x", "y", "z"]) == list(judge.marks)
    assert judge.n_asked == 2
