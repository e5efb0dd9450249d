"""The database tables, the same on SQLite and PostgreSQL. `migrations/` creates them; a test compares the two.

Times are seconds since 1970 in UTC, all from the store's clock. JSON is stored as text with sorted keys, so that equal
values are equal bytes. Tokens and passwords are kept as hashes only.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


def canonical(value: Any) -> str:
    """JSON with one spelling for each value, in ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Json(TypeDecorator[Any]):
    """A value as canonical JSON text. None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else canonical(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Table(DeclarativeBase):
    """Base of the tables."""

    type_annotation_map = {str: Text(), float: Double(), dict[str, Any]: Json(), list[Any]: Json()}  # noqa: RUF012


class Person(Table):
    """A person who can log in. Without a password hash the invitation is not accepted yet."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    key: Mapped[str] = mapped_column(unique=True)  # the name in one spelling
    password_hash: Mapped[str | None]
    role: Mapped[str]
    active: Mapped[bool]
    created_at: Mapped[float]
    erased_at: Mapped[float | None]  # since then their name and texts are deleted
    __table_args__ = (CheckConstraint("role IN ('admin', 'reviewer', 'annotator')", name="person_role"),)


class Invitation(Table):
    """A link that works once: to create an account, or to set a new password."""

    __tablename__ = "invitation"
    token_hash: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    name: Mapped[str | None]  # None lets the invited person choose
    person_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))  # whose password to reset
    created_by: Mapped[int | None] = mapped_column(ForeignKey("person.id"))  # None: the command line
    created_at: Mapped[float]
    expires_at: Mapped[float]
    used_by: Mapped[int | None] = mapped_column(ForeignKey("person.id"))
    revoked_at: Mapped[float | None]


class LoginSession(Table):
    """A login session."""

    __tablename__ = "session"
    token_hash: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    created_at: Mapped[float]
    expires_at: Mapped[float]
    seen_at: Mapped[float]
    revoked_at: Mapped[float | None]


class Device(Table):
    """A browser in which a person logged in: failures of others at the same address do not make it wait."""

    __tablename__ = "device"
    token_hash: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    seen_at: Mapped[float]


class ApiToken(Table):
    """A token with which a script acts as a person, until it expires or is revoked."""

    __tablename__ = "api_token"
    token_hash: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), index=True)
    name: Mapped[str]  # its purpose
    created_at: Mapped[float]
    expires_at: Mapped[float]
    used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class Attempt(Table):
    """Failed logins by a name or from an address."""

    __tablename__ = "attempt"
    key: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    blocked_until: Mapped[float]
    last_at: Mapped[float] = mapped_column(index=True)


class Project(Table):
    """A project: the settings of project.yaml and its state."""

    __tablename__ = "project"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    settings: Mapped[dict[str, Any]]
    guidelines: Mapped[str]
    guidelines_version: Mapped[int]
    guidelines_file: Mapped[str]  # digest of the file's text when last imported, so that edits on the page survive
    paused: Mapped[bool]  # no tasks are handed out
    secret: Mapped[str]  # random, so that the seed alone does not reveal which claims give a gold task
    last_place: Mapped[int] = mapped_column(BigInteger)  # the highest place ever given in the queue


class Guidelines(Table):
    """A version of a project's guidelines."""

    __tablename__ = "guidelines"
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]
    person_id: Mapped[int | None] = mapped_column(ForeignKey("person.id"))  # None: the file of project.yaml
    at: Mapped[float]


class Prompt(Table):
    """A prompt: the messages before the answer."""

    __tablename__ = "prompt"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    hash: Mapped[str]
    messages: Mapped[list[Any]]  # [{role, content, ...}], as `apps.label.importing.stored_message` writes them
    source: Mapped[str]  # the collection that it comes from
    __table_args__ = (UniqueConstraint("project_id", "hash"),)


class Output(Table):
    """An answer to a prompt. Equal texts are one output, whichever models wrote them."""

    __tablename__ = "output"
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"))
    hash: Mapped[str]
    text: Mapped[str]
    makers: Mapped[list[Any]]  # [{model, temperature, seed}] of all that gave this text
    scores: Mapped[list[Any] | None]  # the reward model's, one per ensemble member
    __table_args__ = (UniqueConstraint("prompt_id", "hash"),)


class Task(Table):
    """A prompt and 2 to 9 of its answers, to be ranked by `required` people.

    `place` orders the queue and only grows: a task that is requeued goes behind everything in it.
    """

    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[int] = mapped_column(BigInteger)  # random: an `id` would reveal what was imported together
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"), index=True)
    hash: Mapped[str]
    kind: Mapped[str]
    expected: Mapped[dict[str, Any] | None]  # {ranks, explanation} of a gold or practice task, in the order of places
    priority: Mapped[float]
    place: Mapped[int] = mapped_column(BigInteger)
    propensity: Mapped[float]  # probability that this task was drawn for its place, from `pool` tasks
    pool: Mapped[int]
    shown: Mapped[bool]  # whether anybody has seen it; a seen task keeps its answers
    assigned: Mapped[bool]  # only the people in its `Assignment` rows get it
    required: Mapped[int]
    n_done: Mapped[int]  # submitted rankings that count; `extra` ones do not
    status: Mapped[str]
    __table_args__ = (
        UniqueConstraint("project_id", "hash"),
        CheckConstraint("kind IN ('rank', 'practice', 'gold')", name="task_kind"),
        CheckConstraint("status IN ('open', 'done', 'closed')", name="task_status"),
        Index("task_public_id", "public_id", unique=True),
        Index("task_queue", "project_id", "kind", "assigned", "status", "place"),
    )


