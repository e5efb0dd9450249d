"""KL between policy and reference: estimators, and controllers of the penalty's coefficient."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from torch import Tensor


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, estimator: Literal["k1", "k2", "k3"]) -> Tensor:
    """An estimate of KL(policy || reference) at each sampled token, in nats, of the arguments' shape.

    With d = log pi - log pi_ref: k1 = d, unbiased, of either sign; k2 = d^2 / 2, biased, but its gradient in the policy
    is that of KL; k3 = exp(-d) - 1 + d, unbiased, never negative (Schulman 2020, joschu.net/blog/kl-approx.html).
    Each is 0 where d = 0, as on padding, so that sums over an answer need no mask. Raises ValueError for any other.
    """
    difference = logprobs - reference_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference.square()
    if estimator == "k3":
        return (-difference).exp() - 1 + difference
    raise ValueError(f"unknown KL estimator {estimator!r}")


def full_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(policy || reference) over the whole vocabulary, (n, vocabulary) logits each. Returns (n,) in nats."""
    logp, logq = logits.float().log_softmax(-1), reference_logits.float().log_softmax(-1)
    difference = (logp - logq).masked_fill(logp == float("-inf"), 0.0)  # tokens that neither can sample
    return (logp.exp() * difference).sum(-1)


class KLController(Protocol):
    """Holds the coefficient beta of the KL penalty and updates it after every batch."""

    coefficient: float

    def update(self, kl: float, n_episodes: int) -> None:
        """Update beta from the mean KL of a batch: nats per answer, summed over its tokens."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class FixedKL:
    """Constant beta (InstructGPT: 0.02; N+: 0.05)."""

    def __init__(self, coefficient: float) -> None:
        self.coefficient = coefficient

    def update(self, kl: float, n_episodes: int) -> None:
        return

    def state_dict(self) -> dict[str, Any]:
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.coefficient = state_dict["coefficient"]


class AdaptiveKL(FixedKL):
    """beta is steered to a target KL: e = clip(KL / target - 1, -0.2, 0.2); beta *= 1 + e * n_episodes / horizon.

    Ziegler et al. 2019 (1909.08593), section 2.2, as in lm-human-preferences.
    """

    def __init__(self, coefficient: float, target: float, horizon: int) -> None:
        super().__init__(coefficient)
        self.target, self.horizon = target, horizon

    def update(self, kl: float, n_episodes: int) -> None:
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coefficient *= 1 + error * n_episodes / self.horizon
