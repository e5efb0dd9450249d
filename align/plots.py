"""Figures of the report, as inline SVG: training curves, gold score against KL, lengths of answers.

Uses `matplotlib.figure.Figure` without pyplot: no display, no global state. Panels are white on a dark page too. Their
size keeps letters readable at half a page's width and on a phone.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Sequence[Mapping[str, Any]]]  # rows of each stage's metrics
Point = tuple[float | None, float | None, float | None, float | None]  # a model's (KL, mean gold, low, high)

# One colour per model or series, in all figures and tables; they differ in lightness, for colour-blind readers.
COLOURS = {
    "base": "#8b929c",
    "sft": "#2f6fb0",
    "ppo": "#d9722e",
    "dpo": "#2a8f85",
    "train": "#9bb3cc",
    "validation": "#1f4e79",
    "reward model": "#7a5ea8",
    "gold": "#b98a12",
}
OTHER_COLOURS = ("#b0486b", "#5b7f2b", "#6a5acd", "#8a5a34", "#3f9bb5")

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, in the page's font
    "svg.hashsalt": "align",  # reproducible bytes
    "text.parse_math": False,  # no formulas in names such as "a$b$"
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.titlecolor": "#1c2128",
    "axes.labelcolor": "#444b55",
    "axes.edgecolor": "#b9c0c9",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ebef",
    "grid.linewidth": 0.8,
    "xtick.color": "#b9c0c9",
    "ytick.color": "#b9c0c9",
    "xtick.labelcolor": "#444b55",
    "ytick.labelcolor": "#444b55",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": "#1c2128",
    "legend.handlelength": 1.4,
    "path.simplify_threshold": 0.3,
}
SIZE = (4.7, 3.05)  # inches, of 72 units each in the SVG
MAX_DOTS = 300  # most dots of a path
SMOOTH_FROM = 60  # points; shorter curves are drawn without smoothing
SVG_STYLE = 'style="stroke-linejoin: round; stroke-linecap: butt; font-family: system-ui, sans-serif"'
KL_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Panel(NamedTuple):
    """A figure as SVG, with a note on how to read it."""

    svg: str
    note: str


class Curve(NamedTuple):
    """A figure of a stage's metrics: keys of its rows, with their labels."""

    stage: str
    title: str
    ylabel: str
    series: Mapping[str, str]
    note: str


LOSSES = {"loss/train": "train", "loss/validation": "validation"}
TRAINING = (
    Curve("pretrain", "Pretraining loss", "nats per token", LOSSES,
          "The base model learns to continue text. Validation text is never trained on."),
    Curve("sft", "SFT loss", "nats per token", LOSSES,
          "The loss on the demonstrations' answers. Once validation turns up, more epochs do not help."),
    Curve("rm", "Reward model: loss", "nats per comparison", LOSSES,
          "0.69 is chance level, less if labels tie."),
    Curve("rm", "Reward model: accuracy", "share", {"accuracy/train": "train", "accuracy/validation": "validation"},
          "How often the preferred answer gets the higher reward. 0.5 is chance level."),
    Curve("dpo", "DPO: loss", "nats per pair", LOSSES,
          "0.69 is chance level: policy and reference are the same."),
    Curve("dpo", "DPO: accuracy", "share", {"accuracy/train": "train", "accuracy/validation": "validation"},
          "How often the preferred answer has the higher implicit reward. 0.5 is chance level."),
)  # fmt: skip
PPO = (
    Curve("ppo", "Reward and gold score", "mean score", {"objective/scores": "reward model", "objective/gold": "gold"},
          "PPO sees the reward and never the gold score. If reward rises and gold does not, it over-optimises."),
    Curve("ppo", "KL from SFT", "nats per answer", {"objective/kl": "PPO"},
          "How far the policy has moved from the SFT model. The KL penalty limits it."),
    Curve("ppo", "Length of answers", "tokens", {"val/response_length": "PPO"},
          "If the reward grows only with length, the reward model is wrong and the answers are not better."),
    Curve("ppo", "Clipped updates", "share of tokens", {"policy/clipfrac_avg": "PPO"},
          "How often PPO's clipping held an update back. Above about 0.3 the steps are too large."),
)  # fmt: skip


