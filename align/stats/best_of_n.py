"""Best-of-n sampling: draw n answers, keep the one that the reward model likes best. What it costs and what it yields.

It is the simplest way to optimise against a reward model, trains nothing, and its distance from the model that is
sampled has a formula; so it is the measure that PPO is held to (Stiennon et al. 2020, 2009.01325; Nakano et al. 2021,
2112.09332; Gao et al. 2022, 2210.10760).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def kl_bound(n: int) -> float:
    """log n - (n - 1) / n, in nats an answer: KL between best-of-n and the model that is sampled.

    Exact where no two answers have the same score, as for continuous scores; where answers recur, as short ones do, it
    is an upper bound (Beirami et al. 2024, 2401.01879). Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"best of {n}: give 1 or more")
    return math.log(n) - (n - 1) / n


def expected_best(proxy: ArrayLike, values: ArrayLike, n: int) -> NDArray[np.float64]:
    """The expected value of the answer that wins among n by the proxy, estimated from N >= n samples of each prompt.

    The mean of `values` at the winner over all C(N, n) subsets of the samples, without drawing any: sorted by proxy,
    the i-th sample wins C(i - 1, n - 1) of them,

        sum_i C(i - 1, n - 1) / C(N, n) * value_(i)

    which is unbiased for every n (Nakano et al. 2021, 2112.09332, their appendix on best-of-n; Gao et al. use it too).
    Samples of equal proxy win alike often, so each stands for their mean.

    Args:
        proxy: (n_prompts, N), the score that chooses.
        values: (n_prompts, N), what is wanted of the chosen: the same score, or the gold one.
        n: how many are drawn.

    Returns:
        (n_prompts,). Raises ValueError for shapes that differ or n outside 1..N.
    """
    chooses, wanted = np.asarray(proxy, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if chooses.ndim != 2 or chooses.shape != wanted.shape:
        raise ValueError(f"proxy {chooses.shape} and values {wanted.shape} must be of one shape (n_prompts, n_samples)")
    n_samples = chooses.shape[1]
    if not 1 <= n <= n_samples:
        raise ValueError(f"best of {n}: there are {n_samples} samples of a prompt; give 1 to {n_samples}")
    n_subsets = math.comb(n_samples, n)
    weights = np.array([math.comb(i, n - 1) / n_subsets for i in range(n_samples)])  # i samples score lower
    order = np.argsort(chooses, axis=1, kind="stable")
    shared = np.stack([_mean_of_ties(row, value) for row, value in zip(chooses, wanted, strict=True)])
    return np.take_along_axis(shared, order, axis=1) @ weights


def _mean_of_ties(keys: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value replaced by the mean of those with the same key."""
    _, group = np.unique(keys, return_inverse=True)
    return (np.bincount(group, weights=values) / np.bincount(group))[group]
