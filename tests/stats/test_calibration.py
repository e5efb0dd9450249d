"""Calibration on numbers small enough to check by hand, on synthetic models of known calibration, and its figure."""

from xml.etree import ElementTree

import numpy as np
import pytest

from align.stats.bootstrap import Interval
from align.stats.calibration import (
    Which,
    bins_of,
    calibration,
    claims,
    correct,
    ece_interval,
    flat,
    reliability,
    reliability_panel,
)


def calibrated(n: int, seed: int, sharpen: float = 1.0) -> tuple[list[list[float]], list[int]]:
    """Questions of four choices whose answers come from the true probabilities; the model claims sharpened ones."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet([0.7] * 4, size=n)
    answers = [int(rng.choice(4, p=row)) for row in true]
    claimed = true**sharpen
    return (claimed / claimed.sum(1, keepdims=True)).tolist(), answers


def interval(rows: list[list[float]], answers: list[int], which: Which) -> Interval:
    choices = flat(rows)
    sure, question = claims(choices, which)
    gaps = correct(choices, np.array(answers), which) - sure
    return ece_interval(gaps, question, bins_of(sure, 10, 0.0), 10, seed=0)


# -- the sum over bins ------------------------------------------------------------------------------------------------


def test_a_perfectly_calibrated_judge_has_no_error():
    confidence = np.repeat([0.55, 0.75, 0.95], 100)
    correct = np.concatenate([np.arange(100) < share for share in (55, 75, 95)])
    assert reliability(confidence, correct)["ece"] == pytest.approx(0.0, abs=1e-12)


def test_one_who_is_always_sure_and_often_wrong_has_the_gap_as_error():
    found = reliability([0.9] * 10, [1] * 6 + [0] * 4)
    assert found["ece"] == pytest.approx(0.3)
    assert [(b["n"], b["confidence"], b["accuracy"]) for b in found["bins"]] == [(10, pytest.approx(0.9), 0.6)]


def test_bins_are_the_librarys():
    calibration_curve = pytest.importorskip(
        "sklearn.calibration", reason="comes with the extra lm-eval"
    ).calibration_curve
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    right = (rng.random(500) < confidence).astype(float)
    bins = reliability(confidence, right)["bins"]
    accuracy, mean = calibration_curve(right, confidence, n_bins=10)
    assert [b["accuracy"] for b in bins] == pytest.approx(accuracy.tolist())
    assert [b["confidence"] for b in bins] == pytest.approx(mean.tolist())


def test_one_bin_compares_the_means():
    found = reliability([0.5, 0.7, 0.9, 1.0], [1, 0, 1, 1], n_bins=1)
    assert found["ece"] == pytest.approx(abs(0.75 - 0.775))


def test_bins_weigh_by_what_is_in_them():
    found = reliability([0.52, 0.98, 0.98, 0.98], [1, 1, 1, 0], low=0.5)
    assert found["ece"] == pytest.approx(0.25 * 0.48 + 0.75 * abs(2 / 3 - 0.98))
    assert [(round(b["low"], 2), round(b["high"], 2)) for b in found["bins"]] == [(0.5, 0.55), (0.95, 1.0)]


# -- questions with choices -------------------------------------------------------------------------------------------


def test_every_choice_is_binned_or_the_top_one_alone():
    rows, answers = [[0.15, 0.25, 0.6], [0.85, 0.15]], [2, 1]
    every = calibration(rows, answers, "every")
    found = {round(b["low"], 1): (b["n"], round(b["confidence"], 2), b["accuracy"]) for b in every["bins"]}
    assert found == {0.1: (2, 0.15, 0.5), 0.2: (1, 0.25, 0.0), 0.6: (1, 0.6, 1.0), 0.8: (1, 0.85, 0.0)}
    assert (every["n_questions"], every["n_choices"]) == (2, 5)
    # |0.5 - 0.15| twice, |0 - 0.25|, |1 - 0.6|, |0 - 0.85|, over five choices
    assert every["ece"]["mean"] == pytest.approx((2 * 0.35 + 0.25 + 0.4 + 0.85) / 5)
    top = calibration(rows, answers, "top")
    assert {round(b["low"], 1): (b["n"], b["accuracy"]) for b in top["bins"]} == {0.6: (1, 1.0), 0.8: (1, 0.0)}
    assert top["ece"]["mean"] == pytest.approx((0.4 + 0.85) / 2)


def test_always_sure_of_the_first_and_right_in_six_of_ten():
    rows, answers = [[0.9, 0.1]] * 100, [0] * 60 + [1] * 40
    top = calibration(rows, answers, "top")
    assert top["ece"]["mean"] == pytest.approx(0.3)
    assert top["ece"]["low"] < 0.3 < top["ece"]["high"]
    assert top["ece_if_calibrated"]["high"] < top["ece"]["low"]
    assert calibration(rows, answers, "every")["ece"]["mean"] == pytest.approx(0.3)  # 0.9 and 0.1 are both 0.3 off


def test_one_bin_of_every_choice_has_no_error_since_both_means_are_the_same():
    rows, answers = calibrated(50, 1, sharpen=3.0)
    assert calibration(rows, answers, "every", n_bins=1)["ece"]["mean"] == pytest.approx(0.0, abs=1e-12)
    top = calibration(rows, answers, "top", n_bins=1)
    right = np.mean([np.argmax(row) == answer for row, answer in zip(rows, answers, strict=True)])
    assert top["ece"]["mean"] == pytest.approx(abs(right - np.mean([max(row) for row in rows])))


@pytest.mark.parametrize("which", ["every", "top"])
def test_a_calibrated_model_errs_no_more_than_one_should_and_an_overconfident_one_does(which):
    rows, answers = calibrated(4000, 2)
    found = calibration(rows, answers, which)
    expected = found["ece_if_calibrated"]
    assert expected["low"] <= found["ece"]["mean"] <= expected["high"] < 0.03
    sharper = calibration(*calibrated(4000, 2, sharpen=2.5), which)
    assert sharper["ece"]["low"] > sharper["ece_if_calibrated"]["high"]


def test_ties_for_the_top_are_right_by_their_share():
    top = calibration([[0.5, 0.5], [0.5, 0.5]], [0, 1], "top")
    assert top["ece"]["mean"] == 0.0
    (found,) = top["bins"]
    assert (found["confidence"], found["accuracy"]) == (0.5, 0.5)


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["every", "top"])
@pytest.mark.parametrize("sharpen", [1.3, 2.5])
def test_the_interval_covers_the_true_error(which, sharpen):
    """Overconfident models: the true ECE from 60,000 questions, an interval from each 300 of them."""
    rows, answers = calibrated(60_000, 99, sharpen)
    covered, truth = 0, interval(rows, answers, which).mean
    for first in range(0, len(rows), 300):
        _, low, high = interval(rows[first : first + 300], answers[first : first + 300], which)
        covered += low <= truth <= high
    assert 0.92 <= covered / 200 <= 0.99, covered


@pytest.mark.parametrize(
    ("rows", "answers", "message"),
    [
        ([], [], "0 questions and 0 answers"),
        ([[0.5, 0.5]], [0, 1], "1 questions and 2 answers"),
        ([[0.5, 0.5], [0.5, 0.6]], [0, 0], r"question 1: \[0.5, 0.6\] are no probabilities"),
        ([[float("nan"), 1.0]], [0], "question 0: .* are no probabilities"),
        ([[0.5, 0.5]], [2], "question 0: its answer is choice 2, and it has 2"),
        ([[1.0], []], [0, 0], r"question 1: \[\] are no probabilities"),
    ],
)
def test_what_is_no_probability_is_told(rows, answers, message):
    with pytest.raises(ValueError, match=message):
        calibration(rows, answers)


# -- the figure -------------------------------------------------------------------------------------------------------


def test_several_models_stand_in_one_figure():
    models = {name: calibration(*calibrated(200, 3, sharpen)) for name, sharpen in (("base", 1.0), ("a & <b>", 3.0))}
    svg, note = reliability_panel(models)
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
    told = [f"{name}, ECE {found['ece']['mean']:.3f}" for name, found in models.items()]
    assert set(told) < set(texts)
    assert f"base has ECE {models['base']['ece']['mean']:.3f}" in svg
    assert "too sure" in note


def test_the_same_models_give_the_same_figure():
    models = {"base": calibration(*calibrated(50, 3))}
    assert reliability_panel(models) == reliability_panel(models)