def figures(curves: Curves, points: Mapping[str, Point]) -> dict[str, list[Panel]]:
    """The report's figures by heading. Metrics that were not measured are skipped."""
    plane = gold_against_kl(points, list(zip(*_columns(curves, "ppo", "objective/kl", "objective/gold"), strict=True)))
    note = "Gold score against KL. A path that continues to the right and turns down is over-optimised."
    groups = {
        "Training": [_drawn(wanted, curves) for wanted in TRAINING],
        "PPO": [Panel(plane, note), _reward_against_kl(curves), *(_drawn(wanted, curves) for wanted in PPO)],
    }
    return {heading: [panel for panel in group if panel.svg] for heading, group in groups.items()}


def _reward_against_kl(curves: Curves) -> Panel:
    series = {
        label: _columns(curves, "ppo", "objective/kl", key)
        for key, label in (("objective/scores", "reward model"), ("objective/gold", "gold"))
    }
    svg = curve(series, "KL from SFT, nats", "mean score", "Reward against KL")
    return Panel(
        svg,
        "The reward model's score and the gold score, by KL. If they diverge, PPO exploits the reward model's errors.",
    )


def _drawn(wanted: Curve, curves: Curves) -> Panel:
    series = {label: _columns(curves, wanted.stage, "step", key) for key, label in wanted.series.items()}
    return Panel(curve(series, "step", wanted.ylabel, wanted.title), wanted.note)


def _columns(curves: Curves, stage: str, x: str, y: str) -> tuple[list[float], list[float]]:
    """Two columns of a stage's rows, from rows that have both."""
    rows = [row for row in curves.get(stage) or [] if x in row and y in row]
    return [row[x] for row in rows], [row[y] for row in rows]


def colours(names: Iterable[str]) -> dict[str, str]:
    """The colour of each model or series: its own, or the next free one."""
    free = cycle(OTHER_COLOURS)
    return {name: COLOURS.get(name.lower()) or next(free) for name in names}


def curve(series: Mapping[str, tuple[list[float], list[float]]], xlabel: str, ylabel: str, title: str) -> str:
    """Lines of (xs, ys) by name. Long ones are drawn faint, with their running mean on top.

    Points that are not finite are left out; '' if nothing is left to draw.
    """
    finite = {name: _finite(xs, ys) for name, (xs, ys) in series.items()}
    finite = {name: points for name, points in finite.items() if len(points)}
    if not finite:
        return ""
    with canvas(xlabel, ylabel, title) as (figure, axes):
        own = colours(finite)
        for name, points in finite.items():
            _line(axes, points, name, own[name])
        _tidy_ticks(axes, finite.values())
        if len(finite) > 1:
            axes.legend(loc="best")
        ends = {name: _running_mean(points)[[0, -1], 1] for name, points in finite.items()}
        summary = "; ".join(f"{name} goes from {first:.3g} to {last:.3g}" for name, (first, last) in ends.items())
        return inline(figure, f"{title}, by {xlabel}: {summary}.")


def lengths_panel(lengths: Mapping[str, Mapping[str, Any]], title: str = "Length of answers") -> Panel:
    """Quantiles per model: dot at the median, bar over the middle 50%, line over the middle 90%."""
    with canvas("words", "", title, max(SIZE[1] * 0.55, 0.95 + 0.3 * len(lengths))) as (figure, axes):
        heights = range(len(lengths), 0, -1)
        for (_, found), colour, height in zip(lengths.items(), colours(lengths).values(), heights, strict=True):
            axes.hlines(height, found["p5"], found["p95"], color=colour, linewidth=1.4)
            axes.hlines(height, found["p25"], found["p75"], color=colour, linewidth=6, alpha=0.6)
            axes.plot([found["median"]], [height], "o", color=colour, markersize=6, markeredgecolor="white")
        axes.set_yticks(list(heights), list(lengths))
        axes.set_ylim(0.4, len(lengths) + 0.6)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        summary = "; ".join(f"{name} has a median of {found['median']:.0f} words" for name, found in lengths.items())
        svg = inline(figure, f"{title}: {summary}.")
    return Panel(svg, "Dot: median; bar: middle 50% of answers; line: middle 90%.")


