"""Adding a revision to an annotation, together with its event. All changes of annotations go through here."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import require_exclusive
from apps.store.tables import Annotation, Lease, Project, Revision, Task

FINAL = "final"  # the event of an annotation that decides its task from then on
VERSION = select(Project.guidelines_version).where(Project.id == bindparam("id"))
ADD = insert(Revision)
NAMES = [column.name for column in Revision.__table__.columns]


def add_revision(
    session: Session, mine: Annotation, status: str, payload: dict[str, Any], seconds: float, now: float
) -> None:
    """Adds a revision and sets the annotation's status to it."""
    mine.status, mine.n_revisions = status, mine.n_revisions + 1
    if status != "submitted":
        mine.extra = mine.final = False
    connection = session.connection()
    revision = Revision(
        annotation_id=mine.id,
        n=mine.n_revisions,
        status=status,
        extra=mine.extra,
        payload=payload,
        seconds=_checked_seconds(seconds),
        guidelines_version=connection.execute(VERSION, {"id": mine.project_id}).scalar_one(),
        created_at=now,
    )
    data = {"task": mine.task_id, "status": status, "revision": mine.n_revisions}
    data["revision_sha256"] = events.digest(events.revision_content(revision))
    data["kept_sha256"] = events.kept_digest(revision)
    mine.turn = events.append(session, now, mine.person_id, "say", mine.id, data)
    session.flush()  # the annotation's row must exist before its revision refers to it
    connection.execute(ADD, {name: getattr(revision, name) for name in NAMES})


def latest(session: Session, mine: Annotation) -> Revision:
    """The current revision."""
    return session.get_one(Revision, (mine.id, mine.n_revisions))


def counts(mine: Annotation) -> int:
    """1 if this annotation takes one of its task's places."""
    return int(mine.n_revisions > 0 and mine.status == "submitted" and not mine.extra)


def decide(session: Session, task: Task, mine: Annotation, lease: Lease, now: float) -> None:
    """Makes the ranking of an adjudicating reviewer final: from now on it counts instead of all others."""
    if mine.final or not lease.final:
        return
    require_exclusive(session)
    others = (Annotation.task_id == task.id) & (Annotation.id != mine.id)
    session.execute(update(Annotation).where(others).values(final=False))
    theirs = (Lease.task_id == task.id) & (Lease.person_id != mine.person_id)
    session.execute(update(Lease).where(theirs).values(final=False))
    mine.final = True
    events.append(session, now, mine.person_id, FINAL, str(task.id), {"annotation": mine.id})


def _checked_seconds(seconds: Any) -> float:
    """The page's measured time, clipped to a day. A bad value becomes 0 and never refuses a ranking."""
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
    return round(min(max(float(seconds), 0.0), 86400.0), 1) if is_number else 0.0
