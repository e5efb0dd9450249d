"""What a reviewer decides about a task: one on which people differ, or that somebody reported.

A dispute is accepted as it is, given to one more person, or decided by the reviewer's own ranking. A report is kept as
it is, or its task is closed, or its prompt put right in a new task. A decision is an event, and all but a final ranking
hold until somebody says something else about the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.adding import NewAnswer, NewPrompt, exactly
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.leases import PublicId, lease_for, put_back
from apps.store.projects import settings_of
from apps.store.reading import beginning
from apps.store.tables import Annotation, Event, Person, Prompt, Revision, Task
from apps.store.tasks import Given, given, outputs_of, portions

ACCEPTED, SENT_BACK, ADJUDICATED = "accept_task", "send_back", "adjudicate"
KEPT, EDITED = "keep_report", "edit_prompt"


class Report(NamedTuple):
    """Somebody says that something is wrong with a task."""

    annotation: str
    task: int
    person: str
    reason: str
    comment: str
    at: float
    beginning: str  # of the prompt
    task_status: str
    handled: str  # "", "closed", "kept" or "edited"


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
        _refuse_closed(task)
        if task.n_done < task.required:
            raise Refused(f"task {task_id} waits for {task.required - task.n_done} more already")
        task.required = task.n_done + 1
        put_back(session, task)
        events.append(session, store.clock(), by, SENT_BACK, str(task_id), {"required": task.required})
        return task.required


def decided(session: Session, project_id: int) -> set[int]:
    """The tasks that were decided on since anybody last said something about them, and those that a ranking decides."""
    when = {int(subject): seq for subject, seq in _last_events(session, (ACCEPTED, SENT_BACK)).items()}
    said = select(Annotation.task_id, func.max(Annotation.turn)).group_by(Annotation.task_id)
    said = said.where(Annotation.project_id == project_id)
    final = select(Annotation.task_id).where(Annotation.project_id == project_id, Annotation.final)
    found = set(session.scalars(final))
    for ids in portions(list(when)):
        rows = session.execute(said.where(Annotation.task_id.in_(ids)))
        found |= {task_id for task_id, turn in rows if turn < when[task_id]}
    return found


def reports(store: Store, project_id: int) -> tuple[Report, ...]:
    """What people said is wrong with tasks, and what a lead did about it: the latest first."""
    query = (
        select(Annotation, Task, Prompt.messages, Person.name, Revision)
        .join(Task, Task.id == Annotation.task_id)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .join(Person, Person.id == Annotation.person_id)
        .join(Revision, (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions))
        .where(Annotation.project_id == project_id, Annotation.status == "flagged")
        .order_by(Annotation.turn.desc())
    )
    with store.read() as session:
        kept, edited = _last_events(session, (KEPT,)), _last_events(session, (EDITED,))
        found = []
        for mine, task, messages, name, said in session.execute(query).tuples():
            is_kept, is_edited = kept.get(mine.id, 0) > mine.turn, edited.get(str(task.id), 0) > mine.turn
            closed = "closed" if task.status == "closed" else ""
            handled = "edited" if is_edited else closed or ("kept" if is_kept else "")
            reason, comment = said.payload.get("reason", ""), said.payload.get("comment", "")
            about = (reason, comment, said.created_at, beginning(messages), task.status, handled)
            found.append(Report(mine.id, task.id, name, *about))
        return tuple(found)


def keep_report(store: Store, project_id: int, annotation_id: str, by: int | None = None) -> None:
    """A lead has looked at a report, and the task stays as it is. Raises `Refused` for what is no report here."""
    with store.write() as session:
        mine = session.get(Annotation, annotation_id)
        if mine is None or mine.project_id != project_id or mine.status != "flagged":
            raise Refused("there is no such report in this project; it may have been taken back")
        events.append(session, store.clock(), by, KEPT, mine.id, {})


def edit_prompt(store: Store, project_id: int, task_id: int, text: str, by: int | None = None) -> int:
    """Puts right what the user asked last: a new task, with the same answers, takes the place of this one.

    The old one is closed, and keeps what was said about it. Returns the new one's id. Raises `Refused` for a text that
    is empty or the same as before, and for a task that is not this project's to rank.
    """
    now = store.clock()
    with store.write() as session:
        old = _ranking_task(session, project_id, task_id)
        prompt, outputs = session.get_one(Prompt, old.prompt_id), outputs_of(session, old.id)
        answers = tuple(NewAnswer(one.text, maker) for one in outputs for maker in one.makers or [{}])
        edited = NewPrompt(_asked_anew(prompt.messages, text), prompt.source, answers, priority=old.priority)
        newest = session.scalar(select(func.max(Task.id))) or 0
        new = exactly(session, project_id, edited, now, by)
        if new.id > newest:  # else it was there, with rankings of its own
            new.required, new.propensity, new.pool = old.required, old.propensity, old.pool
        elif new.status == "closed":  # as when an edit is taken back
            new.status = "done"
            events.append(session, now, by, "reopen", str(new.id), {})
        put_back(session, new)
        old.status = "closed"
        events.append(session, now, by, "close", str(old.id), {})
        events.append(session, now, by, EDITED, str(old.id), {"task": new.id})
        return new.id


def adjudicate(store: Store, project_id: int, task_id: int, by: int) -> Given:
    """Gives a reviewer a task to decide, though all its places are taken: what they submit for it is final.

    They see it as all do. Raises `Refused` for a task that is closed, or is not this project's to rank.
    """
    now = store.clock()
    with store.write() as session:
        task = _ranking_task(session, project_id, task_id)
        _refuse_closed(task)
        settings = settings_of(session, project_id)
        lease = lease_for(session, settings, task, by, now)
        if not lease.final:
            lease.final = True
            events.append(session, now, by, ADJUDICATED, str(task.id), {})
        return given(session, settings, task, by)


def beginnings(session: Session, task_ids: Sequence[int]) -> dict[int, str]:
    """How the prompts of tasks begin, by the task's id."""
    query = select(Task.id, Prompt.messages).join(Prompt, Prompt.id == Task.prompt_id)
    rows = (row for ids in portions(task_ids) for row in session.execute(query.where(Task.id.in_(ids))))
    return {task_id: beginning(messages) for task_id, messages in rows}


def _last_events(session: Session, verbs: tuple[str, ...]) -> dict[str, int]:
    """The number of the last such event by its subject."""
    query = select(Event.subject, func.max(Event.seq)).where(Event.verb.in_(verbs)).group_by(Event.subject)
    return dict(session.execute(query).tuples().all())


def _asked_anew(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The turns with another last one of the user."""
    asked = [n for n, message in enumerate(messages) if message["role"] == "user"]
    last = asked[-1] if asked else len(messages) - 1
    if not text.strip() or text == messages[last]["content"]:
        raise Refused("text: it is empty or as before; write what the user should have asked, or close the task")
    return [message | {"content": text} if n == last else message for n, message in enumerate(messages)]


def _refuse_closed(task: Task) -> None:
    if task.status == "closed":
        raise Refused(f"task {task.id} is closed; open it again first")


def _ranking_task(session: Session, project_id: int, task_id: int) -> Task:
    name = Task.public_id if isinstance(task_id, PublicId) else Task.id
    task = session.scalar(select(Task).where(name == int(task_id)))
    if task is None or task.project_id != project_id or task.kind != "rank":
        raise Refused(f"there is no task {task_id} to rank in this project")
    return task
