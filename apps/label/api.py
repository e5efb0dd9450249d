"""The labelling page's JSON API below /api. Every call is checked against the session's person.

    POST claim        {} → {task} or {nothing, message, retry_at}
    POST heartbeat    {task, lease} → {expires_at}
    PUT  draft        {task, rev, payload} → {saved, rev}
    POST submit       {id, task, lease, payload, seconds} → {saved, id, revision, final, feedback}
    POST skip         {id, task, lease, reason} → the same
    POST flag         {id, task, lease, reason, comment} → the same
    POST undo         {id or null} → {task or null}
    POST adjudicate   {task} → {task}; for reviewers and admins: the ranking that they submit decides the task
    GET  mine?before= → {items, before}        GET mine/ID → {task}
    POST mine/ID      {payload, seconds} → as submit
    GET  progress?since= (when the person's day began), guidelines, config

Tasks are identified by their public id in calls and answers, which does not reveal what was imported together. If a
server has several projects, each call names one: ?project=ID; `GET projects` lists them. `progress` includes the
guidelines' version, so that the page can announce changes. Besides X-Align the page sends its person in X-Align-Person:
a page left open while somebody else logs in cannot act in their name. A script sends a token instead (`Authorization:
Bearer`). `saved` is sent after the commit. A task is blind: it has no model, output id or score. Its texts come twice,
raw and as safe HTML. Errors are {error: {code, message, remedy}}. The functions are plain `def`, so FastAPI runs them
in threads and none blocks the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import AfterValidator, Field

from align.text.records import Message
from apps.store import progress, projects, reviews, tasks, work
from apps.store.choosing import NoTask
from apps.store.errors import NotYours
from apps.store.leases import PublicId
from apps.store.people import LEADS
from apps.store.project import Project
from apps.store.tasks import TaskView
from apps.web.calls import Body, Person
from apps.web.render import rendered, verbatim

N_HISTORY = 30  # entries per page of the history


def _unicode(payload: dict[str, Any]) -> dict[str, Any]:
    """Refuses invalid Unicode, which could be stored but never shown. Pydantic checks strings outside of a payload."""
    try:
        json.dumps(payload, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode (half of a surrogate pair)") from None
    return payload


Payload = Annotated[dict[str, Any], AfterValidator(_unicode)]
TaskId = Annotated[int, Field(ge=1, lt=2**63), AfterValidator(PublicId)]
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # the database's range
Token = Annotated[str, Field(max_length=100)]
Text = Annotated[str, Field(max_length=20_000)]


class Beat(Body):
    task: TaskId
    lease: Token


class Adjudicate(Body):
    task: TaskId


class Draft(Adjudicate):
    rev: Number
    payload: Payload


class Submit(Beat):
    id: Token
    payload: Payload
    seconds: float = 0.0


class Skip(Beat):
    id: Token
    reason: Text


class Flag(Skip):
    comment: Text = ""


class Undo(Body):
    id: Token | None = None


class Revise(Adjudicate):
    payload: Payload
    seconds: float = 0.0


async def chosen(request: Request, person: Person, project: Number | None = None) -> Project:
    """The project that a call names, or the only one. Raises 404 for a project that this server does not have."""
    served: Mapping[int, Project] = request.app.state.projects
    if project is None and len(served) == 1:
        return next(iter(served.values()))
    if project is None or project not in served:
        raise HTTPException(404, "There is no such project: add ?project=ID with an id from GET /api/projects")
    return served[project]


Chosen = Annotated[Project, Depends(chosen)]


def router() -> APIRouter:
    """The routes, for all projects of `app.state.projects`."""
    api = APIRouter(prefix="/api", include_in_schema=False)

    @api.get("/projects")
    def served_here(person: Person, request: Request) -> dict[str, Any]:
        served: Mapping[int, Project] = request.app.state.projects
        return {"projects": [{"id": one.id, "name": one.recipe.name} for one in served.values()]}

    @api.post("/claim")
    def claim(project: Chosen, person: Person) -> dict[str, Any]:
        found = tasks.claim(project.store, project.id, person.id)
        if isinstance(found, NoTask):
            return {"task": None, "nothing": found.reason, "message": found.message, "retry_at": found.retry_at}
        return {"task": task_json(found)}

    @api.post("/heartbeat")
    def heartbeat(project: Chosen, person: Person, body: Beat) -> dict[str, Any]:
        return {"expires_at": tasks.heartbeat(project.store, person.id, body.task, body.lease)}

    @api.put("/draft")
    def draft(project: Chosen, person: Person, body: Draft) -> dict[str, Any]:
        return work.save_draft(project.store, person.id, body.task, body.payload, body.rev)._asdict()

    @api.post("/submit")
    def submit(project: Chosen, person: Person, body: Submit) -> dict[str, Any]:
        return saved_json(
            work.submit(project.store, person.id, body.id, body.task, body.lease, body.payload, body.seconds)
        )

    @api.post("/skip")
    def skip(project: Chosen, person: Person, body: Skip) -> dict[str, Any]:
        return saved_json(work.skip(project.store, person.id, body.id, body.task, body.lease, body.reason))

    @api.post("/flag")
    def flag(project: Chosen, person: Person, body: Flag) -> dict[str, Any]:
        return saved_json(
            work.flag(project.store, person.id, body.id, body.task, body.lease, body.reason, body.comment)
        )

    @api.post("/undo")
    def undo(project: Chosen, person: Person, body: Undo) -> dict[str, Any]:
        given = work.undo(project.store, project.id, person.id, body.id)
        return {"task": None if given is None else task_json(given)}

    @api.post("/adjudicate")
    def adjudicate(project: Chosen, person: Person, body: Adjudicate) -> dict[str, Any]:
        if person.role not in LEADS:
            raise NotYours
        return {"task": task_json(reviews.adjudicate(project.store, project.id, body.task, person.id))}

    @api.get("/mine")
    def mine(project: Chosen, person: Person, before: Number | None = None) -> dict[str, Any]:
        found = work.history(project.store, project.id, person.id, before, N_HISTORY)
        return {
            "items": [past._asdict() for past in found],
            "before": found[-1].turn if len(found) == N_HISTORY else None,
        }

    @api.get("/mine/{annotation_id}")
    def one_of_mine(project: Chosen, person: Person, annotation_id: str) -> dict[str, Any]:
        return {"task": task_json(work.get(project.store, person.id, annotation_id))}

    @api.post("/mine/{annotation_id}")
    def revise(project: Chosen, person: Person, annotation_id: str, body: Revise) -> dict[str, Any]:
        return saved_json(work.revise(project.store, person.id, annotation_id, body.payload, body.seconds))

    @api.get("/progress")
    def my_progress(
        project: Chosen, person: Person, since: Annotated[float | None, Query(allow_inf_nan=False)] = None
    ) -> dict[str, Any]:
        return progress.mine(project.store, project.id, person.id, since)._asdict()

    @api.get("/guidelines")
    def guidelines(project: Chosen, person: Person) -> dict[str, Any]:
        now = projects.guidelines_of(project.store, project.id)
        return {"html": rendered(now.text), "version": now.version, "at": now.at}

    @api.get("/config")
    def config(project: Chosen, person: Person) -> dict[str, Any]:
        return {
            "project": {"id": project.id, "name": project.recipe.name},
            "person": {"id": person.id, "name": person.name},
            "lead": person.role in LEADS,
            "questions": project.recipe.questions.model_dump(mode="json"),
            "ranking": {"ties": project.recipe.ranking.ties},
            "show": project.recipe.show,
        }

    return api


def task_json(task: TaskView) -> dict[str, Any]:
    """A task for the page."""
    prompt = [message_json(message) for message in task.messages]
    answers = [{"slot": slot, "text": text, "html": rendered(text)} for slot, text in enumerate(task.answers)]
    rest = {key: value for key, value in task._asdict().items() if key not in ("messages", "answers", "public_id")}
    return {**rest, "id": task.public_id, "prompt": prompt, "answers": answers}


def message_json(message: dict[str, Any]) -> dict[str, Any]:
    """A message for the page. Tool definitions, calls and results are shown verbatim, not as Markdown."""
    role, text = message["role"], message["content"]
    if role == "tools":
        text = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    found = {"role": role, "text": text, "html": (verbatim if role in ("tool", "tools") else rendered)(text)}
    if thoughts := message.get("reasoning_content"):
        found["thoughts"] = {"text": thoughts, "html": rendered(thoughts)}
    if calls := Message.of(message).calls:
        text = "\n".join(map(call_text, json.loads(calls)))
        found["calls"] = {"text": text, "html": verbatim(text)}
    return found | {"name": message.get("name", "")}


def call_text(call: dict[str, Any]) -> str:
    """A tool call as a function call: weather({"city": "Oslo"})."""
    function = call.get("function", call)
    given = function.get("arguments", {})
    return f"{function.get('name', '')}({given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)})"


def saved_json(saved: work.Saved) -> dict[str, Any]:
    """A saved annotation, with the feedback of a practice task."""
    feedback = None if saved.feedback is None else saved.feedback._asdict()
    return {"saved": True, "id": saved.id, "revision": saved.revision, "final": saved.final, "feedback": feedback}
