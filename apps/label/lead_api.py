"""The lead's page: its JSON API below /api/lead, for reviewers and admins, checked with each call.

    GET  page              {asks, project, as_of, took_s, sections, disputes, n_reports}: all that Refresh reloads
    GET  tasks/ID          {task}: rendered prompt and answers, everybody's ranks, remarks
    POST accept, send_back {task}                     for a disputed task
    POST close, reopen     {task}
    POST assign, unassign  {tasks, names}, {tasks}
    GET  reports           {reports}                  POST keep {annotation}   POST edit {task, text}
    GET  guidelines        {version, text, html, versions}
    POST guidelines        {text, version}            POST preview {text} → {html}
    POST pause             {paused}                   stop or resume handing out tasks
    GET  export/NAME       a file: rankings, preferences, audit, people

People are managed in `people_api.py`. Actions answer {done}: a message about the result. Task ids are the database's.
Only `page` may wait for figures to be computed. In `page`, `asks` is the person who called.
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
from apps.store.reading import AnnotatedTask, annotated_task
from apps.store.tables import Assignment, Person, Task
from apps.store.tables import Project as ProjectRow
from apps.web.calls import Body, Reviewer
from apps.web.render import rendered

MOST_TASKS = 10_000  # in one assignment
CHUNK = 1 << 16  # bytes per chunk of a sent file

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


def lead_of(request: Request, project: Chosen) -> Lead:
    """The figures of a call's project."""
    found: Lead = request.app.state.leads[project.id]
    return found


def one_task(project: Chosen, body: One) -> AnnotatedTask:
    """A call's task. Raises 404 for a task of another project."""
    return found_task(project, body.task)


def found_task(project: Project, task_id: int) -> AnnotatedTask:
    """A task with all its annotations. Raises 404 if the project has no such task."""
    with project.store.read() as session:
        found = annotated_task(session, project.id, task_id)
    if found is None:
        raise HTTPException(404, f"This project has no task {task_id}")
    return found


Figures = Annotated[Lead, Depends(lead_of)]
OneTask = Annotated[AnnotatedTask, Depends(one_task)]


def router() -> APIRouter:
    """The routes, for all projects of `app.state.projects`."""
    lead = APIRouter(prefix="/api/lead", include_in_schema=False)
    _looking(lead)
    _deciding(lead)
    _guiding(lead)
    return lead


def _looking(lead: APIRouter) -> None:
    @lead.get("/page")
    def page(user: Reviewer, project: Chosen, figures: Figures) -> dict[str, Any]:
        view = figures.view()
        reports = reviews.reports(project.store, project.id)
        return {
            "asks": {"id": user.id, "name": user.name, "role": user.role},
            "project": about(project),
            "as_of": view.at,
            "took_s": view.took_s,
            "sections": tables.sections(view),
            "disputes": disputes(project, view),
            "n_reports": sum(not report.handled for report in reports),
        }

    @lead.get("/tasks/{task_id}")
    def task(user: Reviewer, project: Chosen, task_id: Number) -> dict[str, Any]:
        return {"task": task_json(project, found_task(project, task_id))}

    @lead.get("/reports")
    def reports(user: Reviewer, project: Chosen) -> dict[str, Any]:
        return {"reports": [report._asdict() for report in reviews.reports(project.store, project.id)]}

    @lead.get("/export/{name}")
    def export(
        user: Reviewer, project: Chosen, name: Literal["rankings", "preferences", "audit", "people"]
    ) -> StreamingResponse:
        kind = "text/csv" if name == "people" else "application/x-ndjson"
        return StreamingResponse(_chunks(exported(project, name)), media_type=kind)


