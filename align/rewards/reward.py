"""The Reward protocol: one finite score per answer; and checks of scores."""

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
        """One finite score per answer. `ids`: the policy's tokens of prompt and answer, EOS included.

        Thoughts are not part of an answer: `texts` does not have them, and `ids` is empty for an answer with thoughts.

        Raises `RewardError` with the reason and the remedy.
        """
        ...


class DetailedScores(NamedTuple):
    """Scores of some answers, and further columns to log, one number per answer."""

    scores: list[float]
    columns: dict[str, list[float]]


def checked_scores(scores: Sequence[Any], texts: Sequence[str], name: str) -> list[float]:
    """The scores as floats. Raises `RewardError` unless there is one finite score per answer."""
    if len(scores) != len(texts):
        raise RewardError(f"{name} returned {len(scores)} scores for {len(texts)} answers; return one for each")
    try:
        numbers = [float(score) for score in scores]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last two: 10**400, a tensor elsewhere
        raise RewardError(f"{name} returned no number ({error}); return a number for each answer") from None
    bad = [index for index, number in enumerate(numbers) if not math.isfinite(number)]
    if bad:
        shown = f"{numbers[bad[0]]} for the answer {texts[bad[0]][:80]!r}"
        raise RewardError(f"{name} returned {shown}; every score must be finite")
    return numbers
