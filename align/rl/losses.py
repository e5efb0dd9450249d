"""The losses: pure functions of tensors. Sums, which the caller divides by the count over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Pairs(NamedTuple):
    """The comparisons in a batch of rankings, as indices into its answers."""

    better: list[int]
    worse: list[int]
    weight: list[float]  # 1 / C(K, 2) of the prompt


def pairs_of(rankings: Sequence[Sequence[int]]) -> Pairs:
    """All pairs of each prompt, weighted 1/C(K, 2); ties give no pair (InstructGPT, 2203.02155, section 3.5).

    Args:
        rankings: the ranks of each prompt's answers, 1 is best. Answers are numbered through the batch.
    """
    pairs = Pairs([], [], [])
    first = 0
    for ranks in rankings:
        n_pairs = len(ranks) * (len(ranks) - 1) // 2
        for i, j in combinations(range(len(ranks)), 2):
            if ranks[i] != ranks[j]:
                better, worse = (i, j) if ranks[i] < ranks[j] else (j, i)
                pairs.better.append(first + better)
                pairs.worse.append(first + worse)
                pairs.weight.append(1 / n_pairs)
        first += len(ranks)
    return pairs


def ranking_loss(scores: Tensor, pairs: Pairs) -> Tensor:
    """Sum over prompts of -1/C(K, 2) * sum over its pairs of log sigmoid(r_better - r_worse).

    InstructGPT equation 1. scores: (n_answers,). Divide by the number of prompts for the mean.
    """
    margins = scores[pairs.better] - scores[pairs.worse]
    return -(F.logsigmoid(margins) * torch.tensor(pairs.weight, device=scores.device)).sum()


class PolicyLoss(NamedTuple):
    """The clipped policy loss and what is watched beside it; all are sums over tokens."""

    loss: Tensor
    approx_kl: Tensor  # 0.5 * (new - old)^2
    clipped: Tensor  # tokens at which the clipped branch is the larger
    ratio: Tensor


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float, dual_clip: float | None = None
) -> PolicyLoss:
    """max(-A * ratio, -A * clip(ratio, 1 - c, 1 + c)), PPO (1707.06347) equation 7. All tensors (n_tokens,).

    `dual_clip` bounds it where the advantage is negative, by -A * dual_clip: a token that has become much likelier and
    was bad cannot make the loss grow without end (Ye et al. 2020, 1912.09729, equation 5).
    """
    difference = logprobs - old_logprobs
    ratio = difference.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = torch.max(unclipped, clipped)
    is_clipped = clipped > unclipped
    if dual_clip is not None:
        bound = -advantages * dual_clip
        is_clipped = is_clipped | ((advantages < 0) & (loss > bound))
        loss = torch.where(advantages < 0, torch.min(loss, bound), loss)
    with torch.no_grad():
        approx_kl = 0.5 * difference.square()
    return PolicyLoss(loss.sum(), approx_kl.sum(), is_clipped.sum(), ratio.detach().sum())


def entropy(logits: Tensor) -> Tensor:
    """logsumexp - sum(p * logits) of each row, in nats. logits: (n, vocabulary), -inf where nothing can be said."""
    logp = logits.float().log_softmax(-1)
    return -(logp.exp() * logp.masked_fill(logp == float("-inf"), 0.0)).sum(-1)


class ValueLoss(NamedTuple):
    """The clipped value loss, a sum over tokens."""

    loss: Tensor
    clipped: Tensor  # tokens at which the clipped branch is the larger


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None) -> ValueLoss:
    """0.5 * max((V - R)^2, (clip(V, V_old +- c) - R)^2), lm-human-preferences. All tensors (n_tokens,).

    Without a `clip_range`, 0.5 * (V - R)^2.
    """
    if clip_range is None:
        return ValueLoss(0.5 * (values - returns).square().sum(), values.new_zeros(()))
    bounded = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    error, bounded_error = (values - returns).square(), (bounded - returns).square()
    return ValueLoss(0.5 * torch.max(error, bounded_error).sum(), (bounded_error > error).sum())


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(R - V) / Var(R): 1 is a perfect critic, 0 one that knows only the mean. (n_tokens,) each."""
    variance = returns.var(correction=0)
    if variance == 0:
        return 0.0
    return float(1 - (returns - values).var(correction=0) / variance)
