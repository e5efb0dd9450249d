"""The lead's tables: a summary's figures as rows of words."""

from __future__ import annotations

from datetime import UTC, datetime

from align.evals.stats import Interval
from apps.label.lead import Page
from apps.label.status import duration
from apps.label.summary import Dispute, Summary
from apps.store.progress import Progress
from apps.store.reading import Judged

Rows = list[list[str]]

NOTHING = "–"
# Headings, with the width of each column.
PROGRESS = {"figure": "40%", "value": "60%"}
FIGURES = {"figure": "22%", "value": "10%", "95% interval": "18%", "how to read it": "50%"}
PEOPLE = {"person": "22%", "role": "22%", "ranked": "10%", "skipped": "10%", "reported": "11%", "median": "9%",
          "last": "16%"}  # fmt: skip
QUALITY = {"person": "16%", "agreement": "15%", "tau": "17%", "first shown wins": "15%", "ties": "8%", "fast": "8%",
           "gold passed": "21%"}  # fmt: skip
COUPLES = {
    "first": "22%",
    "second": "22%",
    "tasks both ranked": "17%",
    "agreement": "13%",
    "tau": "13%",
    "kappa": "13%",
}
FLAGS = {"flag": "32%", "share of answers": "17%", "95% interval": "17%", "alpha": "17%", "interval of alpha": "17%"}
MODELS = {"place": "9%", "model": "27%", "score": "9%", "95% interval": "17%", "places it may have": "14%",
          "won": "9%", "comparisons": "15%"}  # fmt: skip
UNRANKED = {"model": "27%", "comparisons": "15%", "why it has no place": "58%"}
GOLDS = {"task": "33%", "people": "33%", "passed": "34%"}
REMARKS = {"person": "16%", "about": "12%", "rating": "8%", "flags": "24%", "comment": "40%"}


def progress(p: Progress) -> Rows:
    """How far the project is."""
    pace = NOTHING if p.seconds_left is None else f"{duration(p.seconds_left)} ({p.n_last_day:,} in the last day)"
    left = NOTHING if p.person_seconds_left is None else duration(p.person_seconds_left)
    return [
        ["rankings", f"{p.n_rankings:,} of {p.n_wanted:,} ({p.n_rankings / p.n_wanted if p.n_wanted else 0:.0%})"],
        ["tasks done", f"{p.n_done:,} of {p.n_tasks:,}"],
        ["open at somebody's", f"{p.n_held:,}"],
        ["skipped, reported, beyond the overlap", f"{p.n_skipped:,}, {p.n_flagged:,}, {p.n_extra:,}"],
        ["one ranking (median of the latest)", NOTHING if p.median_seconds is None else duration(p.median_seconds)],
        ["work left", left],
        ["time left at the pace of the last day", pace],
    ]


def agreement(s: Summary) -> Rows:
    """Whether people agree."""
    return [
        ["pairwise agreement", *_share(s.agreement.pairwise),
         "of the pairs that two people both decide, those they decide alike; 50% is a coin's toss"],
        ["Kendall's tau-b", *_number(s.agreement.tau), "of two people's rankings of a task; 0 is chance, 1 perfect"],
        ["Krippendorff's alpha, ranks", *_number(s.alpha_ranks), "0 is chance, 1 perfect; ordinal"],
        ["Krippendorff's alpha, ratings", *_number(s.alpha_ratings), "the same for the 1 to 7 of each answer"],
        ["tasks that two or more ranked", f"{s.n_shared:,}", "", "what these figures rest on"],
    ]  # fmt: skip


