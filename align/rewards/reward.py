"""What a reward is: it gives each answer one finite score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from align.errors import RewardError
from align.text.records import Message

Prompts = Sequence[Sequence[Message]]


class Reward(Protocol):
    """Scores answers to prompts."""

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        """One finite score for each answer; `ids` are the policy's own tokens of prompt and answer, EOS included.

        What was thought before an answer is no part of it: it is not in `texts`, and `ids` has no tokens of that one.

        Raises `RewardError` that says what is wrong with the reward and how to mend it.
        """
        ...


class Judged(NamedTuple):
    """The scores of some answers, and what else is logged of each answer, by name."""

    scores: list[float]
    columns: dict[str, list[float]]


def checked_scores(scores: Sequence[Any], texts: Sequence[str], name: str) -> list[float]:
    """The scores as numbers. Raises `RewardError` unless there is a finite one for each answer."""
    if len(scores) != len(texts):
        raise RewardError(f"{name} returned {len(scores)} scores for {len(texts)} answers; return one for each")
    try:
        numbers = [float(score) for score in scores]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last two: 10**400, a tensor elsewhere
        raise RewardError(f"{name} returned what is no number ({error}); return a number for each answer") from None
    bad = [index for index, number in enumerate(numbers) if not math.isfinite(number)]
    if bad:
        shown = f"{numbers[bad[0]]} for the answer {texts[bad[0]][:80]!r}"
        raise RewardError(f"{name} returned {shown}; every score must be finite")
    return numbers
