"""Judges that score single answers: a Python function, and a reward model."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align import sections
from align.errors import JudgeError, UserError
from align.judges.verdicts import AnswerScore, Prompts
from align.text.records import last_question

READ_AT_ONCE = 4096  # tokens per batch of a reward model; larger batches have more padding


class FunctionJudge:
    """A function (prompt, answer) -> a score, or an object with .score; a prompt is its last user message.

    Boolean attributes of the object become flags. An answer on which the function fails has no score.
    """

    def __init__(self, function: str) -> None:
        from align.rewards.function import find_function

        self.function = find_function(function)
        self.fingerprint = f"function {function} {_source_hash(self.function)}"

    def score(self, prompts: Prompts, texts: Sequence[str]) -> list[AnswerScore]:
        return [self._mark(last_question(prompt), text) for prompt, text in zip(prompts, texts, strict=True)]

    def _mark(self, prompt: str, text: str) -> AnswerScore:
        try:
            found = self.function(prompt, text)
            score = float(getattr(found, "score", found))
            flags = _flags(found)
        except Exception as error:  # the function is the user's: it may fail in any way
            return AnswerScore(None, reason=f"raised {type(error).__name__}: {str(error)[:200]}")
        if not math.isfinite(score):
            return AnswerScore(None, reason=f"gave the score {score}, which is not finite")
        return AnswerScore(score, flags)


def _flags(found: Any) -> dict[str, bool]:
    names = () if isinstance(found, int | float) else (name for name in dir(found) if not name.startswith("_"))
    values = ((name, getattr(found, name)) for name in names)
    return {name: value for name, value in values if isinstance(value, bool)}


def _source_hash(function: Any) -> str:
    """Hash of the function's source file, without what it imports."""
    try:
        source = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").read_bytes()
    except (OSError, TypeError):  # built in, or written in C
        source = b""
    return hashlib.blake2b(source, digest_size=8).hexdigest()


class RewardModelJudge:
    """A reward model, or the mean of several. An answer too long for any of them has no score."""

    def __init__(self, paths: str | list[str], key: str = "reward") -> None:
        """`key`: the recipe key of the paths, for messages."""
        from align.models.fingerprint import fingerprint
        from align.models.load import load_config
        from align.rewards.settings import RewardModel

        self.settings = RewardModel(path=paths)
        models = [sections.Model(path=path) for path in self.settings.paths]
        for model in models:
            load_config(model, key, to="reward")  # a missing model is an error now, not later
        self.fingerprint = " ".join(["reward_model", *map(fingerprint, models)])
        self._scorer: Any = None

    @property
    def scorer(self) -> Any:
        """The models, loaded at first use: none if all scores are cached."""
        from align.rewards.scorer import Scorer

        self._scorer = self._scorer or Scorer(self.settings, READ_AT_ONCE)
        return self._scorer

    def score(self, prompts: Prompts, texts: Sequence[str]) -> list[AnswerScore]:
        encoded = self.scorer.encode(prompts, texts)
        reasons = [self._too_long([member.ids for member in answer]) for answer in encoded]
        fitting = [answer for answer, reason in zip(encoded, reasons, strict=True) if not reason]
        try:
            found = iter(self.scorer.score([[member.ids for member in answer] for answer in fitting]).scores)
        except UserError as error:
            raise JudgeError(str(error)) from None
        return [AnswerScore(None, reason=reason) if reason else AnswerScore(next(found)) for reason in reasons]

    def _too_long(self, rows: Sequence[list[int]]) -> str:
        for member, ids in zip(self.scorer.members, rows, strict=True):
            if member.n_positions is not None and len(ids) > member.n_positions:
                return (
                    f"has {member.n_positions} positions, too few for a prompt and its answer; lower data.max_tokens "
                    "or sampling.max_tokens"
                )
        return ""
