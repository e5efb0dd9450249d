"""Best-of-n: the KL against the known numbers, the estimator against trying every subset."""

import math
from itertools import combinations

import numpy as np
import pytest

from align.stats.best_of_n import expected_best, kl_bound


@pytest.mark.parametrize(("n", "kl"), [(1, 0), (2, 0.1931), (4, 0.6363), (16, 1.8351), (64, 3.1745), (1024, 5.9324)])
def test_kl_of_best_of_n(n, kl):
    """Gao et al. 2210.10760; worked out in papers that use it."""
    assert kl_bound(n) == pytest.approx(kl, abs=5e-5)


def test_the_bound_is_exact_for_many_different_answers():
    """Best of 2 of m equally likely answers: the k-th best wins with ((m-k+1)^2 - (m-k)^2) / m^2."""
    m = 20_000
    wins = np.array([(k**2 - (k - 1) ** 2) / m**2 for k in range(1, m + 1)])
    assert np.sum(wins * np.log(wins * m)) == pytest.approx(kl_bound(2), abs=1e-3)


def brute_force(proxy, values, n):
    """The mean over all subsets of the mean value of those that share the highest proxy."""
    found = []
    for chosen in combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in chosen)
        found.append(np.mean([values[i] for i in chosen if proxy[i] == best]))
    return np.mean(found)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("levels", [1000, 3])  # all different, and many ties
def test_the_estimator_is_the_mean_over_all_subsets(n, levels):
    chance = np.random.default_rng(1)
    proxy, values = chance.integers(0, levels, (4, 8)), chance.normal(size=(4, 8))
    found = expected_best(proxy, values, n)
    assert found == pytest.approx([brute_force(p, v, n) for p, v in zip(proxy, values, strict=True)], abs=1e-12)


def test_one_is_the_mean_and_all_is_the_maximum():
    proxy, values = np.array([[0.1, 0.7, 0.3]]), np.array([[10.0, 20.0, 60.0]])
    assert expected_best(proxy, values, 1) == pytest.approx([30.0])
    assert expected_best(proxy, values, 3) == pytest.approx([20.0])
    assert expected_best(proxy, values, 2) == pytest.approx([(20 + 20 + 60) / 3])


def test_the_estimator_is_unbiased():
    """Best of 4 of uniform scores is 4/5 on average, however many samples there are."""
    chance = np.random.default_rng(2)
    for n_samples in (4, 16):
        scores = chance.uniform(size=(40_000, n_samples))
        assert expected_best(scores, scores, 4).mean() == pytest.approx(0.8, abs=0.004)


def test_what_cannot_be_estimated_is_told():
    scores = np.zeros((2, 3))
    with pytest.raises(ValueError, match="best of 4: there are 3 samples of a prompt; give 1 to 3"):
        expected_best(scores, scores, 4)
    with pytest.raises(ValueError, match="must be of one shape"):
        expected_best(scores, np.zeros((3, 2)), 1)
    with pytest.raises(ValueError, match="best of 0: give 1 or more"):
        kl_bound(0)


def test_large_numbers_stay_finite():
    weights_sum = expected_best(np.arange(1024.0)[None], np.ones((1, 1024)), 512)
    assert weights_sum == pytest.approx([1.0])
    assert math.isfinite(kl_bound(10**9))
