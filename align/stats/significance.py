"""Paired significance tests of two models on the same prompts: McNemar's test and the permutation test.

A p-value is the probability of a difference at least as large if there is none. It does not say how large the
difference is: for that see the intervals of `align.stats.bootstrap`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.stats.bootstrap import CHUNK_ELEMENTS, Interval, bootstrap_mean, checked, unvaried

EXACT_UP_TO = 16  # differing prompts: 65,536 sign patterns


class Comparison(NamedTuple):
    """A paired comparison."""

    difference: Interval  # mean of a - b over prompts
    p: float  # two-sided


def mcnemar(a_correct: ArrayLike, b_correct: ArrayLike) -> Comparison:
    """McNemar's exact test (1947): is A right more often than B?

    Only prompts on which exactly one is right count; under the null hypothesis each is A's with probability 1/2, so the
    p-value is binomial. The i-th of both belong to the i-th prompt. Raises ValueError for anything but True, False, 1
    or 0.
    """
    from scipy.stats import binomtest

    a, b = _pair(a_correct, b_correct)
    for name, values in (("a_correct", a), ("b_correct", b)):
        if wrong := [value for value in np.unique(values) if value not in (0.0, 1.0)]:
            raise ValueError(f"{name} holds {wrong[0]:g}: each must be True or False")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    same = np.ptp(a - b) == 0  # then the bootstrap interval would have width 0
    return Comparison(unvaried(float(a[0] - b[0]), len(a), lowest=-1.0) if same else bootstrap_mean(a - b), p)


def paired_permutation(
    a_scores: ArrayLike, b_scores: ArrayLike, n_permutations: int = 10_000, seed: int = 0
) -> Comparison:
    """Paired permutation test: does A score higher than B?

    Without a difference, A's and B's scores of a prompt are exchangeable (Fisher 1935; Dror et al. 2018, "The
    Hitchhiker's Guide to Testing Statistical Significance in NLP"). All sign patterns are tried if at most 16 prompts
    differ, else `n_permutations` random ones, and the p-value is (1 + those as extreme) / (1 + n_permutations)
    (Phipson & Smyth 2010), which is never 0.
    """
    a, b = _pair(a_scores, b_scores)
    differences = (a - b)[a != b]
    observed, exact = abs(float(differences.sum())), len(differences) <= EXACT_UP_TO
    total = 2 ** len(differences) if exact else n_permutations
    rng = np.random.default_rng(seed)
    n_rows, n_extreme = max(1, CHUNK_ELEMENTS // max(1, len(differences))), 0
    for done in range(0, total, n_rows):
        n = min(n_rows, total - done)
        signs = _all_signs(done, n, len(differences)) if exact else rng.integers(0, 2, (n, len(differences))) * 2 - 1
        n_extreme += int((np.abs(signs @ differences) >= observed * (1 - 1e-12)).sum())
    return Comparison(bootstrap_mean(a - b), n_extreme / total if exact else (1 + n_extreme) / (1 + total))


def _all_signs(first: int, n: int, n_signs: int) -> NDArray[np.int64]:
    """(n, n_signs) of -1 and 1: the bits of the numbers from `first` on."""
    return (np.arange(first, first + n)[:, None] >> np.arange(n_signs) & 1) * 2 - 1


def _pair(a_values: ArrayLike, b_values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = checked(a_values, "the first"), checked(b_values, "the second")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}: give both the same prompts")
    return a, b
