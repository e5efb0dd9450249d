"""Scorer: score texts with a reward model or an ensemble, outside training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from align import sections
from align.errors import UserError
from align.models.load import load_config
from align.rewards.model import ModelReward, combine
from align.rewards.reward import Prompts
from align.rewards.settings import RewardModel
from align.train.machine import accelerator as make_accelerator
from align.train.plan import fitting


class Encoded(NamedTuple):
    """Prompt and answer as tokens of one ensemble member. The answer ends in EOS."""

    prompt: list[int]
    response: list[int]

    @property
    def ids(self) -> list[int]:
        """Prompt and answer."""
        return self.prompt + self.response


class Scored(NamedTuple):
    """Scores of some answers."""

    scores: list[float]
    members: list[list[float]]  # (n_answers, n_members)


class Scorer:
    """Loaded reward models with their tokenizers, in fp32."""

    def __init__(self, settings: RewardModel, batch_tokens: int) -> None:
        self.settings = settings
        device = make_accelerator("fp32").device
        trusted = settings.trust_remote_code
        self.members = [ModelReward(path, None, device, batch_tokens, None, trusted) for path in settings.paths]
        if settings.ensemble != "mean" and sum(member.n_members for member in self.members) == 1:
            raise UserError(f"model.ensemble = {settings.ensemble} has no effect on one model; give a list of paths")

    def encode(self, prompts: Prompts, texts: Sequence[str]) -> list[list[Encoded]]:
        """Tokens of each answer for each member, (n_answers, n_members)."""
        by_member = [[Encoded(*pair) for pair in member.encode(prompts, texts)] for member in self.members]
        return [list(members) for members in zip(*by_member, strict=True)]

    def score(self, answers: Sequence[Sequence[list[int]]]) -> Scored:
        """Scores of token rows. answers: (n_answers, n_members) lists of prompt and answer tokens."""
        if not answers:
            return Scored([], [])
        columns = zip(*answers, strict=True)
        rows_of = zip(self.members, columns, strict=True)
        members = [scores for member, rows in rows_of for scores in member.score_tokens(list(rows))]
        scores = combine(members, self.settings.ensemble, self.settings.uncertainty)
        return Scored(scores, [list(row) for row in zip(*members, strict=True)])


def longest_row(settings: RewardModel, max_tokens: int, key: str = "data.max_tokens") -> int:
    """`max_tokens`, lowered to the fewest positions of any member. Raises `UserError` if a model is missing."""
    models = [sections.Model(path=path, trust_remote_code=settings.trust_remote_code) for path in settings.paths]
    return fitting(max_tokens, [load_config(model, to="reward") for model in models], key)