def gold_against_kl(
    points: Mapping[str, Point],
    path: Sequence[tuple[float, float]],
    title: str = "Gold score against KL",
) -> str:
    """Each model at (KL, gold) with its interval, and the path of a PPO run.

    With over-optimisation the path continues to the right and turns down (Gao et al. 2023, "Scaling Laws for Reward
    Model Overoptimization", with the same square-root axis). `points` maps a model to (KL in nats, mean, low, high). An
    estimate of a small KL may be negative; it is drawn at 0. A model without KL is drawn as a horizontal line. Returns
    '' if there is no path and fewer than two models have a KL.
    """
    seen = {name: point for name, point in points.items() if _is_number(point[1])}
    way = _finite([kl for kl, _ in path], [gold for _, gold in path])
    placed = [name for name, (kl, *_) in seen.items() if _is_number(kl)]
    if not len(way) and len(placed) < 2:
        return ""
    with canvas("KL from SFT, nats (square-root scale)", "gold score", title) as (figure, axes):
        if len(way):
            _way(axes, way)
        own = colours(points)
        for name, point in seen.items():
            _model(axes, name, point, own[name])
        kls = [kl for kl, *_ in seen.values() if kl is not None and math.isfinite(kl)]
        _square_root_axis(axes, max([*way[:, 0], *kls], default=0.0))
        axes.legend(loc="best")
        return inline(figure, f"{title}: " + "; ".join(_described(name, point) for name, point in seen.items()) + ".")


# -- drawing -----------------------------------------------------------------------------------------------------------


def _line(axes: Axes, points: NDArray[np.float64], name: str, own: str) -> None:
    smooth = _running_mean(points)
    if smooth is not points:
        axes.plot(points[:, 0], points[:, 1], color=own, alpha=0.28, linewidth=0.9)
    marker = "o" if len(points) == 1 else None  # a line of one point would be invisible
    axes.plot(smooth[:, 0], smooth[:, 1], color=own, label=name, marker=marker, markersize=4)


def _tidy_ticks(axes: Axes, drawn: Iterable[NDArray[np.float64]]) -> None:
    """Few ticks on the x axis, integers for integer steps."""
    from matplotlib.ticker import MaxNLocator

    whole = all(bool(np.all(points[:, 0] % 1 == 0)) for points in drawn)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole, min_n_ticks=1))


