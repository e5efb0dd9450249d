"""The ranking app's server as a process that tests kill, starve and start again; and people who work at it."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import lives
from label_crowd import Annotator, Notes
from offices import person, prompt

from apps.store import adding, queue
from apps.store.project import opened

PATIENCE_S = 60.0


class Served:
    """`python -m apps.label serve` in a child that has imported everything, always at the same port."""

    def __init__(
        self,
        folder: Path,
        database: str,
        names: list[str],
        n_tasks: int,
        k: int = 2,
        role: str = "annotator",
        **keys: Any,
    ) -> None:
        self.database, self.project, self.log = database, folder / "project.yaml", folder / "server.log"
        self.project.write_text(json.dumps({"name": "served", "database": database, **keys}), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        with opened(str(self.project)) as project:
            for name in names:
                person(project.store, name, role)
            adding.add_tasks(project.store, project.id, [prompt(f"task {n}", k) for n in range(n_tasks)], "rank")
            queue.draw(project.store, project.id)
        lives.warm_up()

    def start(self) -> None:
        """Starts it, and does not wait."""
        self.process = lives.start(lives.serve_labels, str(self.project), self.port, str(self.log))

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers():
            assert self.process.exitcode is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=10).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.join()

    def stop(self) -> None:
        """As an operator does it; the log must hold no traceback."""
        self.process.terminate()
        self.process.join()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()

    def limit_files(self, n_bytes: int) -> None:
        """From now on the server can write no file beyond this; -1 lifts it."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (n_bytes, -1))


@asynccontextmanager
async def pool(served: Served, names: list[str], pace_s: float = 0.02) -> AsyncIterator[Notes]:
    """People who are logged in and work for as long as the block lasts, and then finish what they are at."""
    notes = Notes()
    people = [Annotator(name, served.url, notes, pace_s, retry_s=0.02) for name in names]
    for one in people:
        await one.log_in()
    is_over = False
    working = [asyncio.create_task(one.work(lambda: is_over)) for one in people]
    try:
        yield notes
    finally:
        is_over = True
        await asyncio.gather(*working)
        for one in people:
            one.browser.close()


async def more(count: Callable[[], int], n: int) -> None:
    """Until something was counted n more times."""
    enough, deadline = count() + n, time.monotonic() + PATIENCE_S
    while count() < enough:
        assert time.monotonic() < deadline, "it did not come to be"
        await asyncio.sleep(0.005)
