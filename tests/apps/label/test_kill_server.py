"""The server killed with SIGKILL at random moments while people work: what they saw as saved is there, exactly once.

Meanwhile leads do beside it what they do on a day: a reviewer decides disputed tasks through the API, guidelines are
edited and reports answered, and guests come with a token, say something and are erased. ALIGN_KILLS sets how often the
server is killed (5), on each database. Each of its lives is at the same port, on the same database.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from label_crowd import Annotator, Notes, Refused, reckon
from offices import new_id, person
from processes import Served, more, pool
from sqlalchemy import func, select

from apps.store import erasing, people, projects, reviews, tokens
from apps.store.engine import Store
from apps.store.tables import Person, Revision, Task

N_KILLS = int(os.environ.get("ALIGN_KILLS", "5"))
NAMES = [f"person {n}" for n in range(6)]
PROJECT = 1


@pytest.mark.slow
def test_what_was_shown_as_saved_survives_a_killed_server(url: str, tmp_path: Path, capsys: Any) -> None:
    # Leases that end while the server is gone: others are given the task, and somebody comes too late.
    served = Served(tmp_path, url, NAMES, 60 + 15 * N_KILLS, overlap=2, lease_minutes=0.02)
    beside = Store.open(url)
    served.start()
    served.wait()
    try:
        notes, n_decided, n_erased = asyncio.run(under_fire(served, beside))
        served.stop()
    finally:
        served.kill()
    found = reckon(url, notes)
    assert found.problems == []
    assert len(notes.saved) > N_KILLS // 2
    assert all(": 409 " in refusal for refusal in notes.refusals)
    assert n_erased > 0
    with beside.read() as session:
        assert session.scalar(select(func.count()).where(Person.erased_at.is_not(None))) == n_erased
        assert not [one for one in session.scalars(select(Revision)) if "guest" in str(one.payload)]
    beside.close()
    with capsys.disabled():
        print(
            f"\n{N_KILLS} kills: {len(notes.saved)} acknowledged, {sum(notes.failures.values())} calls failed, "
            f"{found.n_lost_replies} saved by a call whose answer never came, {found.n_extra} extra, "
            f"{n_decided} decided, {n_erased} erased"
        )


async def under_fire(served: Served, beside: Store) -> tuple[Notes, int, int]:
    """Kills the server again and again, soon after it answers, and every fifth time or so while it starts up."""
    chance, is_over = random.Random(1), False
    async with pool(served, NAMES) as notes:
        leads = asyncio.create_task(lead(served, beside, notes, lambda: is_over))
        guests = asyncio.create_task(come_and_go(served, beside, lambda: is_over))
        for _ in range(N_KILLS):
            if chance.random() < 0.8:
                await asyncio.to_thread(served.wait)
                await more(lambda: len(notes.saved), 1)  # however slow the machine is
            await asyncio.sleep(chance.uniform(0, 0.9))
            served.kill()
            served.start()
        await asyncio.to_thread(served.wait)
        is_over = True
        return notes, await leads, await guests


def script(served: Served, beside: Store, name: str, role: Any, notes: Notes) -> Annotator:
    """Somebody new who works by a token."""
    person(beside, name, role)
    one = Annotator(name, served.url, notes, 0.02, retry_s=0.02)
    one.browser.signed = f"authorization: Bearer {tokens.create(beside, name, 'a script', 1).token}"
    return one


async def lead(served: Served, beside: Store, notes: Notes, until: Callable[[], bool]) -> int:
    """Decides tasks, edits guidelines, answers reports; returns how many tasks were decided."""
    reviewer = await asyncio.to_thread(script, served, beside, "reviewer", "reviewer", notes)
    n_decided, by = 0, people.by_name(beside, "reviewer").id
    while not until():
        await asyncio.sleep(0.1)
        now = projects.guidelines_of(beside, PROJECT)
        await asyncio.to_thread(projects.edit_guidelines, beside, PROJECT, f"{now.version} times", now.version, by)
        for report in reviews.reports(beside, PROJECT)[:1]:
            reviews.keep_report(beside, PROJECT, report.annotation, by)
        with beside.read() as session:
            done = select(Task.public_id).where(Task.status == "done").order_by(func.random()).limit(1)
            disputed = session.scalar(done)
        if disputed is not None:
            task = (await reviewer.call("adjudicate", "POST", "adjudicate", {"task": disputed}))["task"]
            about = {"id": task["annotation"] or new_id(), "task": task["id"], "lease": task["lease"]}
            await reviewer.say("submit", about, reviewer.ranking(len(task["answers"])))
            n_decided += 1
    reviewer.browser.close()
    return n_decided


async def come_and_go(served: Served, beside: Store, until: Callable[[], bool]) -> int:
    """Guests say something and are erased, while the server lives, dies or starts; returns how many."""
    n_guests = 0
    while not until():
        n_guests += 1
        guest = await asyncio.to_thread(script, served, beside, f"guest {n_guests}", "annotator", Notes())
        with suppress(Refused):  # others were quicker
            await guest.one_task()
        await asyncio.to_thread(erasing.erase, beside, guest.name)
        guest.browser.close()
        await asyncio.sleep(0.3)
    return n_guests
