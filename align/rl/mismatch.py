"""Sampler-trainer mismatch: the gap between the sampler's and the trainer's log probabilities of sampled tokens.

The sampler decodes from a cache; training reads whole rows. The two should differ by rounding alone. A wrong sampler
yields tokens that the policy would not sample, and no loss shows it. So PPO compares the two in every step, before the
update.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align.errors import RewardError
from align.generation.kv_cache import plain_model
from align.train.parallel import gathered, total

# The largest mean gap, in nats a token, that counts as rounding. SmolLM2-135M-Instruct: 3e-6 in fp32, and 0.12 in 8
# bits, where rounding depends on the rest of the batch (LLM.int8()). In bf16 logits are rounded too, in steps that grow
# with them: 0.1 for this model, which has gaps of 0.035 to 0.046. There the limit is this or `OF_A_STEP`, if larger.
LIMITS = {"fp32": 1e-3, "4bit": 1e-3, "bf16": 0.04, "8bit": 0.3}
OF_A_STEP = 0.6  # times the distance between neighbouring bf16 numbers at the logits of sampled tokens


class Gap(NamedTuple):
    """|log p(sampler) - log p(trainer)| of sampled tokens, in nats."""

    mean: float
    max: float
    error: float  # standard error of the mean


def gap_over_processes(gaps: Tensor, accelerator: Any) -> Gap:
    """The gap over all processes. gaps: (n_tokens,) of this process."""
    n_tokens, summed, squares = total(accelerator, gaps.numel(), gaps.sum(), gaps.double().square().sum())
    mean = summed / n_tokens
    variance = max(squares / n_tokens - mean**2, 0.0)
    return Gap(mean, max(gathered(accelerator, float(gaps.max()))), math.sqrt(variance / n_tokens))


def stated_limit(quantization: str, accelerator: Any) -> float:
    """The limit for a run's precision, without regard to its logits, in nats a token."""
    return max(LIMITS["bf16" if accelerator.mixed_precision == "bf16" else "fp32"], LIMITS.get(quantization, 0.0))


def gap_limit(quantization: str, accelerator: Any, logits: Tensor) -> float:
    """The largest mean gap that counts as rounding, in nats a token. logits: (n_tokens,) of sampled tokens."""
    limit = stated_limit(quantization, accelerator)
    if accelerator.mixed_precision != "bf16":
        return limit
    steps = torch.finfo(torch.bfloat16).eps * torch.exp2(logits.abs().log2().floor())
    summed, n_tokens = total(accelerator, steps.sum(), steps.numel())
    return max(limit, OF_A_STEP * summed / n_tokens)


def check_gap(gap: Gap | None, limit: float, model: Any) -> None:
    """Raise `RewardError` if sampler and trainer differ by more than `limit`.

    Two standard errors are subtracted, since few tokens say little. The step has changed nothing yet, so the run can be
    resumed.
    """
    assert gap is not None, "`Sampler.measure` fills it in"
    if not gap.mean - 2 * gap.error <= limit:  # also true for NaN
        raise RewardError(
            f"model.path: {type(plain_model(model)).__name__} cannot be sampled here: log probabilities of its sampled "
            f"tokens differ from those of a training pass by {gap.mean:.3g} nats on average, {gap.max:.3g} at most; "
            f"up to {limit:g} on average is rounding. Its cache does not hold what it reads, or a layer is random in "
            "eval mode. Try train.precision=fp32 and no quantization, or take another model"
        )
