"""Simulated annotators on the ranking app's API, and a check of the database afterwards.

Used by `label_load.py` and `tests/apps/label`. Each submission has a unique mark, by which it is found in the database.
An acknowledged submission must be there exactly once, an unacknowledged one at most once.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from sqlalchemy import func, select, text

from apps.store import events
from apps.store.engine import Store
from apps.store.tables import Annotation, Person, Revision, Task

PASSWORD = "four words or more"
PATIENCE_S = 60.0  # for one call with all its retries
ANSWER_S = 20.0  # for one answer
FORM = "application/x-www-form-urlencoded"


class Said(NamedTuple):
    """A submission that the server acknowledged."""

    id: str
    revision: int
    payload: dict[str, Any]


class Notes:
    """Records of all requests and responses."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)  # seconds of each call with status 200
        self.failures: Counter[str] = Counter()  # no response, or one that asks for a retry
        self.refusals: Counter[str] = Counter()
        self.sent: set[str] = set()  # marks
        self.saved: dict[str, Said] = {}  # by mark
        self.undos: Counter[str] = Counter()  # requested, by annotation
        self.undone: list[tuple[str, int]] = []  # acknowledged: annotation, revision
        self.repeated: dict[str, float] = {}  # time of the second request, by mark
        self.n_sent_away = 0  # logins that had to wait (429)


