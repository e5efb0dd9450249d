"""Several processes that serve one port."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from label_crowd import Notes, reckon
from label_load import serving
from processes import Served, more, pool

NAMES = [f"person {n}" for n in range(6)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes by their parent"),
]


def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost(url: str, tmp_path: Path) -> None:
    served = Served(tmp_path, url, NAMES, 300, overlap=2)
    with serving(served.project, workers=2) as (served.url, process):
        notes = asyncio.run(under_fire(served, process))
        everyone = process.children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        _, alive = psutil.wait_procs(everyone, timeout=30)
        assert alive == []
    found = reckon(url, notes)
    assert found.problems == []
    assert found.n_rankings > 20


async def under_fire(served: Served, process: psutil.Process) -> Notes:
    before = process.children()
    assert len(before) == 2
    async with pool(served, NAMES) as notes:
        await more(lambda: len(notes.saved), 6)
        os.kill(before[0].pid, signal.SIGKILL)
        await more(lambda: len(notes.saved), 6)
        while len(process.children()) < 2 or before[0] in process.children():
            await asyncio.sleep(0.1)
        await more(lambda: len(notes.saved), 12)
        assert before[1] in process.children()
    return notes


def test_workers_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    served = Served(tmp_path, str(tmp_path / "labels.db"), NAMES[:1], 1)
    with serving(served.project, workers=2) as (_, process):
        everyone = process.children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(everyone, timeout=30)
        assert alive == []
