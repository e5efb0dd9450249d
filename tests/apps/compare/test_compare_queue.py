"""The line in front of the device: one at a time, a few that wait, and nobody is answered who has gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from apps.compare import queue as module
from apps.compare.queue import AnswerQueue, Event, QueueFull, Ticket


class Work:
    """Something that takes until it is let go."""

    def __init__(self, n: int = 1) -> None:
        self.n, self.go, self.began, self.closed = n, threading.Semaphore(0), threading.Event(), threading.Event()

    def __call__(self, ticket: Ticket) -> Iterator[Event]:
        self.began.set()
        try:
            for n in range(self.n):
                self.go.acquire()
                yield {"n": n}
        finally:
            self.closed.set()


async def everything(ticket: Ticket) -> list[Event | None]:
    return [event async for event in ticket.events()]


def joined(line: AnswerQueue, work: Any, person_id: int | None = 1) -> Ticket:
    ticket = Ticket(person_id, work)
    line.join(ticket)
    return ticket


def test_one_is_answered_at_a_time_in_the_order_of_asking() -> None:
    async def test() -> None:
        line, works = AnswerQueue(5, 5), [Work() for _ in range(3)]
        tickets = [joined(line, work) for work in works]
        await asyncio.to_thread(works[0].began.wait)
        assert [work.began.is_set() for work in works] == [True, False, False]
        for work in works:
            work.go.release()
        told = [await everything(ticket) for ticket in tickets]
        assert told[0] == [{"ahead": 0}, {"n": 0}]
        assert told[2] == [{"ahead": 2}, {"ahead": 1}, {"ahead": 0}, {"n": 0}]

    asyncio.run(test())


def test_a_full_line_says_so_and_so_does_one_persons_share() -> None:
    async def test() -> None:
        line, work = AnswerQueue(2, 2), Work()
        first = joined(line, work)
        joined(line, Work(), 1)
        with pytest.raises(QueueFull, match="you have too many open questions; wait for an answer or stop it"):
            joined(line, Work(), 1)
        joined(line, Work(), 2)
        with pytest.raises(QueueFull, match="the queue is full: 3 questions ahead of you; try again in a moment"):
            joined(line, Work(), 3)
        work.go.release()
        await everything(first)
        joined(line, Work(), 3)  # there is a place again

    asyncio.run(test())


def test_who_goes_away_is_not_answered() -> None:
    async def test() -> None:
        line, works = AnswerQueue(5, 5), [Work(5), Work(), Work()]
        tickets = [joined(line, work) for work in works]
        await asyncio.to_thread(works[0].began.wait)
        line.leave(tickets[1])  # while it waits
        line.leave(tickets[0])  # in the middle of its answer: the next thing it says is its last
        works[0].go.release()
        works[2].go.release()
        assert await everything(tickets[2]) == [{"ahead": 2}, {"ahead": 1}, {"ahead": 0}, {"n": 0}]
        assert works[0].closed.is_set()
        assert not works[1].began.is_set()

    asyncio.run(test())


def test_a_question_that_waits_can_be_taken_back_and_only_by_who_asked() -> None:
    async def test() -> None:
        line, works = AnswerQueue(5, 5), [Work(), Work()]
        first, second = (joined(line, work, person_id) for work, person_id in zip(works, (1, 2), strict=True))
        assert not line.stop(second.id, 1)
        assert not line.stop("no such ticket", 2)
        assert line.stop(second.id, 2)
        assert await everything(second) == [{"ahead": 1}]
        assert line.stop(first.id, 1)
        assert first.stopped.is_set()
        works[0].go.release()
        assert await everything(first) == [{"ahead": 0}, {"n": 0}]
        assert not works[1].began.is_set()

    asyncio.run(test())


def test_a_question_that_fails_is_told_and_the_next_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    def failing(ticket: Ticket) -> Iterator[Event]:
        yield {"n": 0}
        raise ValueError("a secret")

    async def test() -> None:
        line, work = AnswerQueue(5, 5), Work()
        first, second = joined(line, failing), joined(line, work)
        work.go.release()
        assert await everything(first) == [
            {"ahead": 0},
            {"n": 0},
            {"failed": "The server failed; the error is in its log."},
        ]
        assert (await everything(second))[-1] == {"n": 0}

    asyncio.run(test())
    assert "a secret" in caplog.text


def test_who_waits_long_gets_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALIVE_S", 0.01)

    async def test() -> None:
        line, work = AnswerQueue(5, 5), Work()
        ticket = joined(line, work)
        events = ticket.events()
        assert [await anext(events) for _ in range(3)] == [{"ahead": 0}, None, None]
        work.go.release()
        assert [event async for event in events if event] == [{"n": 0}]

    asyncio.run(test())