class TaskOutput(Table):
    """The answers of a task, in import order."""

    __tablename__ = "task_output"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    output_id: Mapped[int] = mapped_column(ForeignKey("output.id"), index=True)


class Assignment(Table):
    """A task assigned to a person. `place` orders the person's own tasks and only grows, like `Task.place`."""

    __tablename__ = "assignment"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    place: Mapped[int] = mapped_column(BigInteger)
    __table_args__ = (Index("assignment_of_person", "person_id", "project_id", "place"),)


class Lease(Table):
    """A task reserved for a person. Live until `expires_at`; 0 if it was released."""

    __tablename__ = "lease"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    token: Mapped[str]
    began_at: Mapped[float]  # when the person got the task; the project's time limit runs from here
    expires_at: Mapped[float]
    final: Mapped[bool]  # the ranking under this lease decides the task; it takes no place from others
    __table_args__ = (Index("lease_of_person", "person_id", "expires_at"), Index("lease_by_end", "expires_at"))


class Desk(Table):
    """A person's position in a project: they have handled every open task up to `place`.

    Of their assigned tasks they have handled every open one up to `own_place`.
    """

    __tablename__ = "desk"
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    place: Mapped[int] = mapped_column(BigInteger)
    own_place: Mapped[int] = mapped_column(BigInteger)
    n_claims: Mapped[int]
    qualified: Mapped[bool]  # whether they passed the practice tasks
    paused: Mapped[bool]  # they get no tasks
    most: Mapped[int | None]  # their own limit of rankings; None: the limit of project.yaml


class Presentation(Table):
    """The order in which a person sees a task's answers: places[slot] is a place of `task_output`. Drawn only once."""

    __tablename__ = "presentation"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    places: Mapped[list[Any]]
    shown_at: Mapped[float]


class Draft(Table):
    """A person's unsubmitted work on a task. The payload is None after a submit; `rev` only grows."""

    __tablename__ = "draft"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    payload: Mapped[dict[str, Any] | None]
    rev: Mapped[int] = mapped_column(BigInteger)
    saved_at: Mapped[float]


class Annotation(Table):
    """A person's annotation of a task, with the state of its latest revision."""

    __tablename__ = "annotation"
    id: Mapped[str] = mapped_column(primary_key=True)  # a UUID made by the page
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"))
    status: Mapped[str]
    n_revisions: Mapped[int]
    extra: Mapped[bool]  # submitted when all places of the task were taken: kept but not counted
    final: Mapped[bool]  # a reviewer's ranking that decides a disputed task: it counts instead of all others
    turn: Mapped[int] = mapped_column(BigInteger)  # the number of the event that changed it last
    __table_args__ = (
        UniqueConstraint("task_id", "person_id"),
        CheckConstraint("status IN ('submitted', 'skipped', 'flagged', 'undone')", name="annotation_status"),
        Index("annotation_of_person", "person_id", "project_id", "turn"),
        Index("annotation_by_turn", "project_id", "turn"),
    )


class Revision(Table):
    """One version of an annotation. Rows are only added; triggers refuse anything else."""

    __tablename__ = "revision"
    annotation_id: Mapped[str] = mapped_column(ForeignKey("annotation.id"), primary_key=True)
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    status: Mapped[str]
    extra: Mapped[bool] = mapped_column(Boolean)
    payload: Mapped[dict[str, Any]]  # by the person's slots
    seconds: Mapped[float]
    guidelines_version: Mapped[int]
    created_at: Mapped[float]


class Erasing(Table):
    """Has a row only while a person's texts are erased: the one change that the triggers allow."""

    __tablename__ = "erasing"
    person_id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)


NOT_SAID = text("verb <> 'say'")  # queries repeat it literally, so that the partial index is used


class Event(Table):
    """The event log, in order. Each row's hash covers the row before it; rows are only added."""

    __tablename__ = "event"
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[float]
    person_id: Mapped[int | None]  # None: the command line
    verb: Mapped[str]
    subject: Mapped[str]
    data: Mapped[dict[str, Any]]
    prev_hash: Mapped[str]
    hash: Mapped[str]
    __table_args__ = (
        # without annotations, which are most events: small, and no cost for annotators
        Index("event_of_leads", "verb", "subject", "seq", sqlite_where=NOT_SAID, postgresql_where=NOT_SAID),
    )
