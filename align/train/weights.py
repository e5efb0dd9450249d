"""Copies of the trained weights: their exponential moving average, and the best ones so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from align.models.adapters import trained_parameters


class WeightCopy:
    """A copy of a module's trained parameters."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.values = {name: p.detach().clone() for name, p in trained_parameters(module).items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the copied weights into the module within the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in trained_parameters(self.module).items():
            held = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name] = held

    def state_dict(self) -> dict[str, Any]:
        return dict(self.values)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in self.values.items():
            value.copy_(state_dict[name])


class Average(WeightCopy):
    """average <- decay * average + (1 - decay) * weights, after every step (InstructGPT, appendix C.4: 0.992)."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        super().__init__(module)
        self.decay = decay

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average with the current weights."""
        for name, parameter in trained_parameters(self.module).items():
            self.values[name].lerp_(parameter, 1 - self.decay)


class Best(WeightCopy):
    """The weights of the step with the highest value of a metric."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module)
        self.height, self.step = -math.inf, 0

    @torch.no_grad()
    def offer(self, height: float, step: int) -> None:
        """Copies the module's current weights if `height` is above all earlier values."""
        if height > self.height:
            self.height, self.step = height, step
            for name, parameter in trained_parameters(self.module).items():
                self.values[name].copy_(parameter)

    def state_dict(self) -> dict[str, Any]:
        return {"height": self.height, "step": self.step, "values": dict(self.values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.height, self.step = state_dict["height"], state_dict["step"]
        super().load_state_dict(state_dict["values"])
