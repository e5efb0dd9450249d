"""Accuracy by model size (inverse scaling): points with intervals, difference of largest and smallest, CSV and figure.

A question may have several phrasings and models of several seeds: topics within each seed's world are resampled.
`by_seed` shows how much training runs differ.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from align.plots import OTHER_COLOURS, STYLE
from align.stats.bootstrap import Interval, bootstrap_mean, ratios, unvaried

CHANCE: dict[str, Any] = {"linestyle": (0, (1, 3)), "linewidth": 1.1, "zorder": 1}


class Answer(NamedTuple):
    """Whether one question was answered correctly."""

    seed: int
    about: str
    right: bool


def right(answers: Sequence[int], probabilities: Sequence[Sequence[float]]) -> list[bool]:
    """Whether the right choice of each question is the likeliest. `answers`: indices of the right choices."""
    likeliest = [max(range(len(row)), key=row.__getitem__) for row in probabilities]
    return [one == other for one, other in zip(likeliest, answers, strict=True)]


def point(answers: Sequence[Answer]) -> dict[str, Any]:
    """{accuracy: interval, by_seed} of one model size on one task."""
    clusters = [f"{answer.seed} {answer.about}" for answer in answers]
    zeros, ones = np.zeros(len(answers)), np.ones(len(answers))
    (found,) = ratios(clusters, zeros, [answer.right for answer in answers], ones, 1)
    assert found is not None  # there is at least one question
    seeds = sorted({answer.seed for answer in answers})
    by_seed = [_mean([answer.right for answer in answers if answer.seed == seed]) for seed in seeds]
    return {"accuracy": found._asdict(), "by_seed": by_seed}


def difference(smallest: Sequence[Answer], largest: Sequence[Answer]) -> Interval:
    """Accuracy of the largest minus that of the smallest model, on the same questions."""
    gaps: dict[tuple[int, str], list[int]] = {}
    for one, other in zip(smallest, largest, strict=True):
        gaps.setdefault((other.seed, other.about), []).append(other.right - one.right)
    means = [_mean(values) for values in gaps.values()]
    if len(set(means)) == 1:
        return unvaried(means[0], len(means), lowest=-1.0)
    return bootstrap_mean(means)


def summary(result: Mapping[str, Any]) -> Iterator[str]:
    """A line per task: from the smallest model to the largest."""
    sizes = result["sizes"]
    for name, task in result["tasks"].items():
        first, last = (size["tasks"][name]["accuracy"]["mean"] for size in (sizes[0], sizes[-1]))
        gap = task["difference"]
        verdict = "larger is worse" if gap["high"] < 0 else "larger is better" if gap["low"] > 0 else "no difference"
        yield (
            f"{name}: {first:.1%} with {sizes[0]['parameters']:,} parameters, {last:.1%} with "
            f"{sizes[-1]['parameters']:,}; {100 * gap['mean']:+.1f} points "
            f"[{100 * gap['low']:+.1f}, {100 * gap['high']:+.1f}]: {verdict}"
        )


def write_table(result: Mapping[str, Any], path: Path) -> None:
    """Write CSV with a row per size and task."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["task", "parameters", "accuracy", "low", "high", "loss", "seconds"])
        for size in result["sizes"]:
            for name, found in size["tasks"].items():
                run = (_mean(size["loss"]), _mean(size["seconds"]))
                table.writerow([name, size["parameters"], *found["accuracy"].values(), *run])


def draw(result: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Draw accuracy by parameters as <name>.svg and <name>.png in `folder`. Returns both paths."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with matplotlib.rc_context(settings | STYLE):
        figure = Figure(figsize=(6.6, 4.2), layout="constrained", facecolor="white")
        axes = figure.add_subplot(xlabel="parameters (dotted: guessing)", ylabel="accuracy", title="Accuracy by size")
        x = [size["parameters"] for size in result["sizes"]]
        for (task, info), colour in zip(result["tasks"].items(), OTHER_COLOURS, strict=False):
            rows = [size["tasks"][task]["accuracy"] for size in result["sizes"]]
            means = [row["mean"] for row in rows]
            span = [[row["mean"] - row["low"] for row in rows], [row["high"] - row["mean"] for row in rows]]
            axes.errorbar(x, means, yerr=span, fmt="o-", color=colour, markersize=5, capsize=3, label=task)
            axes.axhline(info["chance"], color=colour, **CHANCE)
        axes.set_xscale("log")
        axes.set_xticks(x, [_short(n) for n in x])
        axes.minorticks_off()
        axes.set_ylim(-0.02, 1.02)
        figure.legend(loc="outside lower center", ncols=3)
        paths = [folder / f"{name}.svg", folder / f"{name}.png"]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150)
    return paths


def _short(n: int) -> str:
    return f"{n / 1e6:.2g}M" if n >= 1e5 else f"{n / 1e3:.2g}k"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