def habits(s: Summary) -> Rows:
    """How people work."""
    median = NOTHING if s.median_seconds is None else duration(s.median_seconds)
    return [
        ["time for a ranking (median of all)", median, "", "done in less than a third of it, a ranking is called fast"],
        ["ties", *_share(s.ties), "of all pairs of answers"],
        ["skipped", *_share(s.skipped), "of all tasks that somebody dealt with"],
        ["reported", *_share(s.flagged), "the same: something was wrong with the task"],
        ["all bad", *_share(s.all_bad), "of all rankings"],
        ["first shown wins", *_share(s.position.earlier),
         "of decided pairs, those won by the answer shown earlier; 50% if places do not matter"],
        ["p of a trend over places", _p(s.position.p_trend), "", "Page's test: small if earlier or later places win"],
        ["p of any effect of places", _p(s.position.p_any), "", "Friedman's test: small if places matter at all"],
        ["gold tasks passed", *_share(s.gold), f"of {s.n_gold:,} rankings of tasks whose answer is known"],
    ]  # fmt: skip


def people(page: Page) -> Rows:
    """A row for everybody: who has done something, who has not, and who was invited."""
    done = {person.name: person for person in page.view.progress.people}
    rows = []
    for one in page.people:
        row = [one.name, one.role if one.active else f"{one.role}, shut out"]
        if (found := done.get(one.name)) is None:
            rows.append([*row, *[NOTHING] * (len(PEOPLE) - len(row))])
            continue
        row += [f"{found.n_submitted:,}", f"{found.n_skipped:,}", f"{found.n_flagged:,}"]
        row += [NOTHING if found.median_seconds is None else duration(found.median_seconds)]
        rows.append([*row, NOTHING if found.last_at is None else clock(found.last_at)])
    for invited in page.invited:
        role = f"{invited.role}, invited until {clock(invited.expires_at)}"
        rows.append([invited.name or f"{invited.id} (they choose)", role, *[NOTHING] * (len(PEOPLE) - 2)])
    return rows


def names(page: Page) -> list[str]:
    """Whom an admin can do something about."""
    invited = [one.name or one.id for one in page.invited]
    return list(dict.fromkeys([*(one.name for one in page.people), *invited]))


def quality(s: Summary) -> Rows:
    """How each person's rankings compare with the others'."""
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
    """How often answers are flagged, and whether people agree on it."""
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
    """Models without a place."""
    return [[one.model, f"{one.n_votes:,}", one.reason] for one in s.no_places]


def golds(s: Summary) -> Rows:
    """Gold tasks, the hardest first."""
    return [[str(one.task), str(one.n), f"{one.n_passed} ({one.n_passed / one.n:.0%})"] for one in s.gold_tasks]


def dispute(one: Dispute) -> str:
    """A task on which people differ, as one line."""
    return f"task {one.task}: {one.n_people} people, agreement {one.agreement:.0%}, tau {_two(one.tau)}"


def rankings(task: Judged) -> tuple[list[str], Rows]:
    """Headings and rows: everybody's rank of each answer, ties equal; answers by their number in the task."""
    rows = []
    for said in task.judgments:
        version = said.last
        if version.status != "submitted":
            rows.append([said.person, version.status, *[NOTHING] * len(task.answers), NOTHING])
            continue
        state = "all bad" if version.payload["all_bad"] else "extra" if version.extra else "ranked"
        ranks = [NOTHING] * len(task.answers) if said.ranks is None else [str(rank) for rank in said.ranks]
        rows.append([said.person, state, *ranks, duration(version.seconds)])
    return ["person", "", *(f"answer {n}" for n in range(1, len(task.answers) + 1)), "time"], rows


def remarks(task: Judged) -> Rows:
    """Everybody's rating, flags and comment of each answer, and what they said of the whole."""
    rows = []
    for said in task.judgments:
        for n, answer in enumerate(said.answers, start=1):
            if answer["rating"] is not None or answer["flags"] or answer["comment"]:
                rating = NOTHING if answer["rating"] is None else str(answer["rating"])
                rows.append([said.person, f"answer {n}", rating, ", ".join(answer["flags"]), answer["comment"]])
        payload = said.last.payload
        if whole := " ".join(filter(None, (payload.get("reason"), payload.get("comment")))):
            rows.append([said.person, "the task", NOTHING, "", whole])
    return rows


def clock(at: float) -> str:
    """A time in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


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