class Refused(Exception):
    """The server refuses this request; a retry does not help."""


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: list[tuple[str, str]]  # names in lower case
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class Browser:
    """One person's cookies and open connection.

    It reads only what our server sends, so it needs a sixth of httpx's CPU time. Hundreds of people share a machine
    with the server that they measure.
    """

    def __init__(self, url: str) -> None:
        self.url, self.cookies = url, dict[str, str]()
        self.signed = "x-align: 1"  # scripts send their token instead: "authorization: Bearer ..."
        self.address: str | None = None  # the local address, if this machine has several
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Answer:
        """Raises `ConnectionError` if there is no response."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._sent(method, path, body, kind)
        except (OSError, EOFError, TimeoutError) as error:
            self.close()
            raise ConnectionError(type(error).__name__) from error

    async def _sent(self, method: str, path: str, body: bytes, kind: str) -> Answer:
        place = urlsplit(self.url)
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            own = (self.address, 0) if self.address else None
            self._streams = await asyncio.open_connection(place.hostname, place.port, local_addr=own)
        reader, writer = self._streams
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = f"host: {place.netloc}\r\n{self.signed}\r\ncookie: {cookies}\r\ncontent-type: {kind}\r\n"
        writer.write(f"{method} {path} HTTP/1.1\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        received = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        answer = Answer(int(first.split()[1]), received, b"")
        answer = answer._replace(body=await reader.readexactly(int(answer.header("content-length"))))
        for cookie in (value.partition(";")[0] for name, value in received if name == "set-cookie"):
            self.cookies[cookie.partition("=")[0]] = cookie.partition("=")[2]
        if answer.header("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        """The next call opens another connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Annotator:
    """One person with a browser of their own."""

    def __init__(self, name: str, url: str, notes: Notes, pace_s: float = 5.0, retry_s: float = 1.0) -> None:
        self.name, self.notes, self.pace_s, self.retry_s = name, notes, pace_s, retry_s
        self.chance = random.Random(name)
        self.browser = Browser(url)
        self.n_said = 0

    async def log_in(self) -> None:
        """Logs in as the form does; waits and retries after a 429."""
        body = urlencode({"name": self.name, "password": PASSWORD}).encode()
        while True:
            began = time.perf_counter()
            answer = await self.browser.send("POST", "/login", body, FORM)
            if answer.status == 303:
                self.notes.times["login"].append(time.perf_counter() - began)
                return
            if answer.status != 429:
                raise Refused(f"login of {self.name}: {answer.status} {answer.body[:200]!r}")
            self.notes.n_sent_away += 1
            await asyncio.sleep(float(answer.header("retry-after")))

    async def work(self, until: Callable[[], bool]) -> None:
        """Works on one task after another."""
        await asyncio.sleep(self.chance.random() * self.pace_s)
        while not until():
            try:
                await self.one_task()
            except Refused:
                await self.think(0.1)

    async def one_task(self) -> None:
        """Claims, works, submits; sometimes skips, flags, undoes or revises."""
        task = (await self.call("claim", "POST", "claim", {}))["task"]
        await self.call("progress", "GET", "progress")
        if task is None:
            await self.think(0.3)
            await self.revise()
            return
        due = time.monotonic() + self.pace_s * self.chance.uniform(0.5, 1.5)
        rev = max(int(time.time() * 1000), task["draft_rev"] + 1)
        for n in range(self.chance.randint(1, 2)):
            await self.think(0.2)
            draft = {"answers": {}, "ranks": None, "all_bad": False, "comment": f"draft {n}"}
            await self.call("draft", "PUT", "draft", {"task": task["id"], "rev": rev + n, "payload": draft})
        await self.call("heartbeat", "POST", "heartbeat", {"task": task["id"], "lease": task["lease"]})
        await asyncio.sleep(due - time.monotonic())
        about = {"id": task["annotation"] or str(uuid.UUID(int=self.chance.getrandbits(128), version=4))}
        about |= {"task": task["id"], "lease": task["lease"]}
        fate = self.chance.random()
        if fate < 0.04 and task["status"] in (None, "undone"):
            await self.say("skip", about, {"reason": self.mark(), "comment": ""})
        elif fate < 0.05 and task["status"] in (None, "undone"):
            await self.say("flag", about, {"reason": self.mark(), "comment": "odd"})
        else:
            saved = await self.say("submit", about, self.ranking(len(task["answers"])))
            if fate > 0.96:
                await self.undo(saved)
        if 0.06 < fate < 0.12:
            await self.revise()

    async def say(self, path: str, about: dict[str, Any], payload: dict[str, Any]) -> str:
        """Sends an annotation; retries under the same id until the server has saved it."""
        mark = mark_of(payload)
        self.notes.sent.add(mark)
        if path in ("skip", "flag"):
            body = {**about, "reason": payload["reason"]} | ({"comment": payload["comment"]} if path == "flag" else {})
        else:
            body = {**about, "payload": payload, "seconds": round(self.pace_s, 1)}
        answer = await self.call(path.partition("/")[0], "POST", path, body, mark)
        assert answer["saved"] is True
        self.notes.saved[mark] = Said(answer["id"], answer["revision"], payload)
        return str(answer["id"])

    async def undo(self, annotation: str) -> None:
        """Takes back the last annotation; the next claim gives the task again."""
        self.notes.undos[annotation] += 1
        task = (await self.call("undo", "POST", "undo", {"id": annotation}))["task"]
        self.notes.undone.append((annotation, task["revision"]))

    async def revise(self) -> None:
        """Opens the history and changes the ranking of one earlier task."""
        items = (await self.call("history", "GET", "mine"))["items"]
        done = [item for item in items if item["status"] == "submitted"]
        if not done:
            return
        one = self.chance.choice(done)
        task = (await self.call("open", "GET", f"mine/{one['id']}"))["task"]
        await self.think(0.3)
        await self.say(f"mine/{one['id']}", {"task": task["id"]}, self.ranking(len(task["answers"])))

    def ranking(self, n: int) -> dict[str, Any]:
        """A whole ranking, with ties and flags."""
        slots = [str(slot) for slot in range(n)]
        answers = {
            slot: {
                "rating": self.chance.randint(1, 7),
                "flags": ["hallucination"] if self.chance.random() < 0.1 else [],
                "comment": "",
            }
            for slot in slots
        }
        ranks = {slot: self.chance.randint(1, n) for slot in slots}
        return {"answers": answers, "ranks": ranks, "all_bad": False, "comment": self.mark()}

    def mark(self) -> str:
        self.n_said += 1
        return f"{self.name} said {self.n_said}"

    async def think(self, share: float) -> None:
        """Waits for about this share of a task's time."""
        await asyncio.sleep(self.pace_s * share * self.chance.uniform(0.5, 1.5))

    async def call(self, kind: str, method: str, path: str, body: Any = None, mark: str = "") -> Any:
        """One call's response. Retries temporary failures, as the page does. Raises `Refused`."""
        deadline = time.monotonic() + PATIENCE_S
        sent = b"" if body is None else json.dumps(body).encode()
        while time.monotonic() < deadline:
            began = time.perf_counter()
            try:
                answer = await self.browser.send(method, f"/api/{path}", sent)
            except ConnectionError as error:
                self.notes.failures[f"{kind}: {error}"] += 1
            else:
                if answer.status == 200:
                    self.notes.times[kind].append(time.perf_counter() - began)
                    return json.loads(answer.body)
                problem = f"{kind}: {answer.status} {answer.body.decode()[:200]}"
                if answer.status < 500 and answer.status not in (408, 429):
                    self.notes.refusals[problem] += 1
                    raise Refused(problem)
                self.notes.failures[problem] += 1
            await asyncio.sleep(self.retry_s)
            if mark:
                self.notes.repeated.setdefault(mark, time.time())
        raise TimeoutError(f"{self.name}: {kind} was not answered in {PATIENCE_S:.0f} s; {dict(self.notes.failures)}")


