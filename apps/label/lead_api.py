"""What the lead's page asks of the server, as JSON below /api/lead: for reviewers and admins, checked with each call.

    GET  page              {asks, project, as_of, took_s, sections, disputes, n_reports}: what Refresh brings anew
    GET  tasks/ID          {task}: prompt and answers rendered, who ranked how, remarks
    POST accept, send_back {task}                     about a task on which people differ
    POST close, reopen     {task}
    POST assign, unassign  {tasks, names}, {tasks}
    GET  reports           {reports}                  POST keep {annotation}   POST edit {task, text}
    GET  guidelines        {version, text, html, versions}
    POST guidelines        {text, version}            POST preview {text} → {html}
    POST pause             {paused}                   nobody is given a task
    GET  export/NAME       a file: rankings, preferences, audit, people

Who manages people: see `people_api.py`. A decision is answered with {done}: what has happened, in words. The ids of
tasks are those of the database. `page` may wait for figures that are computed; nothing else does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import Field
from sqlalchemy import select
from starlette.responses import StreamingResponse

from apps.label import api, exporting, tables
from apps.label.api import Chosen, Number
from apps.label.lead import Lead, View
from apps.store import projects, reviews, tasks
from apps.store.project import Project
from apps.store.reading import Judged, judged_task
from apps.store.tables import Assignment, Person, Task
from apps.store.tables import Project as ProjectRow
from apps.web.calls import Body, Reviewer
from apps.web.render import rendered

MOST_TASKS = 10_000  # in one assignment
CHUNK = 1 << 16  # bytes of a file that is sent

Guide = Annotated[str, Field(max_length=200_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class One(Body):
    task: Number


class Some(Body):
    tasks: Annotated[list[Number], Field(min_length=1, max_length=MOST_TASKS)]


class Assigned(Some):
    names: Annotated[list[Name], Field(min_length=1, max_length=1000)]


class Kept(Body):
    annotation: api.Token


class Edited(One):
    text: Guide


class Guided(Body):
    text: Guide
    version: Number


class Preview(Body):
    text: Guide


class Paused(Body):
    paused: bool


def leading(request: Request, project: Chosen) -> Lead:
    """The figures of the project that a call is about."""
    found: Lead = request.app.state.leads[project.id]
    return found


def one_task(project: Chosen, body: One) -> Judged:
    """The task that a call is about. Raises 404 for one of another project."""
    return found_task(project, body.task)


def found_task(project: Project, task_id: int) -> Judged:
    """A task with all that was said about it. Raises 404 if this project has none of that number."""
    with project.store.read() as session:
        found = judged_task(session, project.id, task_id)
    if found is None:
        raise HTTPException(404, f"There is no task {task_id} in this project")
    return found


Figures = Annotated[Lead, Depends(leading)]
OneTask = Annotated[Judged, Depends(one_task)]


def router() -> APIRouter:
    """The routes, for all projects of `app.state.projects`."""
    lead = APIRouter(prefix="/api/lead", include_in_schema=False)
    _looking(lead)
    _deciding(lead)
    _guiding(lead)
    return lead


def _looking(lead: APIRouter) -> None:
    @lead.get("/page")
    def page(asks: Reviewer, project: Chosen, figures: Figures) -> dict[str, Any]:
        view = figures.view()
        reports = reviews.reports(project.store, project.id)
        return {
            "asks": {"id": asks.id, "name": asks.name, "role": asks.role},
            "project": about(project),
            "as_of": view.at,
            "took_s": view.took_s,
            "sections": tables.sections(view),
            "disputes": disputes(project, view),
            "n_reports": sum(not report.handled for report in reports),
        }

    @lead.get("/tasks/{task_id}")
    def task(asks: Reviewer, project: Chosen, task_id: Number) -> dict[str, Any]:
        return {"task": shown(project, found_task(project, task_id))}

    @lead.get("/reports")
    def reports(asks: Reviewer, project: Chosen) -> dict[str, Any]:
        return {"reports": [report._asdict() for report in reviews.reports(project.store, project.id)]}

    @lead.get("/export/{name}")
    def export(
        asks: Reviewer, project: Chosen, name: Literal["rankings", "preferences", "audit", "people"]
    ) -> StreamingResponse:
        kind = "text/csv" if name == "people" else "application/x-ndjson"
        return StreamingResponse(_chunks(exported(project, name)), media_type=kind)


def _deciding(lead: APIRouter) -> None:
    @lead.post("/accept")
    def accept(asks: Reviewer, project: Chosen, task: OneTask) -> dict[str, str]:
        reviews.accept_task(project.store, project.id, task.id, asks.id)
        return {"done": f"Task {task.id} is accepted as it is."}

    @lead.post("/send_back")
    def send_back(asks: Reviewer, project: Chosen, task: OneTask) -> dict[str, str]:
        required = reviews.send_back(project.store, project.id, task.id, asks.id)
        return {"done": f"Task {task.id} is in the queue again, for one more person: {required} in all."}

    @lead.post("/close")
    def close(asks: Reviewer, project: Chosen, task: OneTask) -> dict[str, str]:
        tasks.close_task(project.store, task.id, asks.id)
        return {"done": f"Task {task.id} is closed: nobody gets it any more."}

    @lead.post("/reopen")
    def reopen(asks: Reviewer, project: Chosen, task: OneTask) -> dict[str, str]:
        tasks.reopen_task(project.store, task.id, asks.id)
        return {"done": f"Task {task.id} is open again."}

    @lead.post("/assign")
    def assign(asks: Reviewer, project: Chosen, body: Assigned) -> dict[str, str]:
        n = tasks.assign(project.store, project.id, body.tasks, body.names, asks.id)
        return {"done": f"{_tasks(n)} for {', '.join(body.names)} and nobody else."}

    @lead.post("/unassign")
    def unassign(asks: Reviewer, project: Chosen, body: Some) -> dict[str, str]:
        n = tasks.unassign(project.store, project.id, body.tasks, asks.id)
        return {"done": f"{_tasks(n)} for everybody again."}

    @lead.post("/keep")
    def keep(asks: Reviewer, project: Chosen, body: Kept) -> dict[str, str]:
        reviews.keep_report(project.store, project.id, body.annotation, asks.id)
        return {"done": "The task stays as it is."}

    @lead.post("/edit")
    def edit(asks: Reviewer, project: Chosen, body: Edited) -> dict[str, str]:
        new = reviews.edit_prompt(project.store, project.id, body.task, body.text, asks.id)
        return {"done": f"Task {new} has the new prompt; task {body.task} is closed."}

    @lead.post("/pause")
    def pause(asks: Reviewer, project: Chosen, body: Paused) -> dict[str, str]:
        tasks.pause(project.store, project.id, body.paused, asks.id)
        return {"done": "Nobody is given a task now." if body.paused else "People are given tasks again."}


def _guiding(lead: APIRouter) -> None:
    @lead.get("/guidelines")
    def guidelines(asks: Reviewer, project: Chosen) -> dict[str, Any]:
        now = projects.guidelines_of(project.store, project.id)
        versions = [version._asdict() for version in projects.versions(project.store, project.id)]
        return {"version": now.version, "text": now.text, "html": rendered(now.text), "versions": versions}

    @lead.post("/guidelines")
    def edit_guidelines(asks: Reviewer, project: Chosen, body: Guided) -> dict[str, Any]:
        version = projects.edit_guidelines(project.store, project.id, body.text, body.version, asks.id)
        return {"version": version, "done": f"Saved as version {version}; people read it from now on."}

    @lead.post("/preview")
    def preview(asks: Reviewer, body: Preview) -> dict[str, str]:
        return {"html": rendered(body.text)}


def about(project: Project) -> dict[str, Any]:
    """The project as the page gets it."""
    with project.store.read() as session:
        paused = session.get_one(ProjectRow, project.id).paused
    return {"id": project.id, "name": project.recipe.name, "paused": paused}


def disputes(project: Project, view: View) -> list[dict[str, Any]]:
    """The tasks on which people differ, the worst first."""
    found = view.summary.disputes
    with project.store.read() as session:
        beginnings = reviews.beginnings(session, [one.task for one in found])
    return [
        {"task": one.task, "beginning": beginnings.get(one.task, ""), "about": tables.dispute(one)} for one in found
    ]


def shown(project: Project, task: Judged) -> dict[str, Any]:
    """A task with all that was said about it, as the page gets it. Which model wrote what is not in it."""
    headings, rows = tables.rankings(task)
    with project.store.read() as session:
        row = session.get_one(Task, task.id)
        names = select(Person.name).join(Assignment, Assignment.person_id == Person.id).order_by(Person.key)
        assigned = session.scalars(names.where(Assignment.task_id == task.id)).all()
    return {
        "id": task.id,
        "public_id": row.public_id,
        "kind": task.kind,
        "status": row.status,
        "required": row.required,
        "assigned": assigned,
        "asked": next((turn["content"] for turn in reversed(task.messages) if turn["role"] == "user"), ""),
        "prompt": [api.shown_turn(turn) for turn in task.messages],
        "answers": [{"text": answer.text, "html": rendered(answer.text)} for answer in task.answers],
        "rankings": tables.table("Ranks, 1 is best", headings, rows),
        "remarks": tables.table("Remarks", tables.REMARKS, tables.remarks(task)),
    }


def _tasks(n: int) -> str:
    return "1 task is" if n == 1 else f"{n:,} tasks are"


def exported(project: Project, name: str) -> IO[bytes]:
    """An export, open. Its name is gone from the disk already: nothing is left however the sending ends."""
    with tempfile.TemporaryDirectory(prefix="align-export-") as folder:
        (made,) = exporting.export(project, Path(folder), (name,))
        return made.path.open("rb")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
