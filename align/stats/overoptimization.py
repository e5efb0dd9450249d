"""Fit and draw the scaling laws of reward model over-optimisation (Gao et al. 2022, 2210.10760).

With d = sqrt(KL(policy || initial policy)), the gain in gold score over the initial policy follows

    best of n              R(d) = d (a - b d)            highest at d = a / 2b, R = a^2 / 4b
    reinforcement learning R(d) = d (a - b log d)        highest at d = exp(a / b - 1), R = b d

a is the initial slope, b how fast over-optimisation sets in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.plots import OTHER_COLOURS, STYLE

Form = Literal["best_of_n", "rl"]


class Peak(NamedTuple):
    """Where the gold score is highest."""

    d: float
    gain: float


class Fit(NamedTuple):
    """One of the two forms with its coefficients."""

    form: Form
    a: float
    b: float
    r2: float  # share of explained variance
    n_points: int

    def gain(self, d: ArrayLike) -> NDArray[np.float64]:
        """R(d), with R(0) = 0."""
        at = np.asarray(d, dtype=np.float64)
        return _columns(self.form, at) @ np.array([self.a, self.b])

    @property
    def peak(self) -> Peak | None:
        """None if the form never falls (b <= 0), or only falls (best of n with a <= 0)."""
        if self.b <= 0 or (self.form == "best_of_n" and self.a <= 0):
            return None
        d = self.a / (2 * self.b) if self.form == "best_of_n" else math.exp(self.a / self.b - 1)
        return Peak(d, self.a**2 / (4 * self.b) if self.form == "best_of_n" else self.b * d)


def fit_best_of_n(d: ArrayLike, gain: ArrayLike) -> Fit:
    """a and b of R = d (a - b d) by least squares. d, gain: (n_points,). Raises ValueError for fewer than 3 points."""
    return _fit("best_of_n", np.asarray(d, dtype=np.float64), np.asarray(gain, dtype=np.float64))


def fit_rl(d: ArrayLike, gain: ArrayLike, least_d: float = 0.5) -> Fit:
    """a and b of R = d (a - b log d) by least squares, over the points with d >= least_d.

    The form has an infinite slope at 0, unlike any policy, so points near 0 would distort the fit (Gao et al. note the
    same). Raises ValueError for fewer than 3 points.
    """
    at, height = np.asarray(d, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    return _fit("rl", at[at >= least_d], height[at >= least_d])


def _fit(form: Form, d: NDArray[np.float64], gain: NDArray[np.float64]) -> Fit:
    n_different = len(np.unique(d))
    if len(d) < 3 or n_different < 2:
        raise ValueError(f"{len(d)} points of {n_different} different KLs: two coefficients need 3 points or more")
    columns = _columns(form, d)
    (a, b), *_ = np.linalg.lstsq(columns, gain, rcond=None)
    residual = gain - columns @ np.array([a, b])
    total = float(np.sum((gain - gain.mean()) ** 2))
    r2 = 1 - float(np.sum(residual**2)) / total if total > 0 else float("nan")
    return Fit(form, float(a), float(b), r2, len(d))


def _columns(form: Form, d: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 2): regressors; both forms are linear in a and b."""
    if form == "best_of_n":
        return np.stack([d, -d * d], axis=-1)
    log_d = np.log(d, where=d > 0, out=np.zeros_like(d))  # d log d goes to 0 with d
    return np.stack([d, -d * log_d], axis=-1)


# -- the figure -------------------------------------------------------------------------------------------------------

TITLES = {"best_of_n": "best of n", "rl": "PPO"}
ROWS = {
    "gold": "gold score above SFT, points",
    "proxy": "reward model's score above SFT,\nstandard deviations of SFT's answers",
}


def draw(result: Mapping[str, Any], folder: Path, name: str = "overoptimization") -> list[Path]:
    """Draw `result` (see align/lab/overoptimization.py) as <name>.svg and <name>.png in `folder`. Returns both paths.

    Columns: best of n, PPO. Rows: gold score with fitted curves, proxy score.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with matplotlib.rc_context(settings | STYLE):
        figure = Figure(figsize=(9.4, 6.4), layout="constrained", facecolor="white")
        grid = figure.subplots(2, 2, sharex="col", sharey="row")
        for column, form in enumerate(TITLES):
            for row, (what, label) in enumerate(ROWS.items()):
                axes = grid[row][column]
                axes.set_title(f"{TITLES[form]}: {'gold' if what == 'gold' else 'proxy'}")
                axes.set_ylabel(label if column == 0 else "")
                axes.set_xlabel("√KL to SFT, √nats" if row == 1 else "")
                for size, colour in zip(result["sizes"], OTHER_COLOURS, strict=False):
                    _series(axes, size, form, what, colour)
                axes.axhline(0, color="#b9c0c9", linewidth=0.9, zorder=0)
        grid[0][0].legend(loc="best")
        paths = [folder / f"{name}.svg", folder / f"{name}.png"]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150)
    return paths


def _series(axes: Any, size: Mapping[str, Any], form: str, what: str, colour: str) -> None:
    """One reward model's points and, of the gold score, its fitted curve."""
    points: Sequence[Mapping[str, float]] = size[form]["points"]
    d = np.array([point["d"] for point in points])
    height = np.array([point[f"{what}_gain"] for point in points])
    label = f"{size['parameters']:,} parameters"
    faint = {"alpha": 0.45} if form == "rl" else {}
    axes.plot(d, height, "o", color=colour, markersize=4, label=None if what == "gold" else label, **faint)
    fit = size[form]["fit"]
    if what == "gold" and fit is not None and len(d):
        along = np.linspace(0, d.max(), 200)
        curve = Fit(form, fit["a"], fit["b"], fit["r2"], fit["n_points"])  # type: ignore[arg-type]
        axes.plot(along, curve.gain(along), color=colour, label=label)
    elif what == "gold":
        axes.plot([], [], color=colour, label=label)
