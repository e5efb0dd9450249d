"""Tables (cells are strings) and figures (images) of the lead's page."""

from __future__ import annotations

import base64
from typing import Any

from align.stats.bootstrap import Interval
from apps.label.figures import ALT
from apps.label.lead import View
from apps.label.status import duration
from apps.label.summary import Dispute, Summary
from apps.store.progress import Progress
from apps.store.reading import AnnotatedTask

Rows = list[list[str]]

NOTHING = "–"
# Headings.
PROGRESS = ("figure", "value")
FIGURES = ("figure", "value", "95% interval", "meaning")
QUALITY = ("person", "agreement", "tau", "first shown wins", "ties", "fast", "gold passed")
COUPLES = ("first", "second", "tasks both ranked", "agreement", "tau", "kappa")
FLAGS = ("flag", "share of answers", "95% interval", "alpha", "interval of alpha")
MODELS = ("rank", "model", "score", "95% interval", "possible ranks", "won", "comparisons")
UNRANKED = ("model", "comparisons", "reason")
GOLDS = ("task", "people", "passed")
REMARKS = ("person", "about", "rating", "flags", "comment")


def sections(view: View) -> dict[str, list[dict[str, Any]]]:
    """The tables and figures of the page, by section."""
    s = view.summary
    return {
        "progress": [
            table("Progress", PROGRESS, progress(view.progress)),
            figure(view, "pace"),
            figure(view, "seconds"),
        ],
        "agreement": [
            table("Do annotators agree?", FIGURES, agreement(s)),
            table("By person", QUALITY, quality(s)),
            figure(view, "agreement"),
            table("Pairs of people", COUPLES, couples(s)),
            table("Flags", FLAGS, flags(s)),
        ],
        "habits": [table("How people work", FIGURES, habits(s)), figure(view, "position")],
        "gold": [figure(view, "gold"), table("Gold tasks, hardest first", GOLDS, golds(s))],
        "models": [
            table("Leaderboard", MODELS, models(s)),
            figure(view, "leaderboard"),
            table("Not ranked", UNRANKED, unranked(s)),
        ],
    }


def table(title: str, columns: tuple[str, ...] | list[str], rows: Rows) -> dict[str, Any]:
    """A table for the page."""
    return {"title": title, "columns": list(columns), "rows": rows}


def figure(view: View, name: str) -> dict[str, Any]:
    """A figure as an image, so that no name of a model or person in it can run code. `src` is "" if there is none."""
    svg = view.figures[name]
    encoded = base64.b64encode(svg.encode()).decode()
    return {"alt": ALT[name], "src": f"data:image/svg+xml;base64,{encoded}" if svg else ""}


def progress(p: Progress) -> Rows:
    """The project's progress."""
    pace = NOTHING if p.seconds_left is None else f"{duration(p.seconds_left)} ({p.n_last_day:,} in the last day)"
    left = NOTHING if p.person_seconds_left is None else duration(p.person_seconds_left)
    return [
        ["rankings", f"{p.n_rankings:,} of {p.n_wanted:,} ({p.n_rankings / p.n_wanted if p.n_wanted else 0:.0%})"],
        ["tasks done", f"{p.n_done:,} of {p.n_tasks:,}"],
        ["being worked on", f"{p.n_held:,}"],
        ["skipped, reported, beyond the overlap", f"{p.n_skipped:,}, {p.n_flagged:,}, {p.n_extra:,}"],
        ["one ranking (median of the latest)", NOTHING if p.median_seconds is None else duration(p.median_seconds)],
        ["work left", left],
        ["time left at the pace of the last day", pace],
    ]


def agreement(s: Summary) -> Rows:
    """Agreement between people."""
    return [
        ["pairwise agreement", *_share(s.agreement.pairwise),
         "share of pairs on which two people agree, of the pairs that both decide; 50% is chance"],
        ["Kendall's tau-b", *_number(s.agreement.tau), "of two people's rankings of a task; 0 is chance, 1 perfect"],
        ["Krippendorff's alpha, ranks", *_number(s.alpha_ranks), "0 is chance, 1 perfect; ordinal"],
        ["Krippendorff's alpha, ratings", *_number(s.alpha_ratings), "the same for the ratings from 1 to 7"],
        ["tasks ranked by two or more", f"{s.n_shared:,}", "", "the basis of these figures"],
    ]  # fmt: skip


