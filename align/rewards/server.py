"""Reward server: a reward model behind HTTP. One thread scores requests that arrive together in one batch.

    POST /score   {"prompts": ["..."], "responses": ["..."]}  →  {"scores": [0.5]}, and "member_scores" of an ensemble
    GET /health   →  the model, the limits, the number of waiting answers

Errors, with a reason: 413 more answers or characters than the limits allow; 422 an invalid body, or an answer longer
than the model reads; 429 too many answers waiting (with Retry-After); 500 the model failed; 503 the server is stopping.
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


class MessageBody(BaseModel):
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
    """Answers to score. A prompt is a text (the user's message) or messages that end with the user's or a tool's.

    A first message of role tools holds the available tools, as JSON.
    """

    model_config = ConfigDict(extra="forbid")
    prompts: list[str | list[MessageBody]]
    responses: list[str]

    def messages(self) -> list[tuple[Message, ...]]:
        """The prompts as messages."""
        return [
            (Message("user", prompt),)
            if isinstance(prompt, str)
            else tuple(Message.of(message.model_dump()) for message in prompt)
            for prompt in self.prompts
        ]

    def n_characters(self) -> int:
        """Number of characters of all texts."""
        in_prompts = sum(len(part) for prompt in self.messages() for message in prompt for part in message.parts)
        return in_prompts + sum(map(len, self.responses))


class Job(NamedTuple):
    """A request in the queue."""

    prompts: list[tuple[Message, ...]]
    responses: list[str]
    future: Future[Scored]


class TooManyWaiting(Exception):
    """The queue is full."""


class Batcher:
    """A thread that scores queued requests in batches.

    Args:
        score: scores prompts and responses; called only from that thread.
        batching: how long a batch waits, and for how many answers.
        max_waiting: the most answers in the queue.
    """

    def __init__(self, score: ScoreFunction, batching: Batching, max_waiting: int) -> None:
        self._score, self._batching, self._max_waiting = score, batching, max_waiting
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._closed = False
        self.n_waiting = 0
        self.n_batches = 0
        self._thread = threading.Thread(target=self._work, name="scores", daemon=True)

    def start(self) -> None:
        """Start the thread. Call once."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the current batch. Requests still in the queue get a RuntimeError."""
        with self._lock:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def submit(self, prompts: list[tuple[Message, ...]], responses: list[str]) -> Future[Scored]:
        """A future of the scores. Raises `TooManyWaiting`, and `RuntimeError` after `close`."""
        job = Job(prompts, responses, Future())
        with self._lock:
            if self._closed:
                raise RuntimeError("this server is stopping")
            if self.n_waiting + len(responses) > self._max_waiting:
                raise TooManyWaiting
            self.n_waiting += len(responses)
            self._jobs.put(job)  # under the lock: no job follows the end marker
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
        """The jobs that arrive within `wait_ms`, up to `items` answers; and whether the server is closing.

        Queued jobs are taken without waiting: under load, a batch fills while the previous one is scored.
        """
        batch, n_answers = [first], len(first.responses)
        deadline = time.monotonic() + self._batching.wait_ms / 1000
        while n_answers < self._batching.items:
            try:
                job = self._jobs.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
            n_answers += len(job.responses)
        return batch, False

    def _answer(self, batch: list[Job]) -> None:
        """Score a batch. If that fails, score each request alone, so that only the faulty one gets the error."""
        if not batch:
            return
        self.n_batches += 1
        try:
            found = self._score(
                [prompt for job in batch for prompt in job.prompts], [text for job in batch for text in job.responses]
            )
        except Exception as error:  # the thread must survive any error
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
    """The web application. `about`: the model's entry in /health."""
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
        body = parsed(await body_of(request, limits))
        check_limits(body, limits)
        if not body.responses:
            return {"scores": []}
        try:
            found = await wrap_future(batcher.submit(body.messages(), body.responses))
        except TooManyWaiting:
            detail = f"busy: at most {limits.queue} answers may wait (limits.queue); try again later"
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
    """The body, read up to the limits. Raises 413."""
    most = limits.characters * BYTES_A_CHARACTER + ROOM_FOR_JSON + limits.items * 200
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            detail = f"the body has more than {most} bytes; limits.characters is {limits.characters}"
            raise HTTPException(413, detail, headers={"Connection": "close"})  # else the rest would still be read
    return bytes(body)


def parsed(body: bytes) -> ScoreRequest:
    """Parse the request. Raises 422 with the error and its place."""
    form = 'send {"prompts": ["..."], "responses": ["..."]}'
    try:
        request = ScoreRequest.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise HTTPException(422, f"{where}: {first['msg']}; {form}") from None
        raise HTTPException(422, f"the body is not JSON ({error}); {form}") from None
    if len(request.prompts) != len(request.responses):
        n_prompts, n_responses = len(request.prompts), len(request.responses)
        raise HTTPException(422, f"{n_prompts} prompts and {n_responses} responses; give one prompt for each response")
    for index, messages in enumerate(request.messages()):
        if not messages or messages[-1].role not in ("user", "tool"):
            raise HTTPException(422, f"prompts.{index}: a prompt must end with a message of the user or of a tool")
        if reason := _tools_error(messages):
            raise HTTPException(422, f"prompts.{index}: {reason}")
        if _is_half_a_character(
            "".join([*(part for message in messages for part in message.parts), request.responses[index]])
        ):
            raise HTTPException(
                422, f"prompts.{index} or responses.{index}: not valid Unicode (half of a surrogate pair)"
            )
    return request


def check_limits(request: ScoreRequest, limits: Limits) -> None:
    """Raise 413 if a request exceeds the limits."""
    if len(request.responses) > limits.items:
        raise HTTPException(
            413,
            f"{len(request.responses)} answers; at most {limits.items} per request (limits.items): send several",
        )
    if (n_characters := request.n_characters()) > limits.characters:
        raise HTTPException(
            413, f"{n_characters} characters; at most {limits.characters} per request (limits.characters)"
        )


def _tools_error(messages: tuple[Message, ...]) -> str:
    """What is wrong with the tools message; "" if nothing."""
    if any(message.role == "tools" for message in messages[1:]):
        return "a message of role tools must come first"
    if messages[0].role != "tools":
        return ""
    try:
        tools = json.loads(messages[0].content)
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
