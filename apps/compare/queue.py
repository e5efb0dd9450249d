"""The queue in front of the device: one question is answered at a time, a few may wait, more are refused.

One thread answers and sends events to the event loop of each caller. Questions whose caller has left are dropped.
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
ALIVE_S = 10.0  # between keep-alive lines, so that no proxy drops the connection

log = logging.getLogger("align.compare")


class QueueFull(Refused):
    """The queue is full, or has too many questions of one person."""


class Ticket:
    """A place in the queue with its events. Must be created on the event loop that reads the events."""

    def __init__(self, person_id: int | None, work: Callable[[Ticket], Iterator[Event]]) -> None:
        self.id = uuid4().hex
        self.person_id, self.work = person_id, work
        self.stopped = threading.Event()  # the caller has stopped the answer
        self.abandoned = threading.Event()  # the caller has disconnected
        self.ahead: int | None = None  # the number ahead of it that was last sent
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    def send(self, event: Event | None) -> None:
        """Sends an event, from any thread; None ends the stream."""
        with suppress(RuntimeError):  # the loop is closed: the server is shutting down
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self) -> AsyncIterator[Event | None]:
        """The events until the end; None now and then while there are no events, to keep the connection alive."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), ALIVE_S)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event


class AnswerQueue:
    """The queue, and the thread that answers its first ticket."""

    def __init__(self, waiting: int, per_person: int) -> None:
        self.waiting, self.per_person = waiting, per_person
        self._changed = threading.Condition()
        self._tickets: deque[Ticket] = deque()  # the first is being answered
        threading.Thread(target=self._answer, name="answering", daemon=True).start()

    def join(self, ticket: Ticket) -> None:
        """Appends a ticket. Raises `QueueFull`."""
        with self._changed:
            if sum(other.person_id == ticket.person_id for other in self._tickets) >= self.per_person:
                raise QueueFull("you have too many open questions; wait for an answer or stop it")
            if len(self._tickets) > self.waiting:
                raise QueueFull(
                    f"the queue is full: {len(self._tickets)} questions ahead of you; try again in a moment"
                )
            self._tickets.append(ticket)
            self._send_positions()
            self._changed.notify()

    def leave(self, ticket: Ticket) -> None:
        """Drops a ticket whose caller has left; a running answer stops."""
        with self._changed:
            ticket.abandoned.set()
            ticket.stopped.set()
            if ticket in self._tickets and self._tickets[0] is not ticket:
                self._tickets.remove(ticket)
                self._send_positions()

    def stop(self, ticket_id: str, person_id: int | None) -> bool:
        """Stops an answer between two tokens, or withdraws a waiting question. False if it is over or not theirs."""
        with self._changed:
            for ticket in self._tickets:
                if ticket.id == ticket_id and ticket.person_id == person_id:
                    ticket.stopped.set()
                    if ticket is not self._tickets[0]:
                        self._tickets.remove(ticket)
                        self._send_positions()
                        ticket.send(None)
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
                    if ticket.abandoned.is_set():
                        break
                    ticket.send(event)
            except Exception:
                log.exception("a question could not be answered")
                ticket.send({"failed": "The server failed; the error is in its log."})
            with self._changed:
                self._tickets.popleft()
                self._send_positions()
            ticket.send(None)

    def _send_positions(self) -> None:
        """Sends each ticket its position if that has changed."""
        for ahead, ticket in enumerate(self._tickets):
            if ticket.ahead != ahead:
                ticket.ahead = ahead
                ticket.send({"ahead": ahead})