def habits(s: Summary) -> Rows:
    """How people work."""
    median = NOTHING if s.median_seconds is None else duration(s.median_seconds)
    return [
        ["time for a ranking (median of all)", median, "", "a ranking in less than a third of it counts as fast"],
        ["ties", *_share(s.ties), "of all pairs of answers"],
        ["skipped", *_share(s.skipped), "of all annotations"],
        ["reported", *_share(s.flagged), "of all annotations: something was wrong with the task"],
        ["all bad", *_share(s.all_bad), "of all rankings"],
        ["first shown wins", *_share(s.position.earlier),
         "share of decided pairs won by the answer shown earlier; 50% if positions do not matter"],
        ["p of a trend over positions", _p(s.position.p_trend), "", "Page's test: small if early or late ones win"],
        ["p of any effect of positions", _p(s.position.p_any), "", "Friedman's test: small if positions matter"],
        ["gold tasks passed", *_share(s.gold), f"of {s.n_gold:,} rankings of gold tasks"],
    ]  # fmt: skip


def quality(s: Summary) -> Rows:
    """Each person's rankings compared with the others'."""
    return [
        [
            one.name,
            _shown(one.agreement.pairwise, True),
            _shown(one.agreement.tau, False),
            _shown(one.earlier, True),
            _percent(one.ties),
            _percent(one.fast),
            NOTHING if one.gold is None else f"{_shown(one.gold, True)} of {one.n_gold}",
        ]
        for one in s.people
    ]


def couples(s: Summary) -> Rows:
    """Every two people who ranked the same tasks."""
    return [
        [one.first, one.second, f"{one.n_tasks:,}", _percent(one.pairwise), _two(one.tau), _two(one.kappa)]
        for one in s.couples
    ]


def flags(s: Summary) -> Rows:
    """How often flags are set, and whether people agree on them."""
    return [[flag.name, *_share(flag.share), *_number(flag.alpha)] for flag in s.flags]


def models(s: Summary) -> Rows:
    """The leaderboard."""
    return [
        [
            str(one.place),
            one.model,
            *_number(one.score),
            f"{one.place_low} to {one.place_high}" if one.place_low < one.place_high else str(one.place_low),
            f"{one.share:.0%}",
            f"{one.n_votes:,}",
        ]
        for one in s.places
    ]


def unranked(s: Summary) -> Rows:
    """Models that cannot be ranked."""
    return [[one.model, f"{one.n_votes:,}", one.reason] for one in s.no_places]


def golds(s: Summary) -> Rows:
    """Gold tasks, hardest first."""
    return [[str(one.task), str(one.n), f"{one.n_passed} ({one.n_passed / one.n:.0%})"] for one in s.gold_tasks]


def dispute(one: Dispute) -> str:
    """A dispute as one line."""
    return f"{one.n_people} people, agreement {one.agreement:.0%}, tau {_two(one.tau)}"


def rankings(task: AnnotatedTask) -> tuple[list[str], Rows]:
    """Headings and rows: each person's rank of each answer, by the answer's number in the task."""
    rows = []
    for annotation in task.annotations:
        version = annotation.last
        if version.status != "submitted":
            state = "reported" if version.status == "flagged" else version.status
            rows.append([annotation.person, state, *[NOTHING] * len(task.answers), NOTHING])
            continue
        state = "decides" if annotation.final else "extra" if version.extra else "ranked"
        state = "all bad" if version.payload["all_bad"] else state
        ranks = [NOTHING] * len(task.answers) if annotation.ranks is None else [str(rank) for rank in annotation.ranks]
        rows.append([annotation.person, state, *ranks, duration(version.seconds)])
    return ["person", "", *(f"answer {n}" for n in range(1, len(task.answers) + 1)), "time"], rows


def remarks(task: AnnotatedTask) -> Rows:
    """Each person's rating, flags and comment on each answer, and their comment on the task."""
    rows = []
    for annotation in task.annotations:
        for n, answer in enumerate(annotation.answers, start=1):
            if answer["rating"] is not None or answer["flags"] or answer["comment"]:
                rating = NOTHING if answer["rating"] is None else str(answer["rating"])
                rows.append([annotation.person, f"answer {n}", rating, ", ".join(answer["flags"]), answer["comment"]])
        payload = annotation.last.payload
        if whole := ": ".join(filter(None, (payload.get("reason"), payload.get("comment")))):
            rows.append([annotation.person, "the task", NOTHING, "", whole])
    return rows


def _share(found: Interval | None) -> list[str]:
    return [NOTHING, ""] if found is None else [f"{found.mean:.1%}", f"{found.low:.1%} to {found.high:.1%}"]


def _number(found: Interval | None) -> list[str]:
    return [NOTHING, ""] if found is None else [_two(found.mean), f"{_two(found.low)} to {_two(found.high)}"]


def _shown(found: Interval | None, is_share: bool) -> str:
    if found is None:
        return NOTHING
    if is_share:
        return f"{found.mean:.0%} [{100 * found.low:.0f}, {100 * found.high:.0f}]"
    return f"{_two(found.mean)} [{_two(found.low)}, {_two(found.high)}]"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"


def _two(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _p(value: float | None) -> str:
    return NOTHING if value is None else "below 0.001" if value < 0.001 else f"{value:.3f}"
