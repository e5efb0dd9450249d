"""The reward that a recipe names: reward models, a Python function, a reward server, or a weighted sum of these.

`align.rl.shaping` then turns scores into what PPO learns from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import pstdev
from typing import Any, NamedTuple

from align.rewards.function import FunctionReward
from align.rewards.model import EnsembleReward, model_reward
from align.rewards.reward import Judged, Prompts, Reward
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
    """The reward that a recipe names.

    Args:
        settings: the recipe's `reward` section.
        tokenizer: the policy's.
        device: where reward models compute.
        max_tokens: tokens, padding included, that go through a reward model at once.
        loaded: reward models by path that stand on a base which another role has loaded.
        trust_remote_code: whether code that comes with reward models may run.
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


def judge(reward: Reward, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> Judged:
    """Scores, with the parts that they were made of: each source's own scores, and how far an ensemble is apart."""
    if isinstance(reward, SumReward):
        return reward.judge(prompts, texts, ids)
    if isinstance(reward, EnsembleReward):
        members = reward.member_scores(prompts, texts, ids)
        return Judged(
            reward.combined(members), {"objective/ensemble_std": [pstdev(m) for m in zip(*members, strict=True)]}
        )
    return Judged(reward.score(prompts, texts, ids), {})


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
        return self.judge(prompts, texts, ids).scores

    def judge(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> Judged:
        """The sums, and each source's scores before they are weighted."""
        sums = [0.0] * len(texts)
        columns: dict[str, list[float]] = {}
        for name, weight, reward in self.sources:
            found = judge(reward, prompts, texts, ids)
            sums = [total + weight * score for total, score in zip(sums, found.scores, strict=True)]
            columns[f"objective/scores/{name}"] = found.scores
            columns |= {f"{column}/{name}": values for column, values in found.columns.items()}
        return Judged(sums, columns)
