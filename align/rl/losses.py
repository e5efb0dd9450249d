"""Losses of PPO and the reward model, as pure functions of tensors.

Each returns a sum. The caller divides by the count over all micro-batches and processes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Summed = Callable[..., list[float]]  # adds each number over all processes


def plain_sums(*values: float | Tensor) -> list[float]:
    """`Summed` for a single process."""
    return [float(value) for value in values]


class Pairs(NamedTuple):
    """The pairs of a batch of rankings, as indices into its answers. Each list has one entry per pair."""

    better: list[int]
    worse: list[int]
    weight: list[float]  # 1 / C(K, 2) of the prompt, times its annotator's weight
    margin: list[float]  # required score difference; 0 for none
    target: list[float]  # probability that `better` is better: 1, or 0.5 for a tie

    def decided(self) -> Pairs:
        """The pairs without ties."""
        if 0.5 not in self.target:
            return self
        kept = [pair for pair in zip(*self, strict=True) if pair[-1] != 0.5]
        return Pairs(*([pair[column] for pair in kept] for column in range(len(self))))  # type: ignore[arg-type]


def pairs_of(
    rankings: Sequence[Sequence[int]],
    ties: Literal["drop", "half"] = "drop",
    margins: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> Pairs:
    """All pairs of each prompt, weighted 1/C(K, 2) (InstructGPT, 2203.02155, section 3.5).

    Args:
        rankings: the ranks of each prompt's answers, 1 is best. Answers are numbered across the batch.
        ties: drop makes no pair of equal ranks (InstructGPT); half makes a pair with target 0.5, half a win
            for each, as in Elo ratings.
        margins: for each ranking, the margin between its best and worst answer. A pair closer in rank gets a
            proportional share. For K = 2 that is the pair's own margin (Llama 2, 2307.09288, equation 2).
        weights: for each ranking, the factor of its loss.
    """
    pairs = Pairs([], [], [], [], [])
    first = 0
    for number, ranks in enumerate(rankings):
        weight = (1.0 if weights is None else weights[number]) / max(1, len(ranks) * (len(ranks) - 1) // 2)
        step = (0.0 if margins is None else margins[number]) / max(1, max(ranks) - min(ranks))
        for i, j in combinations(range(len(ranks)), 2):
            if ranks[i] != ranks[j] or ties == "half":
                better, worse = (i, j) if ranks[i] <= ranks[j] else (j, i)
                pairs.better.append(first + better)
                pairs.worse.append(first + worse)
                pairs.weight.append(weight)
                pairs.margin.append(step * (ranks[worse] - ranks[better]))
                pairs.target.append(0.5 if ranks[i] == ranks[j] else 1.0)
        first += len(ranks)
    return pairs


def ranking_loss(scores: Tensor, pairs: Pairs, label_smoothing: float = 0.0, centering: float = 0.0) -> Tensor:
    """Sum over prompts of -1/C(K, 2) * sum over its pairs of log sigmoid(r_better - r_worse), InstructGPT equation 1.

    With margin m a pair's term is -log sigmoid(r_better - r_worse - m) (Llama 2, 2307.09288, equation 2). If the
    label is right with probability p, the term is the mean over both cases,

        -p log sigmoid(r_better - r_worse - m) - (1 - p) log sigmoid(r_worse - r_better - m)

    where p is the pair's target (0.5 for a tie), smoothed to p (1 - e) + (1 - p) e by `label_smoothing` = e (cDPO,
    Mitchell 2023, "A note on DPO with noisy preferences"). `centering` adds that much times (r_better + r_worse)^2
    (Eisenstein et al., 2312.09244, equation 2; TRL's `center_rewards_coefficient`).

    scores: (n_answers,). Divide by the number of prompts for the mean.
    """
    better, worse = scores[pairs.better], scores[pairs.worse]
    weight, margin, target = (
        torch.tensor(column, device=scores.device) for column in (pairs.weight, pairs.margin, pairs.target)
    )
    right = target * (1 - label_smoothing) + (1 - target) * label_smoothing
    logprobs = right * F.logsigmoid(better - worse - margin) + (1 - right) * F.logsigmoid(worse - better - margin)
    losses = -logprobs + centering * (better + worse).square() if centering else -logprobs
    return (losses * weight).sum()


def bootstrap_draw(seed: int, prompt: str, member: int) -> int:
    """How often an ensemble member sees a prompt: a draw from Poisson(1), an online bootstrap.

    Oza & Russell 2001, "Online bagging and boosting". Depends only on its arguments, so it is the same
    on every machine and in every epoch. Members differ in their data, not in its order.
    """
    digest = hashlib.blake2b(f"{seed}\n{member}\n{prompt}".encode(), digest_size=8).digest()
    uniform = int.from_bytes(digest, "big") / 2**64
    count, mass = 0, math.exp(-1)
    below = mass
    while uniform >= below and count < 20:  # P(more than 20) is below 1e-19
        count += 1
        mass /= count
        below += mass
    return count


class PolicyLoss(NamedTuple):
    """The clipped policy loss and its diagnostics, all summed over tokens."""

    loss: Tensor
    approx_kl: Tensor  # 0.5 * (new - old)^2
    clipped: Tensor  # tokens where the clipped term is larger
    ratio: Tensor


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float, dual_clip: float | None = None
) -> PolicyLoss:
    """max(-A * ratio, -A * clip(ratio, 1 - c, 1 + c)), PPO (1707.06347) equation 7. All tensors (n_tokens,).

    `dual_clip` bounds the loss by -A * dual_clip where the advantage is negative, so that a bad token whose probability
    rose a lot cannot make the loss arbitrarily large (Ye et al. 2020, 1912.09729, equation 5).
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
    """Entropy of each row in nats, (n,). logits: (n, vocabulary), -inf for tokens that are never sampled."""
    logp = logits.float().log_softmax(-1)
    return -(logp.exp() * logp.masked_fill(logp == float("-inf"), 0.0)).sum(-1)


class ValueLoss(NamedTuple):
    """The clipped value loss, summed over tokens."""

    loss: Tensor
    clipped: Tensor  # tokens where the clipped term is larger


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None) -> ValueLoss:
    """0.5 * max((V - R)^2, (clip(V, V_old +- c) - R)^2), lm-human-preferences. All tensors (n_tokens,).

    Without a `clip_range`, 0.5 * (V - R)^2.
    """
    if clip_range is None:
        return ValueLoss(0.5 * (values - returns).square().sum(), values.new_zeros(()))
    bounded = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    error, bounded_error = (values - returns).square(), (bounded - returns).square()
    return ValueLoss(0.5 * torch.max(error, bounded_error).sum(), (bounded_error > error).sum())


def explained_variance(values: Tensor, returns: Tensor, summed: Summed = plain_sums) -> float:
    """1 - Var(R - V) / Var(R): 1 for a perfect critic, 0 for one that predicts the mean. (n_tokens,) each.

    `summed` adds numbers over all processes: moments add up, ratios do not.
    """
    returns, errors = returns.double(), (returns - values).double()
    columns = (returns, returns.square(), errors, errors.square())
    n, *sums = summed(returns.numel(), *(column.sum() for column in columns))
    mean, square, error, error_square = (value / n for value in sums)
    variance = square - mean**2
    if variance <= 1e-12 * square:  # all returns are equal, up to rounding
        return 0.0
    return 1 - (error_square - error**2) / variance
