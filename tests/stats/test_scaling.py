"""Accuracy by size: what is counted, over what it is resampled, and the words, table and figure that come of it."""

import csv
from random import Random

import pytest

from align.stats.scaling import Answer, difference, draw, point, right, summary, write_table


def answers(*shares: float, n_about: int = 50, n_phrasings: int = 4) -> list[Answer]:
    """For each seed this share of the pairs is answered rightly, in all phrasings or in none."""
    return [
        Answer(seed, f"pair {about}", about < share * n_about)
        for seed, share in enumerate(shares, start=1)
        for about in range(n_about)
        for _ in range(n_phrasings)
    ]


def test_the_likeliest_choice_is_right_or_not():
    assert right([0, 1, 2], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.3, 0.5]]) == [True, False, True]


def test_a_point_has_its_interval_over_what_is_asked_about():
    found = point(answers(0.5, 0.7))
    assert found["by_seed"] == [0.5, 0.7]
    low, mean, high = (found["accuracy"][key] for key in ("low", "mean", "high"))
    assert mean == pytest.approx(0.6)
    # 100 pairs, not 400 phrasings: a standard error of sqrt(0.6 * 0.4 / 100) = 0.049
    assert (high - low) / 2 == pytest.approx(1.98 * 0.049, rel=0.15)


def test_where_all_are_right_the_interval_is_no_certainty():
    found = point(answers(1.0))["accuracy"]
    assert (found["mean"], found["high"]) == (1.0, 1.0)
    assert 0.9 < found["low"] < 0.95  # 50 pairs


def test_a_difference_is_paired_by_question():
    rng = Random(1)
    hard = [rng.random() < 0.5 for _ in range(200)]  # half of the questions nobody can answer
    smallest = [Answer(1, str(i), not is_hard and i % 10 != 0) for i, is_hard in enumerate(hard)]
    largest = [Answer(1, str(i), not is_hard) for i, is_hard in enumerate(hard)]
    gap = difference(smallest, largest)
    assert gap.mean == pytest.approx(sum(i % 10 == 0 and not is_hard for i, is_hard in enumerate(hard)) / 200)
    assert gap.low > 0
    assert gap.high - gap.low < 0.08  # unpaired it would be 0.2


def test_no_difference_and_every_question_different():
    same = difference(answers(0.5), answers(0.5))
    assert same.mean == 0
    assert same.low < 0 < same.high
    worse = difference(answers(1.0), answers(0.0))
    assert (worse.mean, worse.low) == (-1, -1)
    assert -1 < worse.high < -0.8


def result() -> dict:
    small = {"trap": answers(0.9, 0.9), "control": answers(0.3, 0.3), "other": answers(0.5, 0.5)}
    large = {"trap": answers(0.2, 0.3), "control": answers(0.6, 0.5), "other": answers(0.5, 0.5)}
    tasks = {
        name: {"n_questions": 400, "chance": 0.5, "difference": difference(small[name], large[name])._asdict()}
        for name in small
    }
    sizes = [
        {
            "parameters": n,
            "loss": [1.0, 1.2],
            "seconds": [5.0, 7.0],
            "tasks": {name: point(found) for name, found in given.items()},
        }
        for n, given in ((43_904, small), (1_890_432, large))
    ]
    return {"tasks": tasks, "sizes": sizes}


def test_the_summary_says_where_larger_is_worse():
    trap, control, other = summary(result())
    assert trap.startswith("trap: 90.0% with 43,904 parameters, 25.0% with 1,890,432; -65.0 points [")
    assert trap.endswith("larger is worse")
    assert control.endswith("larger is better")
    assert other.endswith("no difference")


def test_the_table_has_a_row_for_each_size_and_task(tmp_path):
    write_table(result(), tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["task"], row["parameters"]) for row in rows[:4]] == [
        ("trap", "43904"),
        ("control", "43904"),
        ("other", "43904"),
        ("trap", "1890432"),
    ]
    assert (float(rows[3]["accuracy"]), float(rows[3]["loss"]), float(rows[3]["seconds"])) == (0.25, 1.1, 6.0)


def test_the_figure_names_tasks_and_sizes(tmp_path):
    svg, png = draw(result(), tmp_path, "scaling")
    text = svg.read_text()
    assert all(
        f">{word}<" in text for word in ("trap", "control", "other", "44k", "1.9M", "parameters (dotted: guessing)")
    )
    assert png.stat().st_size > 10_000
