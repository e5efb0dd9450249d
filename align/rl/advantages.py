"""Advantages: GAE with a critic, RLOO and GRPO without; per-token rewards; masked mean and whitening. Pure functions.

Responses are laid out from column 0 on; `mask` is true where a response has a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from align.rl.losses import Summed, plain_sums


def masked_mean(values: Tensor, mask: Tensor, summed: Summed = plain_sums) -> float:
    """Mean over the true positions. `summed` adds numbers over all processes."""
    values_sum, count = summed((values * mask).sum(), mask.sum())
    return values_sum / count


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True, summed: Summed = plain_sums) -> Tensor:
    """(x - mean) * rsqrt(var + 1e-8) with the biased variance over the true positions; 0 elsewhere.

    shift_mean=False adds the mean back: the scale changes, the level does not (lm-human-preferences, N+ item 23).
    """
    mean = masked_mean(values, mask, summed)
    variance = values.new_tensor(masked_mean((values - mean).square(), mask, summed))
    whitened = (values - mean) * (variance + 1e-8).rsqrt()
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coefficient: float, states: Tensor) -> Tensor:
    """Reward of each token: -beta * KL at every token, plus the answer's score at its last state.

    Args:
        scores: (batch,).
        kl: (batch, time), log pi - log pi_ref of each token; 0 where there is none.
        mask: (batch, time).
        kl_coefficient: beta.
        states: (batch, time). Equal to `mask`: the score is on the answer's last token. With one more position where an
            answer has room for it: the score comes after EOS, as in N+ (item 20).

    Returns:
        (batch, time).
    """
    rewards = -kl_coefficient * kl * mask
    rows = torch.arange(len(scores), device=scores.device)
    return rewards.index_put((rows, states.sum(1) - 1), scores, accumulate=True)


def gae(rewards: Tensor, values: Tensor, states: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (Schulman et al. 2016, 1506.02438), with value 0 after the last state.

    Args:
        rewards, values, states: (batch, time); values[:, t] is the value before token t; a state after the
            end has the value of the whole answer.
        gamma: discount (1 in every RLHF paper here).
        lam: lambda of GAE.

    Returns:
        advantages (batch, time), unwhitened and 0 where there is no state; returns = advantages + values.
    """
    values = values * states
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(running)
    for time in reversed(range(rewards.shape[1])):
        delta = rewards[:, time] + gamma * next_value - values[:, time]
        running = delta + gamma * lam * running
        advantages[:, time] = running
        next_value = values[:, time]
    advantages = advantages * states
    return advantages, advantages + values


def rloo(returns: Tensor, n_answers: int) -> Tensor:
    """RLOO advantage: each return minus the mean of the prompt's other answers (Ahmadian et al. 2024, 2402.14740).

    Args:
        returns: (batch,), the total reward of each answer; answers to one prompt are adjacent.
        n_answers: answers per prompt, at least 2.

    Returns:
        (batch,).
    """
    groups = returns.view(-1, n_answers)
    others = (groups.sum(1, keepdim=True) - groups) / (n_answers - 1)
    return (groups - others).flatten()


def grpo(returns: Tensor, n_answers: int) -> Tensor:
    """GRPO advantage: (R - mean) / (std + 1e-4) over the answers to a prompt. Arguments as in `rloo`.

    DeepSeekMath, 2402.03300, section 4.1.2.
    """
    groups = returns.view(-1, n_answers)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
