"""A reward model behind HTTP: requests that arrive together are scored together, by one thread of their own.

    POST /score   {"prompts": ["..."], "responses": ["..."]}  →  {"scores": [0.5]}, and "member_scores" of an ensemble
    GET /health   →  the model, the limits, how many answers wait

What cannot be taken is refused with a reason: 413 more answers or characters than the limits allow, 422 a body that is
not what it should be or an answer longer than the model reads, 429 too many answers waiting (with Retry-After), 500 the
model failed, 503 the server is stopping.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from asyncio import wrap_future
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from align.errors import UserError
from align.rewards.reward import Prompts
from align.rewards.scorer import Scored
from align.rewards.settings import Batching, Limits
from align.text.records import Message, Role

ScoreFunction = Callable[[Prompts, Sequence[str]], Scored]

BYTES_A_CHARACTER = 12  # at most, in JSON: an escaped surrogate pair
ROOM_FOR_JSON = 65536  # bytes of names, quotes and commas


class Turn(BaseModel):
    """One message of a prompt, as `Message.as_dict` writes it."""

    model_config = ConfigDict(extra="forbid")
    role: Role
    content: str
    reasoning_content: str = ""
    tool_calls: list[dict[str, Any]] = []
    name: str = ""
    tool_call_id: str = ""
    weight: float = 1


class ScoreRequest(BaseModel):
    """Answers to score; a prompt is a text, which is the user's turn, or messages that end with the user's or a tool's.

    A first turn of the role tools holds the tools that may be called, as JSON.
    """

    model_config = ConfigDict(extra="forbid")
    prompts: list[str | list[Turn]]
    responses: list[str]

    def turns(self) -> list[tuple[Message, ...]]:
        """The prompts as messages."""
        return [
            (Message("user", prompt),)
            if isinstance(prompt, str)
            else tuple(Message.of(turn.model_dump()) for turn in prompt)
            for prompt in self.prompts
        ]

    def n_characters(self) -> int:
        """Characters of all texts."""
        asked = sum(len(part) for messages in self.turns() for message in messages for part in message.parts)
        return asked + sum(map(len, self.responses))


class Job(NamedTuple):
    """A request that waits for its scores."""

    prompts: list[tuple[Message, ...]]
    responses: list[str]
    future: Future[Scored]


class TooManyWaiting(Exception):
    """The queue is full."""


class Batcher:
    """One thread that scores what has arrived, several requests at once.

    Args:
        score: scores prompts and responses; it is only ever called from that thread.
        batching: how long and for how much a batch waits.
        most_waiting: answers that may wait.
    """

    def __init__(self, score: ScoreFunction, batching: Batching, most_waiting: int) -> None:
        self._score, self._batching, self._most_waiting = score, batching, most_waiting
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self.n_waiting = 0
        self.n_batches = 0
        self._thread = threading.Thread(target=self._work, name="scores", daemon=True)

    def start(self) -> None:
        """Begins to score; once."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the batch in progress; who still waits is told so."""
        with self._lock:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def submit(self, prompts: list[tuple[Message, ...]], responses: list[str]) -> Future[Scored]:
        """The scores to come. Raises `TooManyWaiting`, and `RuntimeError` once it is closed."""
        job = Job(prompts, responses, Future())
        with self._lock:
            if self._closed:
                raise RuntimeError("this server is stopping")
            if self.n_waiting + len(responses) > self._most_waiting:
                raise TooManyWaiting
            self.n_waiting += len(responses)
            self._jobs.put(job)  # under the lock: nothing comes after the end
        return job.future

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch, last = self._gathered(first)
            with self._lock:
                self.n_waiting -= sum(len(job.responses) for job in batch)
            self._answer([job for job in batch if job.future.set_running_or_notify_cancel()])
            if last:
                break
        while not self._jobs.empty():
            if (job := self._jobs.get()) is not None:
                job.future.set_exception(RuntimeError("this server is stopping"))

    def _gathered(self, first: Job) -> tuple[list[Job], bool]:
        """What arrives within `wait_ms`, until there are `items` answers; and whether the end was announced meanwhile.

        What has already arrived is taken without waiting: under load batches fill while the one before is scored.
        """
        batch, n_answers = [first], len(first.responses)
        ends = time.monotonic() + self._batching.wait_ms / 1000
        while n_answers < self._batching.items:
            try:
                job = self._jobs.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
            n_answers += len(job.responses)
        return batch, False

    def _answer(self, batch: list[Job]) -> None:
        """Scores a batch at once. If that fails, each request alone, so that only the one at fault is told."""
        if not batch:
            return
        self.n_batches += 1
        try:
            found = self._score(
                [prompt for job in batch for prompt in job.prompts], [text for job in batch for text in job.responses]
            )
        except Exception as error:  # whatever it is, the thread must live on
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for job in batch:
                self._answer([job])
            return
        first = 0
        for job in batch:
            part = slice(first, first + len(job.responses))
            first = part.stop
            job.future.set_result(Scored(found.scores[part], found.members[part]))


