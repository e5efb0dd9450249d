"""The learner against a deliberately plain PPO: float64, one answer at a time, no batching, loops instead of tensors.

Written from the papers (1707.06347, 1506.02438, 2203.02155) and N+'s conventions, not from `align.rl`.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from helpers import recipe_of
from torch import Tensor

from align import ppo
from align.models.adapters import trained_parameters

BETA, GAMMA, LAM, CLIP, VALUE_CLIP = 0.3, 0.98, 0.9, 0.2, 0.15


class Found(NamedTuple):
    """What one mini-batch gives."""

    policy_loss: float
    value_loss: float
    approx_kl: float
    clip_share: float
    value_clip_share: float
    kl: float
    advantages: list[list[float]]
    policy_gradients: dict[str, Tensor]
    value_gradients: dict[str, Tensor]


def plain_ppo(policy: Any, reference: Any, critic: Any, rollouts: Any, whitened: bool, room: int) -> Found:
    """PPO on given answers, with the old log probabilities and values that the rollouts hold.

    `room` is the longest that an answer may be where a shorter one has a state after its end, to which its score
    belongs; 0 where the score belongs to the last token.
    """
    never = policy.never_sampled  # pad has probability 0 (lm-human-preferences, item 1)
    policy, reference, critic = (copy.deepcopy(model).double() for model in (policy.model, reference.model, critic))

    def log_probabilities(model: Any, row: list[int]) -> Tensor:
        logits = model(torch.tensor([row])).logits[0]
        return logits.index_fill(1, torch.tensor(never), float("-inf")).log_softmax(-1)

    prompts = [row[: len(row) - int(n)] for row, n in zip(rollouts.sequences(), rollouts.mask.sum(1), strict=True)]
    kls, advantages, returns = [], [], []
    for i, row in enumerate(rollouts.sequences()):
        n_prompt, n = len(prompts[i]), len(row) - len(prompts[i])
        with torch.no_grad():
            log_q = log_probabilities(reference, row)
        old = rollouts.logprobs[i].double()
        m = n + 1 if n < room else n  # states
        values = [float(value) for value in rollouts.values[i].double()[:m]]
        kl = [float(old[t] - log_q[n_prompt + t - 1, row[n_prompt + t]]) for t in range(n)]
        rewards = [-BETA * nats for nats in kl] + [0.0] * (m - n)
        rewards[-1] += float(rollouts.scores[i])
        deltas = [rewards[t] + (GAMMA * values[t + 1] if t + 1 < m else 0.0) - values[t] for t in range(m)]
        row_advantages = [sum((GAMMA * LAM) ** (k - t) * deltas[k] for k in range(t, m)) for t in range(m)]
        kls.append(sum(kl))
        advantages.append(row_advantages[:n])
        returns.append([a + v for a, v in zip(row_advantages, values, strict=True)])
    flat = [a for row in advantages for a in row]
    if whitened:
        mean = sum(flat) / len(flat)
        deviation = (sum((a - mean) ** 2 for a in flat) / len(flat) + 1e-8) ** 0.5
        advantages = [[(a - mean) / deviation for a in row] for row in advantages]

    policy_losses, value_losses, squares, clipped, value_clipped = [], [], [], [], []
    for i, row in enumerate(rollouts.sequences()):
        n_prompt = len(prompts[i])
        log_p = log_probabilities(policy, row)
        hidden = critic.trunk(torch.tensor([row])).last_hidden_state[0]
        for t, advantage in enumerate(advantages[i]):
            new = log_p[n_prompt + t - 1, row[n_prompt + t]]
            ratio = torch.exp(new - float(rollouts.logprobs[i, t]))
            free, bound = -advantage * ratio, -advantage * torch.clamp(ratio, 1 - CLIP, 1 + CLIP)
            policy_losses.append(torch.maximum(free, bound))
            clipped.append(float(bound > free))
            squares.append(0.5 * float(new.detach() - float(rollouts.logprobs[i, t])) ** 2)
        for t, target in enumerate(returns[i]):
            old_value = float(rollouts.values[i, t])
            value = (critic.head(hidden[n_prompt + t - 1])[0] - critic.shift) / critic.scale
            near = torch.clamp(value, old_value - VALUE_CLIP, old_value + VALUE_CLIP)
            error, near_error = (value - target) ** 2, (near - target) ** 2
            value_losses.append(0.5 * torch.maximum(error, near_error))
            value_clipped.append(float(near_error > error))
    n_tokens, n_states = len(policy_losses), len(value_losses)
    policy_loss, value_loss = sum(policy_losses) / n_tokens, sum(value_losses) / n_states
    policy_loss.backward()
    value_loss.backward()
    return Found(
        float(policy_loss),
        float(value_loss),
        sum(squares) / n_tokens,
        sum(clipped) / n_tokens,
        sum(value_clipped) / n_states,
        sum(kls) / len(kls),
        advantages,
        {f"model.{name}": p.grad for name, p in policy.named_parameters()},
        {name: p.grad for name, p in critic.named_parameters()},
    )


@pytest.mark.parametrize(("whitened", "score_at"), [(True, "eos"), (False, "eos"), (True, "after_eos")])
def test_the_first_update_is_that_of_a_plain_implementation(world, tmp_path, whitened, score_at):
    changes = {"ppo__n_epochs": 1, "ppo__n_minibatches": 1, "optim__batch_size": 16, "optim__max_grad_norm": 1e9}
    changes |= {"ppo__gamma": GAMMA, "ppo__lam": LAM, "ppo__clip_range": CLIP, "ppo__value_clip_range": VALUE_CLIP}
    changes |= {"kl__coefficient": BETA, "ppo__whiten_advantages": whitened, "train__micro_batch_tokens": 64}
    changes |= {"reward__score_at": score_at}
    sampler, learner, prompts = ppo.build(recipe_of(ppo, world, tmp_path / "run", **changes))
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():  # a policy that has left its reference
        for parameter in learner.roles.policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    rollouts = sampler.collect(prompts[:16], 1)
    rollouts.logprobs = rollouts.logprobs + 0.3 * torch.randn(rollouts.mask.shape, generator=noise) * rollouts.mask
    rollouts.values = rollouts.values + 0.3 * torch.randn(rollouts.mask.shape, generator=noise) * rollouts.states
    rollouts.token_kl = (rollouts.logprobs - rollouts.reference_logprobs) * rollouts.mask

    roles = learner.roles
    room = 8 if score_at == "after_eos" else 0
    expected = plain_ppo(roles.policy, roles.reference, roles.critic, rollouts, whitened, room)
    gradients: list[dict[str, Tensor]] = []
    for role, optimizer in ((roles.policy, learner.policy_optimizer), (roles.critic, learner.critic_optimizer)):
        own = trained_parameters(role)
        optimizer.optimizer.register_step_pre_hook(
            lambda *_, own=own: gradients.append({name: p.grad.clone() for name, p in own.items()})
        )
    advantages, _ = learner.targets(rollouts, list(range(16)))
    figures = learner.step(rollouts, 2)

    close = {"abs": 1e-5, "rel": 1e-5}
    assert 0.1 < expected.clip_share < 0.9  # or clipping would not be compared
    assert 0.1 < expected.value_clip_share < 0.9
    assert figures["loss/policy_avg"] == pytest.approx(expected.policy_loss, **close)
    assert figures["loss/value_avg"] == pytest.approx(expected.value_loss, **close)
    assert figures["policy/approxkl_avg"] == pytest.approx(expected.approx_kl, **close)
    assert figures["policy/clipfrac_avg"] == pytest.approx(expected.clip_share)
    assert figures["val/clipfrac_avg"] == pytest.approx(expected.value_clip_share)
    assert figures["objective/kl"] == pytest.approx(expected.kl, **close)
    for i, row in enumerate(expected.advantages):
        assert advantages[i, : len(row)].tolist() == pytest.approx(row, abs=1e-5)
    for found, wanted in zip(gradients, (expected.policy_gradients, expected.value_gradients), strict=True):
        for name, gradient in found.items():
            largest = float(gradient.abs().max())
            difference = float((gradient.double() - wanted[name]).abs().max())
            assert difference <= 1e-5 * max(1.0, largest), name
