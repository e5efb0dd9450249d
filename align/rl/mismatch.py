"""Is what samples what trains? Two passes give each sampled token its probability, and they differ by rounding alone.

The sampler goes on from what the model keeps of the past; training reads whole rows. A sampler that is wrong teaches
from tokens that the policy would not have said, and no loss shows it. So PPO compares the two in every step, before it
learns.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align.errors import RewardError
from align.generation.kv_cache import plain_model
from align.train.parallel import gathered, total

# The mean gap in nats a token that is still rounding. SmolLM2-135M-Instruct has 3e-6 in fp32, and 0.12 in 8 bits, where
# what else is in a batch decides what is rounded (LLM.int8()). In bf16 logits are rounded too, in steps that grow with
# them: its logits lie about 0.1 apart, and it has 0.035 to 0.046. So there the limit is this, or `OF_A_STEP` if larger.
LIMITS = {"fp32": 1e-3, "4bit": 1e-3, "bf16": 0.04, "8bit": 0.3}
OF_A_STEP = 0.6  # of the distance between neighbouring bf16 numbers, at the logits of sampled tokens


class Gap(NamedTuple):
    """|log p(sampler) - log p(trainer)| of sampled tokens, in nats."""

    mean: float
    max: float
    error: float  # standard error of the mean


def gap_over_processes(gaps: Tensor, accelerator: Any) -> Gap:
    """Over all processes. gaps: (n_tokens,) of this one."""
    n_tokens, summed, squares = total(accelerator, gaps.numel(), gaps.sum(), gaps.double().square().sum())
    mean = summed / n_tokens
    variance = max(squares / n_tokens - mean**2, 0.0)
    return Gap(mean, max(gathered(accelerator, float(gaps.max()))), math.sqrt(variance / n_tokens))


def stated_limit(quantization: str, accelerator: Any) -> float:
    """The limit for what a run computes in, whatever its logits are, in nats a token."""
    return max(LIMITS["bf16" if accelerator.mixed_precision == "bf16" else "fp32"], LIMITS.get(quantization, 0.0))


def gap_limit(quantization: str, accelerator: Any, logits: Tensor) -> float:
    """How large a mean gap is still rounding, in nats a token. logits: (n_tokens,) of sampled tokens."""
    limit = stated_limit(quantization, accelerator)
    if accelerator.mixed_precision != "bf16":
        return limit
    steps = torch.finfo(torch.bfloat16).eps * torch.exp2(logits.abs().log2().floor())
    summed, n_tokens = total(accelerator, steps.sum(), steps.numel())
    return max(limit, OF_A_STEP * summed / n_tokens)


def check_gap(gap: Gap | None, limit: float, model: Any) -> None:
    """Raises `RewardError` that names the model whose sampled tokens are not those that it would learn from.

    Two standard errors are allowed for: few tokens say little. Nothing of the step has been updated, so that the run
    is kept as it was.
    """
    assert gap is not None, "`Sampler.measure` fills it in"
    if not gap.mean - 2 * gap.error <= limit:  # also where it is no number
        raise RewardError(
            f"model.path: {type(plain_model(model)).__name__} cannot be sampled here: log probabilities of its sampled "
            f"tokens differ from those of a pass of training by {gap.mean:.3g} nats on average, {gap.max:.3g} at most, "
            f"and up to {limit:g} on average is rounding. What it keeps of the past is not what it reads, or a layer "
            "answers differently each time. Try train.precision=fp32 and no quantization, or take another model"
        )