def _deciding(lead: APIRouter) -> None:
    @lead.post("/accept")
    def accept(user: Reviewer, project: Chosen, task: OneTask) -> dict[str, str]:
        reviews.accept_task(project.store, project.id, task.id, user.id)
        return {"done": f"Task {task.id} is accepted as it is."}

    @lead.post("/send_back")
    def send_back(user: Reviewer, project: Chosen, task: OneTask) -> dict[str, str]:
        required = reviews.send_back(project.store, project.id, task.id, user.id)
        return {"done": f"Task {task.id} is in the queue again for one more person ({required} in total)."}

    @lead.post("/close")
    def close(user: Reviewer, project: Chosen, task: OneTask) -> dict[str, str]:
        tasks.close_task(project.store, task.id, user.id)
        return {"done": f"Task {task.id} is closed. Nobody gets it any more."}

    @lead.post("/reopen")
    def reopen(user: Reviewer, project: Chosen, task: OneTask) -> dict[str, str]:
        tasks.reopen_task(project.store, task.id, user.id)
        return {"done": f"Task {task.id} is open again."}

    @lead.post("/assign")
    def assign(user: Reviewer, project: Chosen, body: Assigned) -> dict[str, str]:
        n = tasks.assign(project.store, project.id, body.tasks, body.names, user.id)
        return {"done": f"{_tasks(n)} assigned to {', '.join(body.names)} only."}

    @lead.post("/unassign")
    def unassign(user: Reviewer, project: Chosen, body: Some) -> dict[str, str]:
        n = tasks.unassign(project.store, project.id, body.tasks, user.id)
        return {"done": f"{_tasks(n)} open to everybody again."}

    @lead.post("/keep")
    def keep(user: Reviewer, project: Chosen, body: Kept) -> dict[str, str]:
        reviews.keep_report(project.store, project.id, body.annotation, user.id)
        return {"done": "The task is kept as it is."}

    @lead.post("/edit")
    def edit(user: Reviewer, project: Chosen, body: Edited) -> dict[str, str]:
        new = reviews.edit_prompt(project.store, project.id, body.task, body.text, user.id)
        return {"done": f"Task {new} has the edited prompt. Task {body.task} is closed."}

    @lead.post("/pause")
    def pause(user: Reviewer, project: Chosen, body: Paused) -> dict[str, str]:
        tasks.pause(project.store, project.id, body.paused, user.id)
        return {"done": "Paused: no tasks are handed out." if body.paused else "Resumed: tasks are handed out again."}


def _guiding(lead: APIRouter) -> None:
    @lead.get("/guidelines")
    def guidelines(user: Reviewer, project: Chosen) -> dict[str, Any]:
        now = projects.guidelines_of(project.store, project.id)
        versions = [version._asdict() for version in projects.versions(project.store, project.id)]
        return {"version": now.version, "text": now.text, "html": rendered(now.text), "versions": versions}

    @lead.post("/guidelines")
    def edit_guidelines(user: Reviewer, project: Chosen, body: Guided) -> dict[str, Any]:
        version = projects.edit_guidelines(project.store, project.id, body.text, body.version, user.id)
        return {"version": version, "done": f"Saved as version {version}. Annotators see it from now on."}

    @lead.post("/preview")
    def preview(user: Reviewer, body: Preview) -> dict[str, str]:
        return {"html": rendered(body.text)}


def about(project: Project) -> dict[str, Any]:
    """The project for the page."""
    with project.store.read() as session:
        paused = session.get_one(ProjectRow, project.id).paused
    return {"id": project.id, "name": project.recipe.name, "paused": paused}


def disputes(project: Project, view: View) -> list[dict[str, Any]]:
    """The disputed tasks, largest disagreement first."""
    found = view.summary.disputes
    with project.store.read() as session:
        beginnings = reviews.beginnings(session, [one.task for one in found])
    return [
        {"task": one.task, "beginning": beginnings.get(one.task, ""), "about": tables.dispute(one)} for one in found
    ]


def task_json(project: Project, task: AnnotatedTask) -> dict[str, Any]:
    """A task with all its annotations for the page, without model names."""
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
        "asked": next((message["content"] for message in reversed(task.messages) if message["role"] == "user"), ""),
        "prompt": [api.message_json(message) for message in task.messages],
        "answers": [{"text": answer.text, "html": rendered(answer.text)} for answer in task.answers],
        "rankings": tables.table("Ranks, 1 is best", headings, rows),
        "remarks": tables.table("Remarks", tables.REMARKS, tables.remarks(task)),
    }


def _tasks(n: int) -> str:
    return "1 task is" if n == 1 else f"{n:,} tasks are"


def exported(project: Project, name: str) -> IO[bytes]:
    """An open export file. It is already unlinked, so nothing remains on disk however the download ends."""
    with tempfile.TemporaryDirectory(prefix="align-export-") as folder:
        (made,) = exporting.export(project, Path(folder), (name,))
        return made.path.open("rb")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
