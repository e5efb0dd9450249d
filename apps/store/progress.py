"""A project's progress and remaining work: for the annotators' page, the lead's page and the terminal."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import combinations
from statistics import median
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, bindparam, case, func, select
from sqlalchemy.orm import Session

from apps.store.engine import Store
from apps.store.feedback import agreement, known_agreements
from apps.store.projects import settings_of
from apps.store.reading import AnnotatedTask, TaskAnnotation, annotated_tasks
from apps.store.tables import Annotation, Desk, Event, Lease, Person, Project, Revision, Task

DAY_S = 86400.0
N_TIMED = 1000  # the median time is over this many latest rankings
QUICK_S, RESTS = 0.005, 20  # a count that takes longer than QUICK_S is cached for RESTS times its duration
_KEPT: WeakKeyDictionary[Store, dict[int, tuple[float, tuple[int, int]]]] = (
    WeakKeyDictionary()
)  # store → project → (valid until, count)

# Built once, since they run after each ranking.
LATEST = (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions)
TODAY = Revision.created_at >= bindparam("since")
MINE = (
    select(
        Annotation.status,
        func.count().label("n"),
        func.sum(Revision.seconds).label("seconds"),
        func.sum(case((TODAY, 1), else_=0)).label("n_today"),
        func.sum(case((TODAY, Revision.seconds), else_=0.0)).label("seconds_today"),
    )
    .join(Revision, LATEST)
    .where(Annotation.project_id == bindparam("project"), Annotation.person_id == bindparam("person"))
    .group_by(Annotation.status)
)
TOTALS = select(func.count(), func.coalesce(func.sum(case((Task.status == "done", 1), else_=0)), 0)).where(
    Task.project_id == bindparam("project"), Task.kind == "rank", Task.status != "closed"
)

VERSION = select(Project.guidelines_version).where(Project.id == bindparam("project"), Project.guidelines != "")


class PersonProgress(NamedTuple):
    """What one person has done."""

    id: int
    name: str
    role: str
    active: bool
    n_submitted: int
    n_skipped: int
    n_flagged: int
    n_extra: int
    median_seconds: float | None
    last_at: float | None
    gold_agreement: float | None  # the mean over gold tasks
    practice_agreement: float | None
    n_gold: int


class Progress(NamedTuple):
    """A project's progress and remaining work."""

    n_tasks: int  # ranking tasks that are not closed
    n_done: int  # of these, ranked by as many people as required
    n_rankings: int  # rankings of these tasks that count
    n_wanted: int  # n_tasks times overlap
    n_skipped: int
    n_flagged: int
    n_extra: int
    n_held: int  # tasks that somebody has open
    median_seconds: float | None  # of the latest 1000
    n_last_day: int
    person_seconds_left: float | None  # missing rankings times the median
    seconds_left: float | None  # missing rankings at the pace of the last day
    people: tuple[PersonProgress, ...]


class Mine(NamedTuple):
    """A person's own progress."""

    n_submitted: int
    n_skipped: int
    n_flagged: int
    seconds: float  # spent on submitted rankings
    n_today: int  # rankings last submitted since the day began, and their seconds
    seconds_today: float
    n_tasks: int
    n_done: int  # rounded to large steps: exact counts would reveal gold tasks, which do not count
    guidelines: int  # the current version, 0 if there are none


def progress(store: Store, project_id: int) -> Progress:
    """The whole project's progress."""
    now = store.clock()
    with store.read() as session:
        settings_of(session, project_id)  # raises if the project does not exist
        tasks = (Task.project_id == project_id) & (Task.kind == "rank") & (Task.status != "closed")
        counted = select(func.count(), func.coalesce(func.sum(Task.required), 0)).select_from(Task).where(tasks)
        n_tasks, n_wanted = session.execute(counted).one()
        n_done = session.scalar(select(func.count()).select_from(Task).where(tasks, Task.status == "done")) or 0
        n_rankings = session.scalar(select(func.coalesce(func.sum(Task.n_done), 0)).where(tasks)) or 0
        people = _people(session, project_id)
        seconds = _seconds(session, project_id)
        n_last_day = _n_since(session, project_id, now - DAY_S)
        held = select(func.count()).select_from(Lease).join(Task, Task.id == Lease.task_id)
        n_held = session.scalar(held.where(Task.project_id == project_id, Lease.expires_at > now)) or 0
    n_left = max(0, n_wanted - n_rankings)
    return Progress(
        n_tasks=n_tasks,
        n_done=n_done,
        n_rankings=n_rankings,
        n_wanted=n_wanted,
        n_skipped=sum(person.n_skipped for person in people),
        n_flagged=sum(person.n_flagged for person in people),
        n_extra=sum(person.n_extra for person in people),
        n_held=n_held,
        median_seconds=seconds,
        n_last_day=n_last_day,
        person_seconds_left=None if seconds is None else n_left * seconds,
        seconds_left=n_left * DAY_S / n_last_day if n_last_day else None,
        people=tuple(people),
    )