def _way(axes: Axes, way: NDArray[np.float64]) -> None:
    """Every step as a dot, from pale to full over the run, and the running mean as a line."""
    from matplotlib.colors import to_rgba

    points = np.column_stack([np.sqrt(np.maximum(way[:, 0], 0)), way[:, 1]])
    smooth, dots = _running_mean(points), points[:: max(1, len(points) // MAX_DOTS)]
    shades = [to_rgba(COLOURS["ppo"], alpha) for alpha in np.linspace(0.15, 0.6, len(dots))]
    axes.scatter(dots[:, 0], dots[:, 1], s=9, c=shades, linewidths=0)
    axes.plot(smooth[:, 0], smooth[:, 1], color=COLOURS["ppo"], alpha=0.75, linewidth=1.4, label="PPO while it trained")


def _model(axes: Axes, name: str, point: Sequence[float | None], own: str) -> None:
    kl, mean, low, high = (value if _is_number(value) else None for value in point)
    assert mean is not None  # the caller draws only models with a mean
    if kl is None:
        axes.axhline(mean, color=own, linestyle=(0, (4, 3)), linewidth=1.4, label=f"{name} (KL not known)")
        return
    span = None if low is None or high is None else [[max(mean - low, 0)], [max(high - mean, 0)]]
    style: dict[str, Any] = {
        "markersize": 7,
        "markeredgecolor": "white",
        "capsize": 3.5,
        "elinewidth": 1.6,
        "zorder": 5,
    }
    axes.errorbar([math.sqrt(max(kl, 0))], [mean], yerr=span, fmt="o", color=own, label=name, **style)


def _square_root_axis(axes: Axes, largest: float) -> None:
    """A square-root axis of nats, with round ticks that do not overlap."""
    reach = math.sqrt(max(1e-3, largest))
    ticks: list[float] = []
    for kl in KL_TICKS:
        if math.sqrt(kl) <= reach * 1.05 and (not ticks or math.sqrt(kl) - math.sqrt(ticks[-1]) > reach / 9):
            ticks.append(kl)
    axes.set_xlim(-0.05 * reach, 1.07 * reach)
    axes.set_xticks([math.sqrt(kl) for kl in ticks], [f"{kl:g}" for kl in ticks])


# -- points ------------------------------------------------------------------------------------------------------------


def _finite(xs: Sequence[float], ys: Sequence[float]) -> NDArray[np.float64]:
    """(n, 2): the pairs with two finite numbers."""
    pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if _is_number(x) and _is_number(y)]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _running_mean(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred running mean of x and y over a twentieth of the points; over fewer points at the ends."""
    n = len(points)
    if n < SMOOTH_FROM:
        return points
    sums = np.vstack([np.zeros(2), np.cumsum(points, axis=0)])
    upper, lower = np.minimum(np.arange(n) + n // 40 + 1, n), np.maximum(np.arange(n) - n // 40, 0)
    return (sums[upper] - sums[lower]) / (upper - lower)[:, None]


def _described(name: str, point: Sequence[float | None]) -> str:
    kl, mean, low, high = point
    text = f"{name} has gold score {mean:.2f}"
    if _is_number(low) and _is_number(high):
        text += f" [{low:.2f}, {high:.2f}]"
    return text + (f" at KL {kl:.2f}" if _is_number(kl) else "")


# -- SVG ---------------------------------------------------------------------------------------------------------------


@contextmanager
def canvas(xlabel: str, ylabel: str, title: str, height: float = SIZE[1]) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure in the project's style. `height`: inches."""
    import matplotlib
    from matplotlib.figure import Figure

    # The defaults first: a user's own matplotlibrc may ask for LaTeX. Not the backend: rc_context does not restore it.
    settings: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with matplotlib.rc_context(settings | STYLE):
        figure = Figure(figsize=(SIZE[0], height), layout="constrained", facecolor="white")
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, title=title)
        yield figure, axes


def inline(figure: Figure, label: str) -> str:
    """The figure's <svg> element: no header, metadata or links; sized by the page, with a label for screen readers."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # it would contain a web site and the time
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    head, body = svg[svg.index("<svg") :].strip().split(">", 1)
    size = re.search(r'viewBox="[^"]*"', head)
    assert size is not None  # every SVG that matplotlib writes has one
    # Its style sheet would apply to the whole page, so the same style is set on the element and inherited.
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(label)}" {size[0]} {SVG_STYLE}>'
    )
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r' d="[^"]*"', lambda path: _rounded(path[0]), body.replace("xlink:href=", "href="))
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    return _own_ids(head + body)


def _rounded(path: str) -> str:
    """A path rounded to hundredths of a unit, without line breaks: half the bytes, no visible change."""
    return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path.split()).join((" ", "")))


def _own_ids(svg: str) -> str:
    """Make ids unique on a page: remove unused ids, prefix the others with a hash."""
    own = "f" + hashlib.sha256(svg.encode(errors="replace")).hexdigest()[:8]
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{own}-", svg)
