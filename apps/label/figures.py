"""The lead's figures as self-contained SVG (see `align.plots`)."""

from __future__ import annotations

from itertools import accumulate

from align.plots import curve
from align.report.charts import columns, forest, spread
from align.stats.bootstrap import Interval
from apps.label.summary import FAST, Summary

ALT = {
    "pace": "Rankings done by day",
    "seconds": "How long rankings took",
    "agreement": "Each person's agreement with the others",
    "position": "Share of comparisons won at each position on the page",
    "leaderboard": "Model scores",
    "gold": "Gold tasks passed by each person",
}


def figures(found: Summary) -> dict[str, str]:
    """Figures by name: pace, seconds, position, agreement, gold, leaderboard. '' if there is nothing to draw."""
    return {
        "pace": _pace(found),
        "seconds": _seconds(found),
        "position": columns(
            found.position.by_place,
            "position on the page",
            "share of comparisons won",
            "Does the position matter?",
            0.5,
        ),
        "agreement": _agreement(found),
        "gold": forest({person.name: person.gold for person in found.people}, "share passed", "Gold tasks by person"),
        "leaderboard": forest(
            {place.model: place.score for place in found.places}, "score, nats above the mean", "Models", 0.0
        ),
    }


def _pace(found: Summary) -> str:
    if not found.by_day:
        return ""
    first = found.by_day[0][0]
    days = [float(day - first + 1) for day, _ in found.by_day]
    done = [float(n) for n in accumulate(n for _, n in found.by_day)]
    return curve(
        {"rankings": ([0.0, *days], [0.0, *done])}, "days since the first ranking", "rankings", "Rankings done"
    )


def _seconds(found: Summary) -> str:
    marks = (
        {} if found.median_seconds is None else {"median": found.median_seconds, "fast": FAST * found.median_seconds}
    )
    return spread(found.seconds, "seconds", "Time for a ranking", marks)


def _agreement(found: Summary) -> str:
    rows: dict[str, Interval | None] = {"all": found.agreement.pairwise}
    rows |= {person.name: person.agreement.pairwise for person in found.people}
    return forest(rows, "share of decided pairs ordered alike; dashed: chance", "Agreement with the others", 0.5)