def mine(store: Store, project_id: int, person_id: int, since: float | None = None) -> Mine:
    """A person's own progress. `since`: when their day began; by default the UTC day."""
    since = store.clock() // DAY_S * DAY_S if since is None else since
    with store.read_one() as connection:
        found = connection.execute(MINE, {"project": project_id, "person": person_id, "since": since})
        rows = {row.status: row for row in found}
        guidelines = connection.scalar(VERSION, {"project": project_id})
    counts = {status: row.n for status, row in rows.items()}
    n_tasks, n_done = _totals(store, project_id)
    return Mine(
        n_submitted=counts.get("submitted", 0),
        n_skipped=counts.get("skipped", 0),
        n_flagged=counts.get("flagged", 0),
        seconds=sum(row.seconds for row in rows.values()),
        n_today=rows["submitted"].n_today if "submitted" in rows else 0,
        seconds_today=sum(row.seconds_today for row in rows.values()),
        n_tasks=n_tasks,
        n_done=n_done,
        guidelines=guidelines or 0,
    )


def _totals(store: Store, project_id: int) -> tuple[int, int]:
    """The numbers of tasks and of done tasks. If counting is slow, the counts are cached for a while."""
    kept = _KEPT.setdefault(store, {})
    began = time.monotonic()
    if project_id in kept and began < kept[project_id][0]:
        return kept[project_id][1]
    with store.read_one() as connection:
        n_tasks, n_done = connection.execute(TOTALS, {"project": project_id}).one()
    n_done -= n_done % max(5, n_tasks // 20) if n_done < n_tasks else 0
    took = time.monotonic() - began
    kept[project_id] = began + (RESTS * took if took > QUICK_S else 0.0), (n_tasks, n_done)
    return n_tasks, n_done


def people_csv(
    store: Store, project_id: int, gold_pass: float, since: float | None = None, until: float | None = None
) -> str:
    """Each person's work and quality from `since` until `until`, as CSV with a heading: for paying them.

    `hours` are active time as the page measured it, at most `LONGEST_S` per revision; overlapping time of two windows
    counts once. They include practice, gold and work that was revised or undone later; skipping and flagging are not
    timed. `agreement` is with others who ranked the same tasks; `gold` is the share of gold tasks passed.
    """
    found: dict[int, _Record] = {}
    with store.read() as session:
        keys = dict(session.execute(select(Person.id, Person.key)).tuples().all())
        for task in annotated_tasks(session, project_id, ("rank", "practice", "gold"), until):
            for annotation in task.annotations:
                if since is None or annotation.last.at >= since:
                    record = found.setdefault(annotation.person_id, _Record(annotation.person))
                    record.add(task, annotation, since or 0.0)
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(COLUMNS)
    for person in sorted(found, key=lambda id: keys[id]):
        table.writerow([found[person].name, *found[person].figures(gold_pass)])
    return lines.getvalue()


COLUMNS = (
    *("person", "hours", "rankings", "skipped", "flagged", "median_seconds", "agreement", "gold_tasks", "gold"),
    *("practice", "first_day", "last_day"),
)
LONGEST_S = 3600.0


class _Record:
    """One person's totals."""

    def __init__(self, name: str) -> None:
        # a spreadsheet would run a name that begins like a formula
        self.name = f"'{name}" if name.startswith(("=", "+", "-", "@")) else name
        self.spans: list[tuple[float, float]] = []  # working time, from when to when
        self.days: list[float] = []  # times of revisions
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.pairs = [0, 0]  # pairs ordered like another person did, and differently
        self.known: dict[str, list[float]] = {"gold": [], "practice": []}

    def add(self, task: AnnotatedTask, mine: TaskAnnotation, since: float) -> None:
        """Adds an annotation; revisions before `since` are left out."""
        for version in mine.versions:
            if version.at >= since:
                self.days.append(version.at)
                spent = min(version.seconds, LONGEST_S)
                self.spans.append((max(since, mine.shown_at, version.at - spent), version.at))
        if task.expected is not None and mine.last.status == "submitted":
            self.known[task.kind].append(agreement(mine.ranks, task.expected))
        if task.kind != "practice":
            self.statuses[mine.last.status] += 1
        if task.kind == "rank" and mine.last.status == "submitted":
            self.seconds += [mine.last.seconds] if mine.last.seconds > 0 else []
            for other in task.annotations:
                if other.person_id != mine.person_id:
                    self._compare(mine.ranks, other.ranks)

    def _compare(self, a: list[int] | None, b: list[int] | None) -> None:
        for i, j in combinations(range(len(a or ())), 2):
            if a and b and a[i] != a[j] and b[i] != b[j]:
                self.pairs[(a[i] < a[j]) != (b[i] < b[j])] += 1

    def figures(self, gold_pass: float) -> list[Any]:
        """All columns except the name; an empty cell means unknown."""
        gold, practice = self.known["gold"], self.known["practice"]
        return [
            round(covered(self.spans) / 3600, 3),
            *(self.statuses[status] for status in ("submitted", "skipped", "flagged")),
            round(median(self.seconds), 1) if self.seconds else "",
            round(self.pairs[0] / sum(self.pairs), 3) if any(self.pairs) else "",
            len(gold),
            round(sum(share >= gold_pass for share in gold) / len(gold), 3) if gold else "",
            round(sum(practice) / len(practice), 3) if practice else "",
            *(datetime.fromtimestamp(at, UTC).date().isoformat() for at in (min(self.days), max(self.days))),
        ]


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds covered by at least one of the spans."""
    total, end = 0.0, -math.inf
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def _people(session: Session, project_id: int) -> list[PersonProgress]:
    """Everybody who has worked in this project, by name, with one query per figure and none per person."""
    query = select(Person).join(Desk, Desk.person_id == Person.id).where(Desk.project_id == project_id)
    people = session.scalars(query.order_by(Person.key)).all()
    statuses, seconds = _counts_by_status(session, project_id), _seconds_by_person(session, project_id)
    known = known_agreements(session, project_id)
    return [_person(person, statuses[person.id], seconds.get(person.id), known) for person in people]


StatusCounts = dict[str, tuple[int, int, float]]  # status → count, count of extra ones, time of the latest


def _counts_by_status(session: Session, project_id: int) -> dict[int, StatusCounts]:
    n_extra = func.sum(case((Annotation.extra, 1), else_=0))
    query = select(
        Annotation.person_id, Annotation.status, func.count(), n_extra, func.max(Revision.created_at)
    ).select_from(Annotation)
    query = query.join(Revision, LATEST).where(Annotation.project_id == project_id)
    found: dict[int, StatusCounts] = defaultdict(dict)
    for person, status, n, extra, last in session.execute(query.group_by(Annotation.person_id, Annotation.status)):
        found[person][status] = (n, extra, last)
    return found


def _seconds_by_person(session: Session, project_id: int) -> dict[int, float]:
    """The median seconds of each person's latest rankings."""
    place = func.row_number().over(partition_by=Annotation.person_id, order_by=Annotation.turn.desc()).label("place")
    query = select(Annotation.person_id, Revision.seconds, place).join(Revision, LATEST).where(*_timed(project_id))
    timed = query.subquery()
    found: dict[int, list[float]] = defaultdict(list)
    for person, seconds in session.execute(select(timed.c.person_id, timed.c.seconds).where(timed.c.place <= N_TIMED)):
        found[person].append(seconds)
    return {person: float(median(seconds)) for person, seconds in found.items()}


def _person(
    person: Person, statuses: StatusCounts, seconds: float | None, known: dict[tuple[int, str], list[float]]
) -> PersonProgress:
    counts = {status: n for status, (n, _, _) in statuses.items()}
    gold, practice = (known.get((person.id, kind), []) for kind in ("gold", "practice"))
    return PersonProgress(
        id=person.id,
        name=person.name,
        role=person.role,
        active=person.active,
        n_submitted=counts.get("submitted", 0),
        n_skipped=counts.get("skipped", 0),
        n_flagged=counts.get("flagged", 0),
        n_extra=sum(extra for _, extra, _ in statuses.values()),
        median_seconds=seconds,
        last_at=max((last for _, _, last in statuses.values()), default=None),
        gold_agreement=sum(gold) / len(gold) if gold else None,
        practice_agreement=sum(practice) / len(practice) if practice else None,
        n_gold=len(gold),
    )


def _timed(project_id: int) -> tuple[ColumnElement[bool], ...]:
    """Filters for rankings with a measured time."""
    return Annotation.project_id == project_id, Annotation.status == "submitted", Revision.seconds > 0


def _seconds(session: Session, project_id: int) -> float | None:
    """The median seconds of the latest rankings."""
    query = select(Revision.seconds).join(Annotation, LATEST).where(*_timed(project_id))
    found = session.scalars(query.order_by(Annotation.turn.desc()).limit(N_TIMED)).all()
    return float(median(found)) if found else None


def _n_since(session: Session, project_id: int, since: float) -> int:
    """The number of rankings submitted or revised since then."""
    first = session.scalar(select(func.min(Event.seq)).where(Event.at > since))
    if first is None:
        return 0
    query = select(func.count()).select_from(Annotation).where(Annotation.project_id == project_id)
    query = query.where(Annotation.turn >= first, Annotation.status == "submitted", ~Annotation.extra)
    return session.scalar(query) or 0
