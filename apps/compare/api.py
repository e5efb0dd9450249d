"""The comparison page's API below /api.

    GET  config       models, limits, and the initial sampling settings
    POST ask          {models, threads, sampling, seed} → a stream of events (`answering.py`)
    POST battle       {prompt} → a stream of events that name no model
    POST vote         {id, battle, verdict, seconds} → {saved, names}
    GET  leaderboard  → {places, unranked, n_votes, n_people, figure}
    POST stop         {id} → {stopped}

A stream has one line of JSON per event, the first with its `id`, and sometimes an empty line to keep the connection
alive; closing it stops the answer. `threads` are the conversations, one per model, each ending with a question.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, Field

from align.generation.sampling import Sampling
from align.text.records import Message
from apps.compare.answering import Event, Side, conversation
from apps.compare.arena import Arena, Verdict
from apps.compare.models import StreamingModels
from apps.compare.queue import AnswerQueue, Ticket
from apps.compare.recipe import Recipe
from apps.store.errors import Refused
from apps.web.calls import Body, Person, Visitor, require_header

LONGEST = 20_000  # characters of a message
MOST_TURNS = 100


def _encodable(text: str) -> str:
    """Refuses text that tokenizers and databases cannot take: half of a surrogate pair, and NUL."""
    with suppress(UnicodeEncodeError):
        text.encode()
        if "\0" not in text:
            return text
    raise ValueError("invalid Unicode or the character NUL; remove it")


Text = Annotated[str, Field(max_length=LONGEST), AfterValidator(_encodable)]
Question = Annotated[Text, Field(min_length=1)]
Token = Annotated[str, Field(max_length=100)]


class Turn(Body):
    role: Literal["user", "assistant"]
    content: Text


class How(Body):
    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0, le=10)]
    top_k: Annotated[int, Field(ge=0, le=2**31)]
    top_p: Annotated[float, Field(gt=0, le=1)]


class Ask(Body):
    models: Annotated[list[Token], Field(min_length=1)]
    threads: list[Annotated[list[Turn], Field(min_length=1, max_length=MOST_TURNS)]]
    sampling: How
    seed: Annotated[int, Field(ge=0, lt=2**53)]


class BattleBody(Body):
    prompt: Question


class Vote(Body):
    id: Token
    battle: Token
    verdict: Verdict
    seconds: float = 0.0


class Stop(Body):
    id: Token


def router(recipe: Recipe, models: StreamingModels, queue: AnswerQueue, arena: Arena | None) -> APIRouter:
    """The routes, including the arena's if there is one."""
    api = APIRouter(prefix="/api", include_in_schema=False, dependencies=[Depends(require_header)])

    @api.get("/config")
    def config(person: Visitor) -> dict[str, Any]:
        return {
            "name": recipe.name,
            "models": [{"name": name, "plain": model.text_model.plain} for name, model in models.by_name.items()],
            "reference": recipe.kl_reference,
            "reward": models.reward is not None,
            "sampling": recipe.sampling.model_dump(),
            "seed": recipe.seed,
            "most_tokens": recipe.most_tokens,
            "longest": LONGEST,
            "arena": arena is not None,
            "person": None if person is None else {"id": person.id, "name": person.name},
        }

    @api.post("/ask")
    async def ask(person: Visitor, body: Ask) -> StreamingResponse:
        sides = _sides(models, body)
        if body.sampling.max_tokens > recipe.most_tokens:
            raise Refused(f"max tokens = {body.sampling.max_tokens}: at most {recipe.most_tokens} (most_tokens)")
        how = Sampling(**body.sampling.model_dump())

        def work(ticket: Ticket) -> Iterator[Event]:
            return conversation(models, sides, how, ticket.stopped.is_set)

        return _stream(queue, Ticket(person and person.id, work))

    @api.post("/stop")
    def stop(person: Visitor, body: Stop) -> dict[str, bool]:
        return {"stopped": queue.stop(body.id, person and person.id)}

    if arena is not None:
        _add_arena(api, arena, queue)
    return api


def _add_arena(api: APIRouter, arena: Arena, queue: AnswerQueue) -> None:
    @api.post("/battle")
    async def battle(person: Person, body: BattleBody) -> StreamingResponse:
        if not body.prompt.strip():
            raise Refused("the question is empty; write one")

        def work(ticket: Ticket) -> Iterator[Event]:
            return arena.answer(arena.begin(person.id, body.prompt), ticket)

        return _stream(queue, Ticket(person.id, work))

    @api.post("/vote")
    def vote(person: Person, body: Vote) -> Event:
        return arena.vote(person.id, body.battle, body.id, body.verdict, body.seconds)

    @api.get("/leaderboard")
    def leaderboard(person: Person) -> dict[str, Any]:
        from align.report.charts import forest

        board = arena.board()
        rows = {place.model: place.score for place in board.places}
        svg = forest(rows, "score, nats above the mean", "Models", 0.0)
        return {
            "places": [place._asdict() | {"score": place.score._asdict()} for place in board.places],
            "unranked": [one._asdict() for one in board.unranked],
            "n_votes": board.n_votes,
            "n_people": board.n_people,
            "figure": f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" if svg else "",
        }


def _sides(models: StreamingModels, body: Ask) -> list[Side]:
    """The sides of a request. Raises `Refused` for an invalid one."""
    if len(body.threads) != len(body.models):
        raise Refused(f"{len(body.models)} models and {len(body.threads)} threads; give one thread per model")
    if unknown := [name for name in body.models if name not in models.by_name]:
        raise Refused(f"there is no model {unknown[0]!r}; the models are {', '.join(models.by_name)}")
    if len(set(body.models)) < len(body.models):
        raise Refused("a model is listed twice; name each once")
    for thread in body.threads:
        roles = ["user" if n % 2 == 0 else "assistant" for n in range(len(thread))]
        if [turn.role for turn in thread] != roles or len(thread) % 2 == 0:
            raise Refused("a thread must alternate between question and answer and end with a question")
        if not thread[-1].content.strip():
            raise Refused("the question is empty; write one")
    return [
        Side(models.by_name[name], tuple(Message(turn.role, turn.content) for turn in thread), body.seed)
        for name, thread in zip(body.models, body.threads, strict=True)
    ]


def _stream(queue: AnswerQueue, ticket: Ticket) -> StreamingResponse:
    """Queues a ticket and streams its events. Raises `QueueFull` before the stream starts."""
    queue.join(ticket)

    async def lines() -> AsyncIterator[str]:
        try:
            yield _row({"id": ticket.id})
            async for event in ticket.events():
                yield "\n" if event is None else _row(event)
        finally:
            queue.leave(ticket)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _row(event: Event) -> str:
    return json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
