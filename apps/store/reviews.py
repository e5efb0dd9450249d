"""What a reviewer decides about a task on which people differ: accept it as it is, or ask one more person.

A decision is an event, and holds until somebody says something else about the task.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.tables import Annotation, Event, Task
from apps.store.tasks import put_back

N_AT_ONCE = 1000  # ids in one query
ACCEPTED, SENT_BACK = "accept_task", "send_back"


def accept_task(store: Store, project_id: int, task_id: int, by: int) -> None:
    """People differ, and that is how it is. Raises `Refused` for a task that is not this project's to rank."""
    with store.write() as session:
        _ranking_task(session, project_id, task_id)
        events.append(session, store.clock(), by, ACCEPTED, str(task_id), {})


def send_back(store: Store, project_id: int, task_id: int, by: int) -> int:
    """One more person is to rank the task: it goes behind the queue. Returns how many are wanted now.

    What was said stays. Raises `Refused` for a task that is closed, is not this project's to rank, or waits for more
    rankings already.
    """
    with store.write() as session:
        task = _ranking_task(session, project_id, task_id)
        if task.status == "closed":
            raise Refused(f"task {task_id} is closed; open it again first")
        if task.n_done < task.required:
            raise Refused(f"task {task_id} waits for {task.required - task.n_done} more already")
        task.required = task.n_done + 1
        put_back(session, task)
        events.append(session, store.clock(), by, SENT_BACK, str(task_id), {"required": task.required})
        return task.required


def decided(session: Session, project_id: int) -> set[int]:
    """The tasks that were decided on since anybody last said something about them."""
    subjects = select(Event.subject, func.max(Event.seq)).where(Event.verb.in_((ACCEPTED, SENT_BACK)))
    when = {int(subject): seq for subject, seq in session.execute(subjects.group_by(Event.subject))}
    said = select(Annotation.task_id, func.max(Annotation.turn)).group_by(Annotation.task_id)
    said = said.where(Annotation.project_id == project_id)
    found: set[int] = set()
    for ids in _portions(list(when)):
        rows = session.execute(said.where(Annotation.task_id.in_(ids)))
        found |= {task_id for task_id, turn in rows if turn < when[task_id]}
    return found


def _portions(ids: list[int]) -> Iterator[list[int]]:
    for first in range(0, len(ids), N_AT_ONCE):
        yield ids[first : first + N_AT_ONCE]


def _ranking_task(session: Session, project_id: int, task_id: int) -> Task:
    task = session.get(Task, task_id)
    if task is None or task.project_id != project_id or task.kind != "rank":
        raise Refused(f"there is no task {task_id} to rank in this project")
    return task
