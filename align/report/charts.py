"""Charts as SVG in the style of `plots.py`: forest plot and columns of intervals, histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from align.plots import COLOURS, SIZE, canvas, inline
from align.stats.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.24  # inches for a row of a forest
MAX_ROWS = 40
LONGEST_NAME = 24
DASHED: dict[str, Any] = {"color": "#8b929c", "linestyle": "--", "linewidth": 1.2, "zorder": 1}


def forest(rows: Mapping[str, Interval | None], xlabel: str, title: str, reference: float | None = None) -> str:
    """A dot with its interval for each name, the first on top, and a dashed line at `reference`.

    None rows are skipped; '' if none is left.
    """
    known = [(name, row) for name, row in rows.items() if row is not None][:MAX_ROWS]
    if not known:
        return ""
    with canvas(xlabel, "", title, max(SIZE[1] * 0.55, 0.95 + ROW * len(known))) as (figure, axes):
        heights = range(len(known), 0, -1)
        _intervals(axes, [row for _, row in known], heights, horizontal=True)
        if reference is not None:
            axes.axvline(reference, **DASHED)
        axes.set_yticks(list(heights), [_short(name) for name, _ in known])
        axes.set_ylim(0.4, len(known) + 0.6)
        axes.grid(visible=False, axis="y")
        shown = "; ".join(f"{name} {_as_text(row)}" for name, row in known)
        return inline(figure, f"{title}, {xlabel}: {shown}.")


def columns(
    rows: Sequence[Interval | None], xlabel: str, ylabel: str, title: str, reference: float | None = None
) -> str:
    """A dot with its interval above each number from 1 on. '' if there is none."""
    known = [(number, row) for number, row in enumerate(rows, start=1) if row is not None]
    if not known:
        return ""
    with canvas(xlabel, ylabel, title) as (figure, axes):
        _intervals(axes, [row for _, row in known], [number for number, _ in known], horizontal=False)
        if reference is not None:
            axes.axhline(reference, **DASHED)
        axes.set_xticks([number for number, _ in known])
        axes.set_xlim(0.5, len(rows) + 0.5)
        shown = "; ".join(f"{number} {_as_text(row)}" for number, row in known)
        return inline(figure, f"{title}, {ylabel} by {xlabel}: {shown}.")


def spread(values: Sequence[float], xlabel: str, title: str, marks: Mapping[str, float] | None = None) -> str:
    """Histogram of positive numbers on a logarithmic axis, with named marks. '' without values."""
    from matplotlib.ticker import LogFormatter

    known = [value for value in values if value > 0]
    if not known:
        return ""
    with canvas(xlabel, "rankings", title) as (figure, axes):
        low, high = min(known), max(known)
        edges = np.geomspace(low * 0.98, high * 1.02, 31)
        axes.hist(known, edges.tolist(), color=COLOURS["train"])
        axes.set_xscale("log")
        for (name, place), line in zip((marks or {}).items(), ("-", "--", ":"), strict=False):
            axes.axvline(place, color=COLOURS["validation"], linestyle=line, linewidth=1.4, label=name)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(LogFormatter())  # few plain numbers, without TeX
        axes.grid(visible=False, axis="x")
        if marks:
            axes.legend(loc="best")
        marked = "; ".join(f"{name} {place:.3g}" for name, place in (marks or {}).items())
        return inline(figure, f"{title}: {len(known)} from {low:.3g} to {high:.3g} {xlabel}; {marked}.")


def _intervals(axes: Axes, rows: Sequence[Interval], places: Sequence[int], horizontal: bool) -> None:
    means = [row.mean for row in rows]
    span = [[max(0.0, row.mean - row.low) for row in rows], [max(0.0, row.high - row.mean) for row in rows]]
    colour = COLOURS["sft"]
    if horizontal:
        axes.errorbar(means, list(places), xerr=span, fmt="o", color=colour, markersize=5, capsize=2.5, elinewidth=1.5)
    else:
        axes.errorbar(list(places), means, yerr=span, fmt="o", color=colour, markersize=5, capsize=2.5, elinewidth=1.5)


def _short(name: str) -> str:
    """Shorten a long name: its start and more of its end, where paths of models differ."""
    if len(name) <= LONGEST_NAME:
        return name
    n_first = LONGEST_NAME // 3
    return f"{name[:n_first]}…{name[n_first + 1 - LONGEST_NAME :]}"


def _as_text(row: Interval) -> str:
    return f"{row.mean:.3g} [{row.low:.3g}, {row.high:.3g}]"
