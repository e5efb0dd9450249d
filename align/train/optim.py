"""The optimizer and the learning rate schedule, a pure function of the step, so resuming has no schedule to restore."""

from __future__ import annotations

import math
from typing import Any

import torch

from align.errors import UserError
from align.models.adapters import trained_parameters
from align.sections import Optim


def build_optimizer(settings: Optim, *modules: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW over the trained parameters of `modules`. Weight decay applies to matrices only."""
    trained = list({id(p): p for module in modules for p in trained_parameters(module).values()}.values())
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    arguments: dict[str, Any] = {"lr": settings.learning_rate, "betas": settings.betas, "eps": settings.eps}
    if settings.name == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except Exception as error:  # a broken package or library may raise anything
            raise UserError(
                f"optim.name = adamw8bit: this machine does not support it ({type(error).__name__}: {error}). Install "
                "or upgrade bitsandbytes (pip install -U bitsandbytes), or set optim.name=adamw"
            ) from None
        return AdamW8bit(groups, **arguments)
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)
    return torch.optim.AdamW(groups, fused=fused, **arguments)


def learning_rate(settings: Optim, step: int, n_steps: int) -> float:
    """The learning rate of step `step` (from 0) of `n_steps`: linear warm-up, then the schedule down to final_ratio."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / max(1, n_steps - settings.warmup_steps)
    shape = 1 - progress if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return settings.learning_rate * (settings.final_ratio + (1 - settings.final_ratio) * shape)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = value
