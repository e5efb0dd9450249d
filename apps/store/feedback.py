"""Agreement with known answers, and ranks by answer instead of by slot: for practice feedback, gold and exports."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from typing import Any, NamedTuple

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from apps.store.projects import settings_of
from apps.store.settings import Settings
from apps.store.tables import Annotation, Desk, Person, Presentation, Revision, Task


class Feedback(NamedTuple):
    """Feedback on a practice task, by the person's slots."""

    agreement: float  # share of the pairs decided by the expected ranks that the person ordered the same way
    expected: dict[str, int]
    explanation: str


def by_place(values: dict[str, Any], places: list[int]) -> list[Any]:
    """Reorders values by slot into the order of the task's answers."""
    ordered: list[Any] = [None] * len(places)
    for slot, place in enumerate(places):
        ordered[place] = values[str(slot)]
    return ordered


def dense(ranks: list[int]) -> list[int]:
    """Dense ranks from 1: 1, 1, 3 becomes 1, 1, 2."""
    order = {rank: n for n, rank in enumerate(sorted(set(ranks)), start=1)}
    return [order[rank] for rank in ranks]


def agreement(ranks: list[int] | None, expected: list[int]) -> float:
    """The share of the pairs decided by `expected` that `ranks` order the same way; ties and None count as wrong."""
    decided = [(i, j) for i, j in permutations(range(len(expected)), 2) if expected[i] < expected[j]]
    assert decided, "a row whose ranks decide nothing is refused when it is imported"
    return sum(ranks is not None and ranks[i] < ranks[j] for i, j in decided) / len(decided)


def ranks_of(payload: dict[str, Any], places: list[int]) -> list[int] | None:
    """A submitted payload's dense ranks in the order of the task's answers; None if all are bad and unranked."""
    return None if payload["ranks"] is None else dense(by_place(payload["ranks"], places))


def feedback_on(session: Session, task: Task, mine: Annotation) -> Feedback:
    """The feedback to show after a practice task."""
    places = session.get_one(Presentation, (task.id, mine.person_id)).places
    payload = session.get_one(Revision, (mine.id, mine.n_revisions)).payload
    assert task.expected is not None
    expected: list[int] = task.expected["ranks"]
    slots = {str(slot): expected[place] for slot, place in enumerate(places)}
    return Feedback(agreement(ranks_of(payload, places), expected), slots, task.expected["explanation"])


def practice_agreement(session: Session, project_id: int, person_id: int) -> list[float]:
    """A person's agreement on each practice task."""
    return known_agreement(session, project_id, person_id, "practice")


def failed_practice(session: Session, project_id: int) -> list[str]:
    """The names of annotators who did all practice tasks and failed: they get no other task."""
    settings = settings_of(session, project_id)
    done = exists().where(Annotation.task_id == Task.id, Annotation.person_id == Desk.person_id)
    done = done.where(Annotation.status != "undone").correlate(Task, Desk)
    left = exists().where(Task.project_id == project_id, Task.kind == "practice", Task.status == "open", ~done)
    stuck = select(Person).join(Desk, Desk.person_id == Person.id).where(Desk.project_id == project_id)
    stuck = stuck.where(Person.role == "annotator", Person.active, ~Desk.qualified, ~left.correlate(Desk))
    if not settings.practice.required:
        return []
    people = session.scalars(stuck.order_by(Person.key)).all()
    return [one.name for one in people if not has_passed(session, settings, project_id, one.id)]


def has_passed(session: Session, settings: Settings, project_id: int, person_id: int) -> bool:
    """Whether a person has passed the practice: enough tasks with enough agreement."""
    done = practice_agreement(session, project_id, person_id)
    enough = settings.practice
    return len(done) >= enough.required and sum(done) / len(done) >= enough.pass_share


def known_agreement(session: Session, project_id: int, person_id: int, kind: str) -> list[float]:
    """A person's agreement on each task with known ranks of a kind: `practice` or `gold`."""
    return known_agreements(session, project_id, person_id).get((person_id, kind), [])


def known_agreements(
    session: Session, project_id: int, person_id: int | None = None
) -> dict[tuple[int, str], list[float]]:
    """`known_agreement` by person and kind, of everybody or of one person."""
    query = (
        select(Annotation.person_id, Task.kind, Task.expected, Presentation.places, Revision.payload)
        .select_from(Annotation)
        .join(Task, Task.id == Annotation.task_id)
        .join(Presentation, (Presentation.task_id == Task.id) & (Presentation.person_id == Annotation.person_id))
        .join(Revision, (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions))
        .where(Annotation.project_id == project_id, Annotation.status == "submitted", Task.kind != "rank")
        .order_by(Annotation.turn)
    )
    if person_id is not None:
        query = query.where(Annotation.person_id == person_id)
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for person, kind, expected, places, payload in session.execute(query):
        found[person, kind].append(agreement(ranks_of(payload, places), expected["ranks"]))
    return found
