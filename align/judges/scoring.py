"""Judges that give each answer a score: a Python function, and a reward model."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align import sections
from align.errors import JudgeError, UserError
from align.judges.verdicts import Mark, Prompts
from align.text.records import last_question

READ_AT_ONCE = 4096  # tokens that go through a reward model together; rows of more would be padded more


class FunctionJudge:
    """A function (prompt, answer) -> a score, or an object with .score; a prompt is its last user turn.

    What the object says in True and False is kept as flags. An answer that the function fails on has no score.
    """

    def __init__(self, function: str) -> None:
        from align.rewards.function import find_function

        self.function = find_function(function)
        self.fingerprint = f"function {function} {_source_hash(self.function)}"

    def score(self, prompts: Prompts, texts: Sequence[str]) -> list[Mark]:
        return [self._mark(last_question(prompt), text) for prompt, text in zip(prompts, texts, strict=True)]

    def _mark(self, prompt: str, text: str) -> Mark:
        try:
            found = self.function(prompt, text)
            score = float(getattr(found, "score", found))
            flags = _flags(found)
        except Exception as error:  # the function is the user's: it may fail in any way
            return Mark(None, trouble=f"raised {type(error).__name__}: {str(error)[:200]}")
        if not math.isfinite(score):
            return Mark(None, trouble=f"gave the score {score}, which is not finite")
        return Mark(score, flags)


def _flags(found: Any) -> dict[str, bool]:
    names = () if isinstance(found, int | float) else (name for name in dir(found) if not name.startswith("_"))
    values = ((name, getattr(found, name)) for name in names)
    return {name: value for name, value in values if isinstance(value, bool)}


def _source_hash(function: Any) -> str:
    """Of the file that the function stands in; what that imports is not seen."""
    try:
        source = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").read_bytes()
    except (OSError, TypeError):  # built in, or written in C
        source = b""
    return hashlib.blake2b(source, digest_size=8).hexdigest()


class RewardModelJudge:
    """A reward model, or the mean of several. An answer that is too long for one of them has no score."""

    def __init__(self, paths: str | list[str], key: str = "reward") -> None:
        """`key` of a recipe gave the paths."""
        from align.models.fingerprint import fingerprint
        from align.models.load import load_config
        from align.rewards.settings import RewardModel

        self.settings = RewardModel(path=paths)
        models = [sections.Model(path=path) for path in self.settings.paths]
        for model in models:
            load_config(model, key, to="reward")  # what is not there is told now
        self.fingerprint = " ".join(["reward_model", *map(fingerprint, models)])
        self._scorer: Any = None

    @property
    def scorer(self) -> Any:
        """The loaded models. Where all marks are known none is needed."""
        from align.rewards.scorer import Scorer

        self._scorer = self._scorer or Scorer(self.settings, READ_AT_ONCE)
        return self._scorer

    def score(self, prompts: Prompts, texts: Sequence[str]) -> list[Mark]:
        encoded = self.scorer.encode(prompts, texts)
        troubles = [self._too_long([member.ids for member in answer]) for answer in encoded]
        fitting = [answer for answer, trouble in zip(encoded, troubles, strict=True) if not trouble]
        try:
            found = iter(self.scorer.score([[member.ids for member in answer] for answer in fitting]).scores)
        except UserError as error:
            raise JudgeError(str(error)) from None
        return [Mark(None, trouble=trouble) if trouble else Mark(next(found)) for trouble in troubles]

    def _too_long(self, rows: Sequence[list[int]]) -> str:
        for member, ids in zip(self.scorer.members, rows, strict=True):
            if member.n_positions is not None and len(ids) > member.n_positions:
                return (
                    f"has {member.n_positions} positions, too few for a prompt with its answer; lower data.max_tokens "
                    "or sampling.max_tokens"
                )
        return ""
