"""What the page asks of the server, below /api.

    GET  config       what there is: models, limits, the sampling to begin with
    POST ask          {models, threads, sampling, seed} → a stream of events (`answering.py`)
    POST battle       {prompt} → a stream of events that name no model
    POST vote         {id, battle, verdict, seconds} → {saved, names}
    GET  leaderboard  → {places, unranked, n_votes, n_people, figure}
    POST stop         {id} → {stopped}

A stream is a line of JSON for each event, the first with its `id`, and an empty line now and then; whoever closes it
stops the answer. `threads` are the conversations, one for each model, that end with a question.
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
from apps.compare.queue import Line, Ticket
from apps.compare.recipe import Recipe
from apps.store.errors import Refused
from apps.web.calls import Body, Person, Visitor, ours

LONGEST = 20_000  # characters of a turn
MOST_TURNS = 100


def _speakable(text: str) -> str:
    """Refuses what no tokenizer and no database takes: half of a surrogate pair, and NUL."""
    with suppress(UnicodeEncodeError):
        text.encode()
        if "\0" not in text:
            return text
    raise ValueError("not valid Unicode, or with the character NUL; remove it")


Text = Annotated[str, Field(max_length=LONGEST), AfterValidator(_speakable)]
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


class Fight(Body):
    prompt: Question


class Vote(Body):
    id: Token
    battle: Token
    verdict: Verdict
    seconds: float = 0.0


class Stop(Body):
    id: Token


def router(recipe: Recipe, voices: StreamingModels, line: Line, arena: Arena | None) -> APIRouter:
    """The routes; those of the arena where there is one."""
    api = APIRouter(prefix="/api", include_in_schema=False, dependencies=[Depends(ours)])

    @api.get("/config")
    def config(person: Visitor) -> dict[str, Any]:
        return {
            "name": recipe.name,
            "models": [{"name": name, "plain": voice.text_model.plain} for name, voice in voices.by_name.items()],
            "reference": recipe.kl_reference,
            "reward": voices.reward is not None,
            "sampling": recipe.sampling.model_dump(),
            "seed": recipe.seed,
            "most_tokens": recipe.most_tokens,
            "longest": LONGEST,
            "arena": arena is not None,
            "person": None if person is None else {"id": person.id, "name": person.name},
        }

    @api.post("/ask")
    async def ask(person: Visitor, body: Ask) -> StreamingResponse:
        sides = _sides(voices, body)
        if body.sampling.max_tokens > recipe.most_tokens:
            raise Refused(f"max tokens = {body.sampling.max_tokens}: at most {recipe.most_tokens} (most_tokens)")
        how = Sampling(**body.sampling.model_dump())

        def work(ticket: Ticket) -> Iterator[Event]:
            return conversation(voices, sides, how, body.seed, ticket.stopped.is_set)

        return _stream(line, Ticket(person and person.id, work))

    @api.post("/stop")
    def stop(person: Visitor, body: Stop) -> dict[str, bool]:
        return {"stopped": line.stop(body.id, person and person.id)}

    if arena is not None:
        _add_arena(api, arena, line)
    return api


def _add_arena(api: APIRouter, arena: Arena, line: Line) -> None:
    @api.post("/battle")
    async def battle(person: Person, body: Fight) -> StreamingResponse:
        if not body.prompt.strip():
            raise Refused("the question is empty; write one")

        def work(ticket: Ticket) -> Iterator[Event]:
            return arena.answer(arena.begin(person.id, body.prompt), ticket)

        return _stream(line, Ticket(person.id, work))

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


def _sides(voices: StreamingModels, body: Ask) -> list[Side]:
    """Who is asked what. Raises `Refused`."""
    if len(body.threads) != len(body.models):
        raise Refused(f"{len(body.models)} models and {len(body.threads)} threads; each model has its own")
    if unknown := [name for name in body.models if name not in voices.by_name]:
        raise Refused(f"there is no model {unknown[0]!r}; there are {', '.join(voices.by_name)}")
    if len(set(body.models)) < len(body.models):
        raise Refused("a model is asked twice; name each once")
    for thread in body.threads:
        roles = ["user" if n % 2 == 0 else "assistant" for n in range(len(thread))]
        if [turn.role for turn in thread] != roles or len(thread) % 2 == 0:
            raise Refused("a thread is a question, an answer, and so on, and ends with a question")
        if not thread[-1].content.strip():
            raise Refused("the question is empty; write one")
    return [
        Side(voices.by_name[name], tuple(Message(turn.role, turn.content) for turn in thread))
        for name, thread in zip(body.models, body.threads, strict=True)
    ]


def _stream(line: Line, ticket: Ticket) -> StreamingResponse:
    """Takes a place in the line and answers with all that is said. Raises `Full` before anything is."""
    line.join(ticket)

    async def lines() -> AsyncIterator[str]:
        try:
            yield _row({"id": ticket.id})
            async for event in ticket.events():
                yield "\n" if event is None else _row(event)
        finally:
            line.leave(ticket)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _row(event: Event) -> str:
    return json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
