"""Two ways to ask, compared while the answers come in: a test that may be looked at after every question.

A p-value counts on a number of questions that was fixed beforehand. Who looks after every batch and stops at the first
p < 0.05 finds a difference far too often where there is none. This test holds at any look.

Only questions on which exactly one of the two is right say anything. If both ways are equally good, each such question
falls to A with probability 1/2. The Bayes factor of "with some probability, any as likely as any other" against that,
after n of them, k of which fell to A, is

    B(k + 1, n - k + 1) * 2^n = 2^n / ((n + 1) * (n choose k))

Where there is no difference it is a martingale that begins at 1, so that it ever reaches 1 / alpha has at most
probability alpha (Ville 1939; Robbins 1970, "Statistical Methods Related to the Law of the Iterated Logarithm"). The
test stops when it does. The shares that it would not yet have rejected are an interval that holds at any look too.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from align.stats.bootstrap import Interval


class Look(NamedTuple):
    """What the questions so far say."""

    n_only_a: int  # questions on which A alone is right
    n_only_b: int
    bayes_factor: float  # for a difference, over none
    decision: Literal["a", "b", "undecided"]  # which is better
    share: Interval  # of the questions that only one gets right, those that A does


def look(n_only_a: int, n_only_b: int, alpha: float = 0.05) -> Look:
    """The test after so many questions. Raises ValueError for counts below 0, or alpha outside 0 and 1."""
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
    """Logarithm of the Bayes factor of any share of A's against this one."""
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
