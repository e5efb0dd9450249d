"""The server killed with SIGKILL at random moments while people work: what they saw as saved is there, exactly once.

ALIGN_KILLS sets how often (5), on each database. Each life of the server is at the same port, on the same database.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

from label_crowd import Notes, reckon
from processes import Served, crowd, more

N_KILLS = int(os.environ.get("ALIGN_KILLS", "5"))
NAMES = [f"person {n}" for n in range(6)]


def test_what_was_shown_as_saved_survives_a_killed_server(url: str, tmp_path: Path, capsys: Any) -> None:
    # Leases that end while the server is gone: others are given the task, and somebody comes too late.
    served = Served(tmp_path, url, NAMES, 60 + 15 * N_KILLS, overlap=2, lease_minutes=0.02)
    served.start()
    served.wait()
    try:
        notes = asyncio.run(under_fire(served))
        served.stop()
    finally:
        served.kill()
    found = reckon(url, notes)
    assert found.problems == []
    assert len(notes.saved) > N_KILLS // 2
    assert all(": 409 " in refusal for refusal in notes.refusals)
    with capsys.disabled():
        print(
            f"\n{N_KILLS} kills: {len(notes.saved)} acknowledged, {sum(notes.failures.values())} calls failed, "
            f"{found.n_lost_replies} saved by a call whose answer never came, {found.n_extra} extra"
        )


async def under_fire(served: Served) -> Notes:
    """Kills the server again and again, soon after it answers, and every fifth time or so while it starts up."""
    chance = random.Random(1)
    async with crowd(served, NAMES) as notes:
        for _ in range(N_KILLS):
            if chance.random() < 0.8:
                await asyncio.to_thread(served.wait)
                await more(lambda: len(notes.saved), 1)  # however slow the machine is
            await asyncio.sleep(chance.uniform(0, 0.9))
            served.kill()
            served.start()
        await asyncio.to_thread(served.wait)
    return notes
