"""A project's row in the database: its settings, guidelines and queue places."""

from __future__ import annotations

import hashlib
import secrets
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Select, Text, bindparam, case, func, select, type_coerce, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store, require_exclusive
from apps.store.errors import BadPayload, NotYours, Stale
from apps.store.settings import Settings
from apps.store.tables import Assignment, Desk, Guidelines, Person, Project, Task

LONGEST_GUIDELINES = 200_000  # characters


class GuidelinesNow(NamedTuple):
    """A version of a project's guidelines."""

    version: int
    text: str
    by: str | None  # None: the file of project.yaml
    at: float


NEW_DESK = {"place": 0, "own_place": 0, "n_claims": 0, "qualified": False, "paused": False}
SETTINGS = select(type_coerce(Project.settings, Text)).where(Project.id == bindparam("id"))


def sync(store: Store, name: str, settings: Settings, guidelines: str = "") -> int:
    """Creates the project, or updates its settings. Returns its id.

    A changed overlap also applies to existing tasks: those that now lack rankings go to the end of the queue, and those
    that have enough are done. Guidelines get a new version when the file's text changes; until then, edits made on the
    page stay.
    """
    config, file = settings.model_dump(mode="json"), text_digest(guidelines)
    with store.read() as session:
        found = session.scalar(select(Project).where(Project.name == name))
        if found is not None and found.settings == config and found.guidelines_file == file:
            return found.id
    now = store.clock()
    with store.write() as session:
        project = session.scalar(select(Project).where(Project.name == name))
        if project is None:
            project = Project(name=name, settings=config, guidelines="", guidelines_version=0, last_place=0)
            project.guidelines_file, project.paused, project.secret = "", False, secrets.token_urlsafe(16)
            session.add(project)
            session.flush()
        if project.guidelines_file != file:
            new_guidelines(session, project, guidelines, now)
            project.guidelines_file = file
        if project.settings["overlap"] != settings.overlap:  # else tasks that were sent back keep their own number
            _require(session, project.id, settings.overlap)
        project.settings = config
        data = {"settings": events.digest(config), "guidelines_version": project.guidelines_version}
        events.append(session, now, None, "project", name, data)
        return project.id


def new_guidelines(session: Session, project: Project, text: str, now: float, by: int | None = None) -> None:
    """Adds the next version of a project's guidelines; earlier ones are kept."""
    project.guidelines, project.guidelines_version = text, project.guidelines_version + 1
    version = Guidelines(project_id=project.id, version=project.guidelines_version, text=text, person_id=by, at=now)
    session.add(version)


def guidelines_of(store: Store, project_id: int) -> GuidelinesNow:
    """The current guidelines. Raises `NotYours` for an unknown project."""
    with store.read() as session:
        found = session.execute(_versions(project_id).limit(1)).tuples().first()
    if found is None:
        raise NotYours("project")
    return GuidelinesNow(*found)


def versions(store: Store, project_id: int) -> list[GuidelinesNow]:
    """All versions of the guidelines, newest first."""
    with store.read() as session:
        return [GuidelinesNow(*row) for row in session.execute(_versions(project_id)).tuples()]


def edit_guidelines(store: Store, project_id: int, text: str, version: int, by: int) -> int:
    """Saves an edit of `version`. Returns the new version's number, or `version` if nothing changed.

    Raises `Stale` if somebody else saved meanwhile, `BadPayload` for a text that is too long or contains NUL.
    """
    if len(text) > LONGEST_GUIDELINES:
        raise BadPayload([f"guidelines: {len(text)} characters; give at most {LONGEST_GUIDELINES}"])
    if "\0" in text:
        raise BadPayload(["guidelines: the text contains the character NUL, which cannot be stored; remove it"])
    now = store.clock()
    with store.write() as session:
        project = session.get(Project, project_id)
        if project is None:
            raise NotYours("project")
        if project.guidelines_version != version:
            raise Stale(
                f"the guidelines are at version {project.guidelines_version}, but you edited version {version}; "
                "copy your text, reopen the guidelines and merge it in"
            )
        if project.guidelines != text:
            new_guidelines(session, project, text, now, by)
            data = {"version": project.guidelines_version, "text_sha256": text_digest(text)}
            events.append(session, now, by, "guidelines", project.name, data)
        return project.guidelines_version


def _versions(project_id: int) -> Select[int, str, str, float]:
    query = select(Guidelines.version, Guidelines.text, Person.name, Guidelines.at)
    query = query.outerjoin(Person, Person.id == Guidelines.person_id).where(Guidelines.project_id == project_id)
    return query.order_by(Guidelines.version.desc())


def text_digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def find(store: Store, name: str) -> int | None:
    """The id of the project of this name; None if there is none."""
    with store.read() as session:
        return session.scalar(select(Project.id).where(Project.name == name))


def settings_of(session: Session, project_id: int) -> Settings:
    """The settings in the project's row. Raises `NotYours` for an unknown project."""
    text = session.connection().execute(SETTINGS, {"id": project_id}).scalar()
    if text is None:
        raise NotYours("project")
    return settings_in(text)


@lru_cache(maxsize=64)
def settings_in(text: str) -> Settings:
    """Settings from a project row's JSON; cached, since every call needs them and parsing takes longer than reading."""
    return Settings.model_validate_json(text)


def take_places(session: Session, project_id: int, n: int) -> int:
    """Reserves n new places at the end of the queue. Returns the first."""
    require_exclusive(session)
    project = session.get_one(Project, project_id)
    first = project.last_place + 1
    project.last_place += n
    return first


def _require(session: Session, project_id: int, overlap: int) -> None:
    """Applies a changed overlap to all ranking tasks."""
    mine = (Task.project_id == project_id) & (Task.kind == "rank") & (Task.required != overlap)
    short = (Task.status == "done") & (Task.n_done < overlap)
    low, high = session.execute(select(func.min(Task.place), func.max(Task.place)).where(mine, short)).one()
    behind = 0 if low is None else take_places(session, project_id, high - low + 1) - low
    status = case((Task.status == "closed", "closed"), (Task.n_done < overlap, "open"), else_="done")
    place = case((short, Task.place + behind), else_=Task.place)
    session.execute(
        update(Task)
        .where(mine)
        .values(required=overlap, status=status, place=place)
        .execution_options(synchronize_session=False)
    )
    if behind:  # assignees may have passed a task while it was done
        task_place = select(Task.place).where(Task.id == Assignment.task_id, Task.place >= low + behind)
        moved = update(Assignment).where(Assignment.project_id == project_id, task_place.exists())
        session.execute(moved.values(place=task_place.scalar_subquery()).execution_options(synchronize_session=False))


def desk_of(session: Session, project_id: int, person_id: int) -> Desk:
    """A person's position in a project's queue; made if there is none."""
    desk = session.get(Desk, (project_id, person_id))
    if desk is None:
        desk = Desk(project_id=project_id, person_id=person_id, **NEW_DESK)
        session.add(desk)
        session.flush()
    return desk
