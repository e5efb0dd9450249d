"""Masked statistics, rewards for each token, advantages with and without a critic: pure functions of tensors.

Responses are laid out from column 0 on; `mask` is true where a response has a token.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the true positions."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """(x - mean) * rsqrt(var + 1e-8) with the biased variance over the true positions; 0 elsewhere.

    shift_mean=False adds the mean back: the scale changes, the level does not (lm-human-preferences, N+ item 23).
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean).square(), mask)
    whitened = (values - mean) * (variance + 1e-8).rsqrt()
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)


def token_rewards(
    scores: Tensor, kl: Tensor, mask: Tensor, kl_coefficient: float, score_at: Literal["eos", "after_eos"] = "eos"
) -> Tensor:
    """Rewards of each token: -beta * KL everywhere, and the answer's score at its end.

    Args:
        scores: (batch,).
        kl: (batch, time), log pi - log pi_ref of each token; 0 where there is none.
        mask: (batch, time).
        kl_coefficient: beta.
        score_at: `eos` puts the score on the answer's last token, which is its EOS if it has one; `after_eos` one later
            where the layout has room, as N+ does (item 20).

    Returns:
        (batch, time).
    """
    rewards = -kl_coefficient * kl * mask
    last = mask.sum(1) - 1
    if score_at == "after_eos":
        last = (last + 1).clamp(max=mask.shape[1] - 1)
    return rewards.index_put((torch.arange(len(scores), device=scores.device), last), scores, accumulate=True)


def with_end(mask: Tensor, score_at: Literal["eos", "after_eos"]) -> Tensor:
    """Where rewards stand: at the answer's tokens, and with `after_eos` one later where the layout has room."""
    if score_at == "eos":
        return mask
    later = torch.zeros_like(mask)
    later[:, 1:] = mask[:, :-1]
    return mask | later


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (Schulman et al. 2016, 1506.02438), with value 0 after the end.

    Args:
        rewards, values, mask: (batch, time); values[:, t] is the value before token t.
        gamma: discount (1 in every RLHF paper here).
        lam: lambda of GAE.

    Returns:
        advantages (batch, time), unwhitened and 0 outside the mask; returns = advantages + values.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(running)
    for time in reversed(range(rewards.shape[1])):
        delta = rewards[:, time] + gamma * next_value - values[:, time]
        running = delta + gamma * lam * running
        advantages[:, time] = running
        next_value = values[:, time]
    advantages = advantages * mask
    return advantages, advantages + values


def rloo(returns: Tensor, n_answers: int) -> Tensor:
    """What each answer earned beyond the mean of the other answers to its prompt (Ahmadian et al. 2024, 2402.14740).

    Args:
        returns: (batch,), the whole reward of each answer; the answers of one prompt stand side by side.
        n_answers: of each prompt, at least 2.

    Returns:
        (batch,).
    """
    groups = returns.view(-1, n_answers)
    others = (groups.sum(1, keepdim=True) - groups) / (n_answers - 1)
    return (groups - others).flatten()


def grpo(returns: Tensor, n_answers: int) -> Tensor:
    """(R - mean) / (std + 1e-4) among the answers to a prompt (DeepSeekMath, 2402.03300, section 4.1.2). As `rloo`."""
    groups = returns.view(-1, n_answers)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
