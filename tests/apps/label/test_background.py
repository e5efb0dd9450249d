"""The process that computes the lead's figures: it answers as the server would, and never outlives it."""

from __future__ import annotations

import os
import sys
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import psutil
import pytest
from offices import Bench
from processes import Served

from align.errors import UserError
from apps.label.background import NICENESS, BackgroundCompute
from apps.label.lead import computed


def the_process(others: set[Any]) -> Any:
    """The one that was started since; those of other tests may still be about to end."""
    (child,) = [child for child in set(active_children()) - others if child.name.startswith("SpawnProcess")]
    return child


@pytest.mark.slow
def test_it_answers_what_the_server_would(bench: Bench) -> None:
    bench.file("a.jsonl", [{"prompt": f"q{n}", "responses": ["good", "bad"], "model": "m"} for n in range(3)])
    from apps.label.importing import import_files

    import_files(bench.project, [str(bench.folder / "a.jsonl")])
    bench.rank("Ann", "good", "bad")
    store, project = bench.project.store, bench.project.id
    others = set(active_children())
    apart = BackgroundCompute()
    found = apart(store, project, 0.7)
    assert found[1] == computed(store, project, 0.7)[1]
    assert found[0].n_rankings == found[1].n_rankings == 1
    assert set(found[2]) == {"pace", "seconds", "position", "agreement", "gold", "leaderboard"}
    process = the_process(others)
    assert psutil.Process(process.pid).nice() == os.nice(0) + NICENESS
    with pytest.raises(UserError, match="no such project"):
        apart(store, project + 1, 0.7)
    process.kill()
    process.join()
    with pytest.raises(UserError, match="try again"):
        apart(store, project, 0.7)
    assert apart(store, project, 0.7)[1] == found[1]
    process = the_process(others)
    process.kill()
    process.join()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes by their parent")
def test_it_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    import asyncio

    from label_crowd import Notes, Watcher

    served = Served(tmp_path, str(tmp_path / "labels.db"), ["Ann"], 1, role="reviewer")
    served.start()
    served.wait()

    async def look() -> None:
        lead = Watcher("Ann", served.url, Notes())
        await lead.log_in()
        await lead.watch(0.1, lambda: bool(lead.notes.times["dashboard"]))  # until the figures have come
        lead.browser.close()
        assert not lead.notes.failures

    asyncio.run(look())
    children = psutil.Process(served.process.pid).children(recursive=True)
    assert any(child.nice() == os.nice(0) + NICENESS for child in children)
    served.kill()
    _, alive = psutil.wait_procs(children, timeout=120)
    assert alive == []
