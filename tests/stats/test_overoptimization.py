"""Gao's forms: what was put in is found again, and the peaks are where calculus puts them."""

import math

import numpy as np
import pytest

from align.stats.overoptimization import Fit, draw, fit_best_of_n, fit_rl

D = np.linspace(0.0, 4.0, 60)


def noise(seed, size=0.02):
    return np.random.default_rng(seed).normal(scale=size, size=len(D))


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.2), (0.5, 0.3), (0.8, 0.0)])
def test_best_of_n_is_found_again(a, b):
    fit = fit_best_of_n(D, D * (a - b * D) + noise(1))
    assert (fit.a, fit.b) == pytest.approx((a, b), abs=0.02)
    assert fit.n_points == 60
    exact = fit_best_of_n(D, D * (a - b * D))
    assert (exact.a, exact.b, exact.r2) == pytest.approx((a, b, 1.0), abs=1e-9)


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.6), (0.5, 0.9)])
def test_rl_is_found_again_without_the_points_near_zero(a, b):
    at = np.maximum(D, 1e-12)
    clean = at * (a - b * np.log(at))
    misleading = np.where(D < 0.5, 3.0, clean + noise(2))
    fit = fit_rl(D, misleading, least_d=0.5)
    assert (fit.a, fit.b) == pytest.approx((a, b), abs=0.03)
    assert fit.n_points == int((D >= 0.5).sum())


def test_peaks_are_where_the_curve_is_highest():
    fine = np.linspace(0, 12, 200_001)
    for fit in (Fit("best_of_n", 1.2, 0.3, 1, 9), Fit("rl", 1.2, 0.6, 1, 9)):
        curve = fit.gain(fine)
        assert fit.peak is not None
        assert fit.peak.d == pytest.approx(fine[curve.argmax()], abs=1e-3)
        assert fit.peak.gain == pytest.approx(curve.max(), abs=1e-6)
    assert Fit("best_of_n", 1.2, 0.3, 1, 9).peak == pytest.approx((2.0, 1.2))  # a/2b, a^2/4b
    assert Fit("rl", 1.2, 0.6, 1, 9).peak == pytest.approx((math.e, 0.6 * math.e))  # exp(a/b - 1), b d


def test_a_curve_that_does_not_turn_has_no_peak():
    assert Fit("best_of_n", 1.0, -0.1, 1, 9).peak is None
    assert Fit("best_of_n", -1.0, 0.1, 1, 9).peak is None
    assert Fit("rl", 1.0, 0.0, 1, 9).peak is None


def test_all_begin_at_zero():
    assert Fit("best_of_n", 1.2, 0.3, 1, 9).gain(0.0) == 0
    assert Fit("rl", 1.2, 0.3, 1, 9).gain(0.0) == 0


def test_too_few_points_are_told():
    with pytest.raises(ValueError, match="two coefficients need 3 points or more"):
        fit_best_of_n([0.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="2 points of 2 different KLs"):
        fit_rl([0.0, 0.1, 0.2, 1.0, 2.0], [0, 0, 0, 1, 1], least_d=0.5)


@pytest.mark.parametrize("fitted", [True, False])
def test_the_figure_is_drawn(tmp_path, fitted):
    def side(form):
        points = [{"d": d, "gold_gain": d * (1 - 0.2 * d), "proxy_gain": d} for d in (0.0, 1.0, 2.0)]
        return {"points": points, "fit": {"a": 1.0, "b": 0.2, "r2": 1.0, "n_points": 3} if fitted else None}

    sizes = [{"parameters": n, "best_of_n": side("best_of_n"), "rl": side("rl")} for n in (1000, 2000, 3000)]
    svg, png = draw({"sizes": sizes}, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert all(f"{n:,} parameters" in text for n in (1000, 2000, 3000))
    assert "best of n: gold" in text
    assert "PPO: proxy" in text
