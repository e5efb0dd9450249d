"""Sequential test of two models or prompts, for A/B tests: valid after every question, with early stopping.

A p-value assumes a fixed number of questions. Looking after every batch and stopping at the first p < 0.05 finds false
differences far too often. This test is valid at every look.

Only questions on which exactly one of the two is right count. If both are equally good, A is the right one with
probability 1/2. The Bayes factor of a uniform prior on that probability against 1/2, after n such questions, k of them
for A, is

    B(k + 1, n - k + 1) * 2^n = 2^n / ((n + 1) * (n choose k))

Without a difference it is a martingale that starts at 1, so the probability that it ever reaches 1 / alpha is at most
alpha (Ville 1939; Robbins 1970, "Statistical Methods Related to the Law of the Iterated Logarithm"). The test stops
there. The shares that are not rejected form an interval that is valid at every look too.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from align.stats.bootstrap import Interval


class Look(NamedTuple):
    """The state of the test after some questions."""

    n_only_a: int  # questions on which A alone is right
    n_only_b: int
    bayes_factor: float  # evidence for a difference against none
    decision: Literal["a", "b", "undecided"]  # which is better
    share: Interval  # of A among questions that exactly one gets right


def look(n_only_a: int, n_only_b: int, alpha: float = 0.05) -> Look:
    """The state of the test. Raises ValueError for negative counts or alpha outside (0, 1)."""
    if n_only_a < 0 or n_only_b < 0:
        raise ValueError(f"{n_only_a} and {n_only_b} are no counts")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}: it must lie between 0 and 1, as 0.05 does")
    log_factor = log_bayes_factor(n_only_a, n_only_b)
    decided = log_factor >= -math.log(alpha)
    better: Literal["a", "b"] = "a" if n_only_a > n_only_b else "b"
    n = n_only_a + n_only_b
    low, high = _bound(n_only_a, n_only_b, alpha), 1 - _bound(n_only_b, n_only_a, alpha)
    factor = math.exp(min(log_factor, 700.0))
    return Look(
        n_only_a, n_only_b, factor, better if decided else "undecided", Interval(_share(n_only_a, n), low, high)
    )


def log_bayes_factor(n_only_a: int, n_only_b: int, share: float = 0.5) -> float:
    """Log Bayes factor of a uniform prior on A's share against this share."""
    from scipy.special import betaln, xlogy

    log_any = betaln(n_only_a + 1, n_only_b + 1)
    return float(log_any - xlogy(n_only_a, share) - xlogy(n_only_b, 1 - share))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.5


def _bound(n_only_a: int, n_only_b: int, alpha: float) -> float:
    """The smallest share of A that is not rejected. Below the observed share the factor falls as the share rises."""
    from scipy.optimize import brentq

    def excess(share: float) -> float:
        return log_bayes_factor(n_only_a, n_only_b, share) + math.log(alpha)

    return float(brentq(excess, 1e-300, _share(n_only_a, n_only_a + n_only_b))) if n_only_a else 0.0
