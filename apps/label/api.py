"""What the labelling page asks of the server, as JSON below /api. Every call is checked against the session's person.

    POST claim        {} → {task} or {nothing, message, retry_at}
    POST heartbeat    {task, lease} → {expires_at}
    PUT  draft        {task, rev, payload} → {saved, rev}
    POST submit       {id, task, lease, payload, seconds} → {saved, id, revision, feedback}
    POST skip         {id, task, lease, reason} → the same
    POST flag         {id, task, lease, reason, comment} → the same
    POST undo         {id or null} → {task or null}
    POST adjudicate   {task} → {task}, for reviewers and admins: what they submit for it decides it
    GET  mine?before= → {items, before}        GET mine/ID → {task}
    POST mine/ID      {payload, seconds} → as submit
    GET  progress?since= (when the person's day began), guidelines, config

A task is named by its public id, here and in every answer: what was imported together cannot be told from it.
Where a server has several projects, each call names one: ?project=ID. `GET projects` lists them.
`progress` has the guidelines' version, so that a page can say when they changed. Besides X-Align the page names its
person in X-Align-Person, once it knows: a page that was left open while somebody else logged in says nothing in their
name; a script sends a token instead, `Authorization: Bearer`. `saved` is said after the commit. A task is blind: no
model, output id or score is in it. Its texts come twice, as they are and as safe HTML. Errors are {error: {code,
message, remedy}}. The functions are plain `def`, so FastAPI runs them in threads: none of them waits for the database
on the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import AfterValidator, Field

from align.text.records import Message
from apps.store import progress, projects, reviews, tasks, work
from apps.store.choosing import Nothing
from apps.store.errors import NotYours
from apps.store.leases import PublicId
from apps.store.people import LEADS
from apps.store.project import Project
from apps.store.tasks import Given
from apps.web.calls import Body, Person
from apps.web.render import rendered, verbatim

N_PAST = 30  # entries of a list of past work


def _unicode(payload: dict[str, Any]) -> dict[str, Any]:
    """Refuses what could be kept and never be shown again. Pydantic does so for strings outside of a payload."""
    try:
        json.dumps(payload, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode (half of a surrogate pair)") from None
    return payload


Payload = Annotated[dict[str, Any], AfterValidator(_unicode)]
TaskId = Annotated[int, Field(ge=1, lt=2**63), AfterValidator(PublicId)]
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what the database holds
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
    """The project that a call names, or the only one. Raises 404 for one that is not served here."""
    served: Mapping[int, Project] = request.app.state.projects
    if project is None and len(served) == 1:
        return next(iter(served.values()))
    if project is None or project not in served:
        raise HTTPException(404, "There is no such project here: add ?project=ID, as GET /api/projects lists them")
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
        if isinstance(found, Nothing):
            return {"task": None, "nothing": found.reason, "message": found.message, "retry_at": found.retry_at}
        return {"task": shown(found)}

    @api.post("/heartbeat")
    def heartbeat(project: Chosen, person: Person, body: Beat) -> dict[str, Any]:
        return {"expires_at": tasks.heartbeat(project.store, person.id, body.task, body.lease)}

    @api.put("/draft")
    def draft(project: Chosen, person: Person, body: Draft) -> dict[str, Any]:
        return work.save_draft(project.store, person.id, body.task, body.payload, body.rev)._asdict()

    @api.post("/submit")
    def submit(project: Chosen, person: Person, body: Submit) -> dict[str, Any]:
        return saved(work.submit(project.store, person.id, body.id, body.task, body.lease, body.payload, body.seconds))

    @api.post("/skip")
    def skip(project: Chosen, person: Person, body: Skip) -> dict[str, Any]:
        return saved(work.skip(project.store, person.id, body.id, body.task, body.lease, body.reason))

    @api.post("/flag")
    def flag(project: Chosen, person: Person, body: Flag) -> dict[str, Any]:
        return saved(work.flag(project.store, person.id, body.id, body.task, body.lease, body.reason, body.comment))

    @api.post("/undo")
    def undo(project: Chosen, person: Person, body: Undo) -> dict[str, Any]:
        given = work.undo(project.store, project.id, person.id, body.id)
        return {"task": None if given is None else shown(given)}

    @api.post("/adjudicate")
    def adjudicate(project: Chosen, person: Person, body: Adjudicate) -> dict[str, Any]:
        if person.role not in LEADS:
            raise NotYours
        return {"task": shown(reviews.adjudicate(project.store, project.id, body.task, person.id))}

    @api.get("/mine")
    def mine(project: Chosen, person: Person, before: Number | None = None) -> dict[str, Any]:
        found = work.history(project.store, project.id, person.id, before, N_PAST)
        return {
            "items": [past._asdict() for past in found],
            "before": found[-1].turn if len(found) == N_PAST else None,
        }

    @api.get("/mine/{annotation_id}")
    def one_of_mine(project: Chosen, person: Person, annotation_id: str) -> dict[str, Any]:
        return {"task": shown(work.get(project.store, person.id, annotation_id))}

    @api.post("/mine/{annotation_id}")
    def revise(project: Chosen, person: Person, annotation_id: str, body: Revise) -> dict[str, Any]:
        return saved(work.revise(project.store, person.id, annotation_id, body.payload, body.seconds))

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


def shown(given: Given) -> dict[str, Any]:
    """A task as the page gets it."""
    prompt = [shown_turn(turn) for turn in given.messages]
    answers = [{"slot": slot, "text": text, "html": rendered(text)} for slot, text in enumerate(given.answers)]
    rest = {key: value for key, value in given._asdict().items() if key not in ("messages", "answers", "public_id")}
    return {**rest, "id": given.public_id, "prompt": prompt, "answers": answers}


def shown_turn(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn as the page gets it. What tools are given and give is no Markdown: it is shown as it is."""
    role, text = turn["role"], turn["content"]
    if role == "tools":
        text = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    found = {"role": role, "text": text, "html": (verbatim if role in ("tool", "tools") else rendered)(text)}
    if thoughts := turn.get("reasoning_content"):
        found["thoughts"] = {"text": thoughts, "html": rendered(thoughts)}
    if calls := Message.of(turn).calls:
        told = "\n".join(map(told_call, json.loads(calls)))
        found["calls"] = {"text": told, "html": verbatim(told)}
    return found | {"name": turn.get("name", "")}


def told_call(call: dict[str, Any]) -> str:
    """A call of a tool as people write it: weather({"city": "Oslo"})."""
    function = call.get("function", call)
    given = function.get("arguments", {})
    return f"{function.get('name', '')}({given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)})"


def saved(answer: work.Saved) -> dict[str, Any]:
    """What was committed; `feedback` of practice tasks."""
    feedback = None if answer.feedback is None else answer.feedback._asdict()
    return {"saved": True, "id": answer.id, "revision": answer.revision, "feedback": feedback}
