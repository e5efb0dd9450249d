"""Is what samples what trains? Two passes give each sampled token its probability, and they differ by rounding alone.

The sampler goes on from what the model keeps of the past; training reads whole rows. A sampler that is wrong teaches
from tokens that the policy would not have said, and no loss shows it. So PPO compares the two in every step, before it
learns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from align.errors import UserError
from align.rl.past import plain_model
from align.train.parallel import gathered, total

# The mean gap in nats a token that is still rounding. SmolLM2-135M-Instruct has 3e-6 in fp32 and 0.035 in bf16, where
# logits are rounded too; the demo's model 0.002 in bf16 and 0.003 in 8 bits.
LIMITS = {"fp32": 1e-3, "4bit": 1e-3, "bf16": 0.045, "8bit": 0.045}


class Gap(NamedTuple):
    """|log p(sampler) - log p(trainer)| of sampled tokens, in nats."""

    mean: float
    max: float


def gap_over_processes(gaps: Tensor, accelerator: Any) -> Gap:
    """Mean and maximum over all processes. gaps: (n_tokens,) of this one."""
    n_tokens, summed = total(accelerator, gaps.numel(), gaps.sum())
    return Gap(summed / n_tokens, max(gathered(accelerator, float(gaps.max()))))


def gap_limit(quantization: str, accelerator: Any) -> float:
    """How large a mean gap is still rounding, in nats a token."""
    return max(LIMITS["bf16" if accelerator.mixed_precision == "bf16" else "fp32"], LIMITS.get(quantization, 0.0))


def check_gap(gap: Gap | None, limit: float, model: Any) -> None:
    """Raises `UserError` that names the model whose sampled tokens are not those that it would learn from."""
    assert gap is not None, "`Sampler.measure` fills it in"
    if not gap.mean <= limit:  # also where it is no number
        raise UserError(
            f"model.path: {type(plain_model(model)).__name__} cannot be sampled here: log probabilities of its sampled "
            f"tokens differ from those of a pass of training by {gap.mean:.3g} nats on average, {gap.max:.3g} at most, "
            f"and up to {limit:g} on average is rounding. What it keeps of the past is not what it reads, or a layer "
            "answers differently each time. Try train.precision=fp32 and no quantization, or take another model"
        )
