"""What the labelling page asks of the server, as JSON below /api. Every call is checked against the session's person.

    POST claim        {} → {task} or {nothing, message, retry_at}
    POST heartbeat    {task, lease} → {expires_at}
    PUT  draft        {task, rev, payload} → {saved, rev}
    POST submit       {id, task, lease, payload, seconds} → {saved, id, revision, feedback}
    POST skip         {id, task, lease, reason} → the same
    POST flag         {id, task, lease, reason, comment} → the same
    POST undo         {id or null} → {task or null}
    GET  mine?before= → {items, before}        GET mine/ID → {task}
    POST mine/ID      {payload, seconds} → as submit
    GET  progress, guidelines, config

Besides X-Align the page names its person in X-Align-Person, once it knows: a page that was left open while somebody
else logged in says nothing in their name. `saved` is said after the commit. A task is blind: no model, output id or
score is in it. Its texts come twice, as they are and as safe HTML. Errors are {error: {code, message, remedy}}. The
functions are plain `def`, so FastAPI runs them in threads: none of them waits for the database on the event loop.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AfterValidator, Field

from align.text.records import Message
from apps.store import progress, tasks, work
from apps.store.people import LEADS
from apps.store.project import Project
from apps.store.tasks import Given, Nothing
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
TaskId = Annotated[int, Field(ge=1, lt=2**63)]
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what the database holds
Token = Annotated[str, Field(max_length=100)]
Text = Annotated[str, Field(max_length=20_000)]


class Beat(Body):
    task: TaskId
    lease: Token


class Draft(Body):
    task: TaskId
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


class Revise(Body):
    task: TaskId
    payload: Payload
    seconds: float = 0.0


def router(project: Project) -> APIRouter:
    """The routes of a project."""
    store, project_id, recipe = project.store, project.id, project.recipe
    api = APIRouter(prefix="/api", include_in_schema=False)

    @api.post("/claim")
    def claim(person: Person) -> dict[str, Any]:
        found = tasks.claim(store, project_id, person.id)
        if isinstance(found, Nothing):
            return {"task": None, "nothing": found.reason, "message": found.message, "retry_at": found.retry_at}
        return {"task": shown(found)}

    @api.post("/heartbeat")
    def heartbeat(person: Person, body: Beat) -> dict[str, Any]:
        return {"expires_at": tasks.heartbeat(store, person.id, body.task, body.lease)}

    @api.put("/draft")
    def draft(person: Person, body: Draft) -> dict[str, Any]:
        return work.save_draft(store, person.id, body.task, body.payload, body.rev)._asdict()

    @api.post("/submit")
    def submit(person: Person, body: Submit) -> dict[str, Any]:
        return saved(work.submit(store, person.id, body.id, body.task, body.lease, body.payload, body.seconds))

    @api.post("/skip")
    def skip(person: Person, body: Skip) -> dict[str, Any]:
        return saved(work.skip(store, person.id, body.id, body.task, body.lease, body.reason))

    @api.post("/flag")
    def flag(person: Person, body: Flag) -> dict[str, Any]:
        return saved(work.flag(store, person.id, body.id, body.task, body.lease, body.reason, body.comment))

    @api.post("/undo")
    def undo(person: Person, body: Undo) -> dict[str, Any]:
        given = work.undo(store, project_id, person.id, body.id)
        return {"task": None if given is None else shown(given)}

    @api.get("/mine")
    def mine(person: Person, before: Number | None = None) -> dict[str, Any]:
        found = work.history(store, project_id, person.id, before, N_PAST)
        return {
            "items": [past._asdict() for past in found],
            "before": found[-1].turn if len(found) == N_PAST else None,
        }

    @api.get("/mine/{annotation_id}")
    def one_of_mine(person: Person, annotation_id: str) -> dict[str, Any]:
        return {"task": shown(work.get(store, person.id, annotation_id))}

    @api.post("/mine/{annotation_id}")
    def revise(person: Person, annotation_id: str, body: Revise) -> dict[str, Any]:
        return saved(work.revise(store, person.id, annotation_id, body.payload, body.seconds))

    @api.get("/progress")
    def my_progress(person: Person) -> dict[str, Any]:
        return progress.mine(store, project_id, person.id)._asdict()

    @api.get("/guidelines")
    def guidelines(person: Person) -> dict[str, Any]:
        return {"html": rendered(project.guidelines)}

    @api.get("/config")
    def config(person: Person) -> dict[str, Any]:
        return {
            "project": {"id": project_id, "name": recipe.name},
            "person": {"id": person.id, "name": person.name},
            "lead": person.role in LEADS,
            "questions": recipe.questions.model_dump(mode="json"),
            "ranking": {"ties": recipe.ranking.ties},
            "show": recipe.show,
        }

    return api


def shown(given: Given) -> dict[str, Any]:
    """A task as the page gets it."""
    prompt = [shown_turn(turn) for turn in given.messages]
    answers = [{"slot": slot, "text": text, "html": rendered(text)} for slot, text in enumerate(given.answers)]
    rest = {key: value for key, value in given._asdict().items() if key not in ("messages", "answers")}
    return {**rest, "prompt": prompt, "answers": answers}


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
