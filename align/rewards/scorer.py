"""Texts in, scores out: a reward model, or an ensemble of them, outside of a training run."""

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
    """A prompt and an answer in the tokens of one member, the answer ending in EOS."""

    prompt: list[int]
    response: list[int]

    @property
    def ids(self) -> list[int]:
        """Both, as the model reads them."""
        return self.prompt + self.response


class Scored(NamedTuple):
    """The scores of some answers."""

    scores: list[float]
    members: list[list[float]]  # (n_answers, n_members): what each member says of it


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
        """Each answer as each member's tokens, (n_answers, n_members)."""
        by_member = [[Encoded(*pair) for pair in member.encode(prompts, texts)] for member in self.members]
        return [list(members) for members in zip(*by_member, strict=True)]

    def score(self, answers: Sequence[Sequence[list[int]]]) -> Scored:
        """Scores of token rows, (n_answers, n_members) lists of prompt and answer, as members read them."""
        if not answers:
            return Scored([], [])
        columns = zip(*answers, strict=True)
        rows_of = zip(self.members, columns, strict=True)
        members = [scores for member, rows in rows_of for scores in member.score_tokens(list(rows))]
        scores = combine(members, self.settings.ensemble, self.settings.uncertainty)
        return Scored(scores, [list(row) for row in zip(*members, strict=True)])


def longest_row(settings: RewardModel, max_tokens: int, key: str = "data.max_tokens") -> int:
    """What of `max_tokens` all members have positions for. Raises `UserError` if one is not there."""
    models = [sections.Model(path=path, trust_remote_code=settings.trust_remote_code) for path in settings.paths]
    return fitting(max_tokens, [load_config(model, to="reward") for model in models], key)
