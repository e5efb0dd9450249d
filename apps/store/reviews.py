"""Reviewers' decisions about disputed or reported tasks.

A dispute is accepted as it is, sent to one more person, or decided by the reviewer's own ranking. A report is kept, or
its task is closed, or its prompt is corrected in a new task. Decisions are events. All except a final ranking hold
until the task gets another annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.adding import NewAnswer, NewPrompt, task_of_answers
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.leases import PublicId, lease_for, put_back
from apps.store.projects import settings_of
from apps.store.reading import beginning
from apps.store.tables import NOT_SAID, Annotation, Event, Person, Prompt, Revision, Task
from apps.store.tasks import TaskView, outputs_of, portions, task_view

ACCEPTED, SENT_BACK, ADJUDICATED = "accept_task", "send_back", "adjudicate"
KEPT, EDITED = "keep_report", "edit_prompt"


class Report(NamedTuple):
    """A person's report that something is wrong with a task."""

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
    """Accepts a disagreement as it is. Raises `Refused` unless this is a ranking task of the project."""
    with store.write() as session:
        _ranking_task(session, project_id, task_id)
        events.append(session, store.clock(), by, ACCEPTED, str(task_id), {})


def send_back(store: Store, project_id: int, task_id: int, by: int) -> int:
    """Asks one more person to rank the task: it goes to the end of the queue. Returns the number required now.

    Existing rankings stay. Raises `Refused` for a closed task, one that is no ranking task of the project, and one that
    already waits for more rankings.
    """
    with store.write() as session:
        task = _ranking_task(session, project_id, task_id)
        _refuse_closed(task)
        if task.n_done < task.required:
            raise Refused(f"task {task_id} already waits for {task.required - task.n_done} more rankings")
        task.required = task.n_done + 1
        put_back(session, task)
        events.append(session, store.clock(), by, SENT_BACK, str(task_id), {"required": task.required})
        return task.required


def decided(session: Session, project_id: int) -> set[int]:
    """Tasks decided since their last annotation, and tasks with a final ranking."""
    when = {int(subject): seq for subject, seq in _last_events(session, (ACCEPTED, SENT_BACK)).items()}
    last = select(Annotation.task_id, func.max(Annotation.turn)).group_by(Annotation.task_id)
    last = last.where(Annotation.project_id == project_id)
    final = select(Annotation.task_id).where(Annotation.project_id == project_id, Annotation.final)
    found = set(session.scalars(final))
    for ids in portions(list(when)):
        rows = session.execute(last.where(Annotation.task_id.in_(ids)))
        found |= {task_id for task_id, turn in rows if turn < when[task_id]}
    return found


def reports(store: Store, project_id: int) -> tuple[Report, ...]:
    """Reported tasks with their handling, latest first."""
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
        for mine, task, messages, name, revision in session.execute(query).tuples():
            is_kept, is_edited = kept.get(mine.id, 0) > mine.turn, edited.get(str(task.id), 0) > mine.turn
            closed = "closed" if task.status == "closed" else ""
            handled = "edited" if is_edited else closed or ("kept" if is_kept else "")
            reason, comment = revision.payload.get("reason", ""), revision.payload.get("comment", "")
            about = (reason, comment, revision.created_at, beginning(messages), task.status, handled)
            found.append(Report(mine.id, task.id, name, *about))
        return tuple(found)


def keep_report(store: Store, project_id: int, annotation_id: str, by: int | None = None) -> None:
    """Handles a report by keeping the task as it is. Raises `Refused` for an unknown report."""
    with store.write() as session:
        mine = session.get(Annotation, annotation_id)
        if mine is None or mine.project_id != project_id or mine.status != "flagged":
            raise Refused("there is no such report in this project; it may have been undone")
        events.append(session, store.clock(), by, KEPT, mine.id, {})


def edit_prompt(store: Store, project_id: int, task_id: int, text: str, by: int | None = None) -> int:
    """Corrects the last user message: a new task with the same answers replaces this one.

    The old task is closed and keeps its annotations. Returns the new task's id. Raises `Refused` for a text that is
    empty or unchanged, and unless this is a ranking task of the project.
    """
    now = store.clock()
    with store.write() as session:
        old = _ranking_task(session, project_id, task_id)
        prompt, outputs = session.get_one(Prompt, old.prompt_id), outputs_of(session, old.id)
        answers = tuple(NewAnswer(one.text, maker) for one in outputs for maker in one.makers or [{}])
        edited = NewPrompt(_with_last_question(prompt.messages, text), prompt.source, answers, priority=old.priority)
        newest = session.scalar(select(func.max(Task.id))) or 0
        new = task_of_answers(session, project_id, edited, now, by)
        if new.id > newest:  # else the task existed already, with its own rankings
            new.required, new.propensity, new.pool = old.required, old.propensity, old.pool
        elif new.status == "closed":  # for example when an edit is reverted
            new.status = "done"
            events.append(session, now, by, "reopen", str(new.id), {})
        put_back(session, new)
        old.status = "closed"
        events.append(session, now, by, "close", str(old.id), {})
        events.append(session, now, by, EDITED, str(old.id), {"task": new.id})
        return new.id


def adjudicate(store: Store, project_id: int, task_id: int, by: int) -> TaskView:
    """Leases a task to a reviewer who decides it, even if all its places are taken: their ranking will be final.

    They see it like everybody else. Raises `Refused` for a closed task, and unless it is a ranking task of the project.
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
        return task_view(session, settings, task, by)


def beginnings(session: Session, task_ids: Sequence[int]) -> dict[int, str]:
    """The beginnings of tasks' prompts, by task id."""
    query = select(Task.id, Prompt.messages).join(Prompt, Prompt.id == Task.prompt_id)
    rows = (row for ids in portions(task_ids) for row in session.execute(query.where(Task.id.in_(ids))))
    return {task_id: beginning(messages) for task_id, messages in rows}


def _last_events(session: Session, verbs: tuple[str, ...]) -> dict[str, int]:
    """The number of the last event with one of these verbs, by subject."""
    query = select(Event.subject, func.max(Event.seq)).where(NOT_SAID, Event.verb.in_(verbs)).group_by(Event.subject)
    return dict(session.execute(query).tuples().all())


def _with_last_question(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The messages with another last user message."""
    questions = [n for n, message in enumerate(messages) if message["role"] == "user"]
    last = questions[-1] if questions else len(messages) - 1
    if not text.strip() or text == messages[last]["content"]:
        raise Refused("text: empty or unchanged; write what the user should have asked, or close the task")
    return [message | {"content": text} if n == last else message for n, message in enumerate(messages)]


def _refuse_closed(task: Task) -> None:
    if task.status == "closed":
        raise Refused(f"task {task.id} is closed; reopen it first")


def _ranking_task(session: Session, project_id: int, task_id: int) -> Task:
    name = Task.public_id if isinstance(task_id, PublicId) else Task.id
    task = session.scalar(select(Task).where(name == int(task_id)))
    if task is None or task.project_id != project_id or task.kind != "rank":
        raise Refused(f"this project has no ranking task {task_id}")
    return task
