"""Best-of-n sampling: KL bound and expected score of the best of n answers by a reward model.

Best-of-n is the simplest optimisation against a reward model: it trains nothing, and its KL to the sampled model has a
formula. So it is the baseline of PPO (Stiennon et al. 2020, 2009.01325; Nakano et al. 2021,
2112.09332; Gao et al. 2022, 2210.10760).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def kl_bound(n: int) -> float:
    """log n - (n - 1) / n, in nats per answer: KL between best-of-n and the sampled model.

    Exact if no two answers have the same score, as with continuous scores; an upper bound if answers repeat, as short
    ones do (Beirami et al. 2024, 2401.01879). Raises ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"best of {n}: give 1 or more")
    return math.log(n) - (n - 1) / n


def expected_best(proxy: ArrayLike, values: ArrayLike, n: int) -> NDArray[np.float64]:
    """Expected value of the best of n answers by the proxy, estimated from N >= n samples per prompt.

    The mean of `values` at the winner over all C(N, n) subsets of the samples: sorted by proxy, the i-th sample wins
    C(i - 1, n - 1) of them,

        sum_i C(i - 1, n - 1) / C(N, n) * value_(i)

    which is unbiased for every n (Nakano et al. 2021, 2112.09332, their appendix on best-of-n; Gao et al. use it too).
    Samples of equal proxy win equally often, so each takes their mean value.

    Args:
        proxy: (n_prompts, N), the score that selects.
        values: (n_prompts, N), the score to report of the selected answer: the same, or gold.
        n: number of answers to select from.

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