def create_app(score: ScoreFunction, limits: Limits, batching: Batching, about: dict[str, Any]) -> FastAPI:
    """The web application. `about` is what /health says of the model."""
    batcher = Batcher(score, batching, limits.queue)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        batcher.close()

    app = FastAPI(title="align reward model", lifespan=lifespan)
    app.state.batcher = batcher

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", **about, "limits": limits.model_dump(), "n_waiting": batcher.n_waiting}

    @app.post("/score")
    async def scores(request: Request) -> dict[str, Any]:
        asked = parsed(await body_of(request, limits))
        check_limits(asked, limits)
        if not asked.responses:
            return {"scores": []}
        try:
            found = await wrap_future(batcher.submit(asked.turns(), asked.responses))
        except TooManyWaiting:
            detail = f"busy: at most {limits.queue} answers may wait (limits.queue); ask again later"
            raise HTTPException(429, detail, headers={"Retry-After": "1"}) from None
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        except RuntimeError as error:
            stopping = str(error) == "this server is stopping"
            raise HTTPException(503 if stopping else 500, _reason(error)) from None
        except Exception as error:
            raise HTTPException(500, _reason(error)) from None
        several = len(found.members[0]) > 1
        return {"scores": found.scores} | ({"member_scores": found.members} if several else {})

    return app


async def body_of(request: Request, limits: Limits) -> bytes:
    """The body, read only as far as the limits allow. Raises 413."""
    most = limits.characters * BYTES_A_CHARACTER + ROOM_FOR_JSON + limits.items * 200
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            detail = f"the body has more than {most} bytes; limits.characters is {limits.characters}"
            raise HTTPException(413, detail, headers={"Connection": "close"})  # or the rest would still be taken in
    return bytes(body)


def parsed(body: bytes) -> ScoreRequest:
    """The request. Raises 422 that names what is wrong and where."""
    form = 'send {"prompts": ["..."], "responses": ["..."]}'
    try:
        asked = ScoreRequest.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise HTTPException(422, f"{where}: {first['msg']}; {form}") from None
        raise HTTPException(422, f"the body is not JSON ({error}); {form}") from None
    if len(asked.prompts) != len(asked.responses):
        n_prompts, n_responses = len(asked.prompts), len(asked.responses)
        raise HTTPException(422, f"{n_prompts} prompts and {n_responses} responses; give one prompt for each response")
    for index, turns in enumerate(asked.turns()):
        if not turns or turns[-1].role not in ("user", "tool"):
            raise HTTPException(422, f"prompts.{index}: a prompt ends with a turn of the user, or of a tool")
        if trouble := _tools_trouble(turns):
            raise HTTPException(422, f"prompts.{index}: {trouble}")
        if _is_half_a_character("".join([*(part for turn in turns for part in turn.parts), asked.responses[index]])):
            raise HTTPException(
                422, f"prompts.{index} or responses.{index}: not valid Unicode (half of a surrogate pair)"
            )
    return asked


def check_limits(asked: ScoreRequest, limits: Limits) -> None:
    """Raises 413 for more than one request may ask."""
    if len(asked.responses) > limits.items:
        raise HTTPException(
            413, f"{len(asked.responses)} answers; at most {limits.items} in one request (limits.items): send several"
        )
    if (n_characters := asked.n_characters()) > limits.characters:
        raise HTTPException(
            413, f"{n_characters} characters; at most {limits.characters} in one request (limits.characters)"
        )


def _tools_trouble(turns: tuple[Message, ...]) -> str:
    """What is wrong with the turn that names the tools, if anything."""
    if any(turn.role == "tools" for turn in turns[1:]):
        return "a turn of the role tools comes before all others"
    if turns[0].role != "tools":
        return ""
    try:
        tools = json.loads(turns[0].content)
    except (ValueError, RecursionError):
        tools = None
    is_list = isinstance(tools, list) and tools and all(isinstance(tool, dict) for tool in tools)
    return "" if is_list else "the content of tools is a list of functions as JSON"


def _is_half_a_character(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _reason(error: Exception) -> str:
    return f"scoring failed: {type(error).__name__}: {error}"
