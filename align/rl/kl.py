"""The leash: how much a nat of KL to the reference costs."""

from __future__ import annotations

from typing import Any, Protocol


class KLController(Protocol):
    """Holds the coefficient beta of the KL penalty, and changes it after every batch."""

    coefficient: float

    def update(self, kl: float, n_episodes: int) -> None:
        """Takes in the mean KL of a batch, in nats an answer, summed over its tokens."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class FixedKL:
    """beta stays as it is (InstructGPT: 0.02; N+: 0.05)."""

    def __init__(self, coefficient: float) -> None:
        self.coefficient = coefficient

    def update(self, kl: float, n_episodes: int) -> None:
        return

    def state_dict(self) -> dict[str, Any]:
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.coefficient = state_dict["coefficient"]


class AdaptiveKL(FixedKL):
    """beta follows a target: e = clip(KL / target - 1, -0.2, 0.2); beta *= 1 + e * n_episodes / horizon.

    Ziegler et al. 2019 (1909.08593), section 2.2, as in lm-human-preferences.
    """

    def __init__(self, coefficient: float, target: float, horizon: int) -> None:
        super().__init__(coefficient)
        self.target, self.horizon = target, horizon

    def update(self, kl: float, n_episodes: int) -> None:
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coefficient *= 1 + error * n_episodes / self.horizon