class Watcher(Annotator):
    """A lead with an open dashboard."""

    async def watch(self, every_s: float, until: Callable[[], bool]) -> None:
        """Opens the page, then recomputes its figures, as its Refresh button does."""
        await self.browser.send("GET", "/lead/")
        while not until():
            await self.call("dashboard", "GET", "lead/page")
            await asyncio.sleep(every_s)


def mark_of(payload: dict[str, Any]) -> str:
    """The unique mark in this content; "" for an undone annotation."""
    return str(payload.get("reason") or payload.get("comment") or "")


class Reckoning(NamedTuple):
    """The contents of the database, and the problems found."""

    n_rankings: int
    n_extra: int
    n_lost_replies: int  # saved, but the response was lost, so it was sent again
    problems: list[str]


def reckon(url: str, notes: Notes) -> Reckoning:
    """Compares the database with the acknowledged submissions."""
    store, problems = Store.open(url, create=False), []
    with store.read() as session:
        if store.is_sqlite:
            problems += [f"integrity: {row}" for row in session.scalars(text("PRAGMA integrity_check")) if row != "ok"]
            problems += [f"foreign key: {row}" for row in session.execute(text("PRAGMA foreign_key_check"))]
        erased = select(Annotation.id).join(Person, Person.id == Annotation.person_id)
        erased = erased.where(Person.erased_at.is_not(None))  # their marks are deleted
        revisions = session.scalars(select(Revision).where(Revision.annotation_id.not_in(erased))).all()
        annotations = session.scalars(select(Annotation).where(Annotation.id.not_in(erased))).all()
        for task in session.scalars(select(Task)):
            said = select(func.count()).where(Annotation.task_id == task.id, Annotation.status == "submitted")
            n = session.scalar(said.where(~Annotation.extra))
            if n != task.n_done or n > task.required or (n == task.required) != (task.status == "done"):
                problems.append(
                    f"task {task.id}: {n} rankings, counted {task.n_done} of {task.required}, {task.status}"
                )
    problems += [f"chain: {problem}" for problem in events.verify(store).problems]
    store.close()
    problems += _said_once(revisions, notes) + _undone_once(revisions, notes)
    latest = Counter(one.annotation_id for one in revisions)
    problems += [f"annotation {one.id} misses a revision" for one in annotations if latest[one.id] != one.n_revisions]
    done = [one for one in annotations if one.status == "submitted"]
    lost = [notes.repeated.get(mark_of(one.payload), 0.0) > one.created_at for one in revisions]
    return Reckoning(len(done), sum(one.extra for one in done), sum(lost), problems)


def _said_once(revisions: Any, notes: Notes) -> list[str]:
    found: dict[str, list[Said]] = defaultdict(list)
    for one in revisions:
        if one.status != "undone":
            found[mark_of(one.payload)].append(Said(one.annotation_id, one.n, one.payload))
    problems = [f"{mark!r}: acknowledged {said}, found {found[mark]}" for mark, said in notes.saved.items()
                if found[mark] != [said]]  # fmt: skip
    problems += [f"{mark!r}: found {len(said)} times" for mark, said in found.items() if len(said) > 1]
    return problems + [f"{mark!r}: nobody sent that" for mark in found if found[mark] and mark not in notes.sent]


def _undone_once(revisions: Any, notes: Notes) -> list[str]:
    found = {(one.annotation_id, one.n) for one in revisions if one.status == "undone"}
    problems = [f"{key}: acknowledged as undone, but is not undone" for key in notes.undone if key not in found]
    often = Counter(annotation for annotation, _ in found)
    return problems + [f"{key}: undone {n} times" for key, n in often.items() if n > notes.undos[key]]
