"""One question is answered at a time, a few may wait, more are refused: a line in front of the device.

A thread of its own answers; what it says goes to the event loop of who asked. Nothing is kept of a question that
nobody waits for any more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

from apps.store.errors import Refused

Event = dict[str, Any]
ALIVE_S = 10.0  # between signs of life to who waits, so that nothing on the way thinks the connection dead

log = logging.getLogger("align.compare")


class Full(Refused):
    """The line is as long as it may be, or as long as one person may make it."""


class Ticket:
    """A place in the line, and what is said to who took it. Made on the event loop that listens."""

    def __init__(self, whose: int | None, work: Callable[[Ticket], Iterator[Event]]) -> None:
        self.id = uuid4().hex
        self.whose, self.work = whose, work
        self.stopped = threading.Event()  # whoever asked has read enough
        self.left = threading.Event()  # nobody listens any more
        self.ahead: int | None = None  # how many were before it when it was last told
        self._loop = asyncio.get_running_loop()
        self._said: asyncio.Queue[Event | None] = asyncio.Queue()

    def say(self, event: Event | None) -> None:
        """Called by any thread; None is the end."""
        with suppress(RuntimeError):  # the loop is closed: the server is going down
            self._loop.call_soon_threadsafe(self._said.put_nowait, event)

    async def events(self) -> AsyncIterator[Event | None]:
        """What is said until the end; None every now and then while there is nothing to say."""
        while True:
            try:
                event = await asyncio.wait_for(self._said.get(), ALIVE_S)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event


class Line:
    """The line, and the thread at its head."""

    def __init__(self, waiting: int, per_person: int) -> None:
        self.waiting, self.per_person = waiting, per_person
        self._changed = threading.Condition()
        self._tickets: deque[Ticket] = deque()  # the first is being answered
        threading.Thread(target=self._answer, name="answering", daemon=True).start()

    def join(self, ticket: Ticket) -> None:
        """Puts a ticket at the end. Raises `Full`."""
        with self._changed:
            if sum(other.whose == ticket.whose for other in self._tickets) >= self.per_person:
                raise Full("you have asked enough at once; wait for an answer, or stop it")
            if len(self._tickets) > self.waiting:
                raise Full(f"the line is full: {len(self._tickets)} before you; try again in a moment")
            self._tickets.append(ticket)
            self._tell()
            self._changed.notify()

    def leave(self, ticket: Ticket) -> None:
        """Nobody listens any more: it is answered no further, or not at all."""
        with self._changed:
            ticket.left.set()
            ticket.stopped.set()
            if ticket in self._tickets and self._tickets[0] is not ticket:
                self._tickets.remove(ticket)
                self._tell()

    def stop(self, ticket_id: str, whose: int | None) -> bool:
        """Stops an answer between two tokens, or takes a question back. False for one that is over, or not theirs."""
        with self._changed:
            for ticket in self._tickets:
                if ticket.id == ticket_id and ticket.whose == whose:
                    ticket.stopped.set()
                    if ticket is not self._tickets[0]:
                        self._tickets.remove(ticket)
                        self._tell()
                        ticket.say(None)
                    return True
        return False

    def _answer(self) -> None:
        while True:
            with self._changed:
                while not self._tickets:
                    self._changed.wait()
                ticket = self._tickets[0]
            try:
                for event in ticket.work(ticket):
                    if ticket.left.is_set():
                        break
                    ticket.say(event)
            except Exception:
                log.exception("a question could not be answered")
                ticket.say({"failed": "The server failed; the error is in its log."})
            with self._changed:
                self._tickets.popleft()
                self._tell()
            ticket.say(None)

    def _tell(self) -> None:
        """Where they stand now, to those for whom that is new."""
        for ahead, ticket in enumerate(self._tickets):
            if ticket.ahead != ahead:
                ticket.ahead = ahead
                ticket.say({"ahead": ahead})
