"""A project's row: what project.yaml says, brought into the database."""

from __future__ import annotations

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import NotYours
from apps.store.settings import Settings
from apps.store.tables import Desk, Project, Task


def sync(store: Store, name: str, settings: Settings, guidelines: str = "") -> int:
    """Makes the project, or brings its settings up to date. Returns its id.

    Another overlap holds for tasks that are there already: what is then short of people goes behind the queue again,
    and what has enough of them is done. Guidelines get a new version when their text changes.
    """
    config = settings.model_dump(mode="json")
    with store.read() as session:
        found = session.scalar(select(Project).where(Project.name == name))
        if found is not None and found.settings == config and found.guidelines == guidelines:
            return found.id
    with store.write() as session:
        project = session.scalar(select(Project).where(Project.name == name))
        if project is None:
            project = Project(name=name, settings=config, guidelines=guidelines, guidelines_version=1)
            session.add(project)
            session.flush()
        elif project.guidelines != guidelines:
            project.guidelines, project.guidelines_version = guidelines, project.guidelines_version + 1
        project.settings = config
        _require(session, project.id, settings.overlap)
        data = {"settings": events.digest(config), "guidelines_version": project.guidelines_version}
        events.append(session, store.clock(), None, "project", name, data)
        return project.id


def find(store: Store, name: str) -> int | None:
    """The id of the project of this name, if there is one."""
    with store.read() as session:
        return session.scalar(select(Project.id).where(Project.name == name))


def settings_of(session: Session, project_id: int) -> Settings:
    """What the project's row says. Raises `NotYours` for a project that is not there."""
    project = session.get(Project, project_id)
    if project is None:
        raise NotYours("project")
    return Settings.model_validate(project.settings)


def next_place(session: Session, project_id: int) -> int:
    """The first place behind everything that stands in the queue."""
    return (session.scalar(select(func.max(Task.place)).where(Task.project_id == project_id)) or 0) + 1


def _require(session: Session, project_id: int, overlap: int) -> None:
    """Another overlap for all tasks that people share."""
    mine = (Task.project_id == project_id) & (Task.kind == "rank") & (Task.required != overlap)
    behind = next_place(session, project_id)
    short = (Task.status == "done") & (Task.n_done < overlap)
    status = case((Task.status == "closed", "closed"), (Task.n_done < overlap, "open"), else_="done")
    place = case((short, Task.place + behind), else_=Task.place)
    session.execute(
        update(Task)
        .where(mine)
        .values(required=overlap, status=status, place=place)
        .execution_options(synchronize_session=False)
    )


def desk_of(session: Session, project_id: int, person_id: int) -> Desk:
    """How far a person is in a project."""
    desk = session.get(Desk, (project_id, person_id))
    if desk is None:
        desk = Desk(project_id=project_id, person_id=person_id, place=0, n_claims=0, qualified=False)
        session.add(desk)
        session.flush()
    return desk
