"""Over-optimisation curve: points of best-of-n and PPO (gold and proxy score by KL), fits, JSON, CSV and figure.

`align.lab.overoptimization` measures the points; its docstring lists the keys of the result.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.stats.best_of_n import expected_best, kl_bound
from align.stats.bootstrap import bootstrap_mean
from align.stats.overoptimization import Fit, draw, fit_best_of_n, fit_rl

TABLE = ("method", "layers", "parameters", "n_or_step", "kl", "d", "gold", "gold_gain", "proxy", "proxy_gain", "fit")


def start_of(samples: list[dict[str, Any]]) -> dict[str, float]:
    """The start of all curves: the SFT model's gold score."""
    gold = [value for row in samples for value in row["gold"]]
    return {"gold": sum(gold) / len(gold), "n_prompts": len(samples)}


def start_of_proxy(scores: list[list[float]]) -> dict[str, float]:
    """The same by a reward model: mean and standard deviation of its scores, (n_prompts, n_samples)."""
    return {"proxy": float(np.mean(scores)), "proxy_std": float(np.std(scores)) or 1.0}


def best_of_n_points(
    sizes: Sequence[int], samples: list[dict[str, Any]], scores: list[list[float]], seed: int
) -> list[dict[str, float]]:
    """Gold and proxy score of best-of-n, estimated without bias from N samples per prompt; KL by its formula."""
    golds = [row["gold"] for row in samples]
    points = []
    for n in sorted(set(sizes)):
        gold = bootstrap_mean(expected_best(scores, golds, n), seed=seed)
        point = {"n": n, "kl": kl_bound(n), "gold": gold.mean, "gold_low": gold.low, "gold_high": gold.high}
        points.append({**point, "proxy": float(expected_best(scores, scores, n).mean())})
    return points


def rl_points(folder: Path) -> list[dict[str, float]]:
    """KL, gold and proxy score that PPO logged at every step, before its update."""
    names = {"kl": "objective/kl", "gold": "objective/gold", "proxy": "objective/scores"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{"step": row["step"], **{name: row[key] for name, key in names.items()}} for row in rows]


def gained(points: list[dict[str, float]], start: Mapping[str, float]) -> list[dict[str, float]]:
    """Add to each point d = sqrt(KL) and its gains over the start."""
    for point in points:
        point["d"] = math.sqrt(max(point["kl"], 0.0))  # an estimate of a small KL can come out negative
        point["gold_gain"] = point["gold"] - start["gold"]
        point["proxy_gain"] = (point["proxy"] - start["proxy"]) / start["proxy_std"]
    return points


def fitted(form: str, points: list[dict[str, float]], least_d: float = 0.0) -> dict[str, Any] | None:
    """Fit of Gao's form to the gains in gold; None with too few points."""
    d, gains = [point["d"] for point in points], [point["gold_gain"] for point in points]
    try:
        fit = fit_best_of_n(d, gains) if form == "best_of_n" else fit_rl(d, gains, least_d)
    except ValueError as error:
        print(f"{form}: not fitted: {error}", flush=True)
        return None
    found = {"a": fit.a, "b": fit.b, "r2": fit.r2 if math.isfinite(fit.r2) else None, "n_points": fit.n_points}
    return found | {"peak": fit.peak._asdict() if fit.peak else None}


def report(result: dict[str, Any], folder: Path) -> None:
    """Write result, table and figure, and print the coefficients."""
    write_whole(folder / "overoptimization.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    write_table(result, folder / "overoptimization.csv")
    paths = draw(result, folder)
    for line in summary(result):
        print(line)
    print(f"figure: {paths[1]}")


def summary(result: dict[str, Any]) -> Iterator[str]:
    """A line per reward model and method: coefficients, and the highest gold score."""
    yield f"SFT: gold {result['start']['gold']:.3f}"
    for size in result["sizes"]:
        for form, name in (("best_of_n", "best of n"), ("rl", "PPO")):
            fit = size[form]["fit"]
            highest = max(size[form]["points"], key=lambda point: point["gold"])
            line = f"{size['parameters']:,} parameters, {name}: gold at most {highest['gold']:.3f} "
            line += f"at KL {highest['kl']:.2f}"
            if fit:
                line += f"; a {fit['a']:.3f}, b {fit['b']:.3f}, R² {fit['r2'] or 0:.2f}"
                peak = fit["peak"]
                line += f", turns at KL {peak['d'] ** 2:.1f}" if peak else ", does not turn"
            yield line


def write_table(result: dict[str, Any], path: Path) -> None:
    """Write all points as CSV, with measured and fitted gain in gold."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(TABLE)
        for size in result["sizes"]:
            for form in ("best_of_n", "rl"):
                given = size[form]["fit"]
                fit = given and Fit(form, given["a"], given["b"], 0.0, 0)  # type: ignore[arg-type]
                for point in size[form]["points"]:
                    fitted_gain = float(fit.gain(point["d"])) if fit else ""
                    numbers = [point[name] for name in TABLE[4:-1]]
                    where = point["n"] if form == "best_of_n" else point["step"]
                    table.writerow([form, size["layers"], size["parameters"], where, *numbers, fitted_gain])


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically."""
    writing = path.with_name(f".{path.name}.writing")
    writing.write_text(text, encoding="utf-8")
    writing.replace(path)
