"""Build the recipe's reward: reward models, a Python function, a reward server, or a weighted sum of these.

`align.rl.shaping` then shapes the scores for PPO.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import pstdev
from typing import Any, NamedTuple

from align.rewards.function import FunctionReward
from align.rewards.model import EnsembleReward, model_reward
from align.rewards.reward import DetailedScores, Prompts, Reward
from align.rewards.settings import Reward as RewardSettings
from align.rewards.settings import Source, listed


def build_reward(
    settings: RewardSettings,
    tokenizer: Any,
    device: Any,
    max_tokens: int,
    loaded: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Reward:
    """Build the reward of a recipe.

    Args:
        settings: the recipe's `reward` section.
        tokenizer: the policy's.
        device: of reward models.
        max_tokens: tokens per batch of a reward model, padding included.
        loaded: reward models by path that share a base with another role.
        trust_remote_code: whether code in reward model folders may run.
    """

    def build(source: Source) -> Reward:
        if source.function is not None:
            return FunctionReward(source.function)
        if source.url is not None:
            from align.rewards.client import HttpReward

            return HttpReward(source.url, settings.timeout_s, settings.retries, settings.url_batch)
        paths, how, c = listed(source.path), settings.ensemble, settings.uncertainty
        return model_reward(paths, tokenizer, device, max_tokens, how, c, loaded, trust_remote_code)

    if settings.sources is None:
        return build(settings.parts[0])
    return SumReward([Weighted(source.label, source.weight, build(source)) for source in settings.sources])


def detailed_scores(reward: Reward, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> DetailedScores:
    """Scores, with columns to log: each source's scores, and the standard deviation over an ensemble."""
    if isinstance(reward, SumReward):
        return reward.detailed_scores(prompts, texts, ids)
    if isinstance(reward, EnsembleReward):
        members = reward.member_scores(prompts, texts, ids)
        return DetailedScores(
            reward.combined(members), {"objective/ensemble_std": [pstdev(m) for m in zip(*members, strict=True)]}
        )
    return DetailedScores(reward.score(prompts, texts, ids), {})


class Weighted(NamedTuple):
    """One of several rewards."""

    name: str
    weight: float
    reward: Reward


class SumReward:
    """The weighted sum of several rewards."""

    def __init__(self, sources: Sequence[Weighted]) -> None:
        self.sources = sources

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        return self.detailed_scores(prompts, texts, ids).scores

    def detailed_scores(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> DetailedScores:
        """The weighted sums, and each source's scores before weighting."""
        sums = [0.0] * len(texts)
        columns: dict[str, list[float]] = {}
        for name, weight, reward in self.sources:
            found = detailed_scores(reward, prompts, texts, ids)
            sums = [total + weight * score for total, score in zip(sums, found.scores, strict=True)]
            columns[f"objective/scores/{name}"] = found.scores
            columns |= {f"{column}/{name}": values for column, values in found.columns.items()}
        return DetailedScores(sums, columns)
