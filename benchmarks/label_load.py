"""Load test of the ranking app: simulated annotators, each with their own session, on a real server.

    python benchmarks/label_load.py [--annotators 50] [--seconds 300] [--pace 5] [--workers 1]
        [--database PATH|postgresql://...]

Starts `align label serve` and logs all annotators in, a few at a time. Each claims, saves drafts, sends a heartbeat and
submits about every `pace` seconds, and sometimes skips, flags, undoes or revises. A lead's dashboard is recomputed
every ten seconds. Prints the time of each kind of call, as the annotators see it, and the CPU use of server, database
and clients, without the logins; then compares the database with the acknowledged submissions. All share the machine.
Exit status 1 if anything failed, was lost, or is there twice. Needs an empty database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import psutil
from label_crowd import PASSWORD, Annotator, Notes, Reckoning, Watcher, reckon
from sqlalchemy import text

from apps.label.importing import import_files
from apps.store import invitations, passwords
from apps.store.engine import Store
from apps.store.project import opened

ROOT = Path(__file__).parents[1]
OFFICE = 50  # people with the same address; the server limits the connections of an address
AT_THE_DOOR = 8  # people who log in at the same time; a password needs 0.1 to 0.2 s of a core
WORDS = "the model answers at some length because people ask for reasons and examples while others are short".split()  # noqa: SIM905


class Load(NamedTuple):
    """The size of the load."""

    annotators: int
    seconds: float
    pace_s: float = 5.0
    tasks: int = 2000
    overlap: int = 3
    refresh_s: float = 10.0
    workers: int = 1


class Used(NamedTuple):
    """Seconds of CPU."""

    server: float
    database: float  # 0 for SQLite, and for a database on another machine
    clients: float


class Result(NamedTuple):
    notes: Notes
    arrival_s: float  # until all are logged in
    seconds: float  # after that
    used: Used
    peak_mb: float  # of the server's resident memory, sampled every second
    reckoning: Reckoning


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--pace", type=float, default=5.0, help="seconds from one submit of a person to the next")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--overlap", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--database", help="an empty database; default: a new file")
    given = parser.parse_args()
    load = Load(given.annotators, given.seconds, given.pace, given.tasks, given.overlap, workers=given.workers)
    with tempfile.TemporaryDirectory() as temporary:
        database = given.database or str(Path(temporary) / "labels.db")
        kind = database.partition("://")[0] if "://" in database else "sqlite"
        busy = ", ".join(f"{one:.1f}" for one in os.getloadavg())
        print(f"{load}, {kind}, {os.cpu_count()} cores ({platform.machine()}), load before {busy}", flush=True)
        result = measure(Path(temporary), load, database)
    tell(result)
    return int(bool(result.notes.failures or result.notes.refusals or result.reckoning.problems))


def measure(folder: Path, load: Load, database: str, enough: Callable[[Notes], bool] = lambda notes: True) -> Result:
    """The whole measurement in a folder: for the given time, and then until `enough`."""
    project = folder / "project.yaml"
    keys = {"name": "load", "database": database, "overlap": load.overlap}
    project.write_text(json.dumps(keys), encoding="utf-8")
    write_answers(folder / "answers.jsonl", load.tasks)
    names = [f"person {index}" for index in range(load.annotators)]
    once = patch.object(
        passwords, "hash_password", cache(passwords.hash_password)
    )  # all have one password, and hashing is slow on purpose
    with once, opened(str(project)) as bench:
        import_files(bench, [str(folder / "answers.jsonl")])
        for name in (*names, "lead"):
            token = invitations.invite(bench.store, "reviewer" if name == "lead" else "annotator", name).token
            invitations.accept(bench.store, token, None, PASSWORD)
    with serving(project, load.workers) as (url, process):
        crowd = Crowd(url, names, load, process, database_process(database))
        result = asyncio.run(crowd.run(enough))
    return result._replace(reckoning=reckon(database, result.notes))


@contextmanager
def serving(project: Path, workers: int = 1) -> Iterator[tuple[str, psutil.Process]]:
    """The server in its own process, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", project.with_suffix(".log")
    command = [sys.executable, "-m", "apps.label", "serve", str(project), "--port", str(port)]
    command += ["--workers", str(workers)] if workers > 1 else []
    with log.open("w") as file:
        process = psutil.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=file, stderr=file)
    try:
        while not answers(url):
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        yield url, process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
        process.wait()
    if "Traceback" in log.read_text():
        raise RuntimeError(log.read_text())


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


class Crowd:
    """The annotators, and the processes of which CPU time is counted."""

    def __init__(
        self, url: str, names: list[str], load: Load, server: psutil.Process, database: psutil.Process | None
    ) -> None:
        self.notes, self.load, self.server, self.database = Notes(), load, server, database
        self.crew = [Annotator(name, url, self.notes, load.pace_s) for name in names]
        self.lead = Watcher("lead", url, self.notes)
        if platform.system() == "Linux":  # other systems have only one loopback address
            for index, one in enumerate(self.crew):
                one.browser.address = f"127.0.0.{1 + index // OFFICE}"

    async def run(self, enough: Callable[[Notes], bool]) -> Result:
        """Logs all in, lets them work for the given time, and samples the server's memory."""
        began, door = time.monotonic(), asyncio.Semaphore(AT_THE_DOOR)

        async def come(one: Annotator) -> None:
            async with door:
                await one.log_in()

        await asyncio.gather(*(come(one) for one in (*self.crew, self.lead)))
        arrived, before = time.monotonic(), self.used()
        peak_mb = await self.work(lambda: time.monotonic() > arrived + self.load.seconds and enough(self.notes))
        took, after = time.monotonic() - arrived, self.used()
        used = Used(*(now - then for now, then in zip(after, before, strict=True)))
        return Result(self.notes, arrived - began, took, used, peak_mb, Reckoning(0, 0, 0, []))

    async def work(self, is_over: Callable[[], bool]) -> float:
        """Runs all annotators until `is_over`. Returns the server's peak memory in MB."""
        working = [asyncio.create_task(one.work(is_over)) for one in self.crew]
        working.append(asyncio.create_task(self.lead.watch(self.load.refresh_s, is_over)))
        peak = 0.0
        while not is_over():
            peak = max(peak, sum(one.memory_info().rss for one in family(self.server)) / 2**20)
            await asyncio.sleep(1)
        await asyncio.gather(*working)
        for one in (*self.crew, self.lead):
            one.browser.close()
        return peak

    def used(self) -> Used:
        own = psutil.Process().cpu_times()
        return Used(cpu_s(self.server), cpu_s(self.database) if self.database else 0.0, own.user + own.system)


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and its children, alive or waited for."""
    times = [one.cpu_times() for one in family(process)]
    return float(sum(one.user + one.system + one.children_user + one.children_system for one in times))


def database_process(database: str) -> psutil.Process | None:
    """PostgreSQL's main process, if it is on this machine."""
    store = Store.open(database, create=False)
    with store.read() as session:
        pid = None if store.is_sqlite else session.scalar(text("SELECT pg_backend_pid()"))
        found = psutil.Process(pid).parent() if pid and psutil.pid_exists(pid) else None
    store.close()
    return found if found is not None and found.name() == "postgres" else None


def write_answers(path: Path, n: int) -> None:
    """Writes prompts with four answers of about a hundred words: Markdown with a list, code and a formula."""
    chance = random.Random(1)

    def words(n_words: int) -> str:
        return " ".join(chance.choices(WORDS, k=n_words))

    with path.open("w", encoding="utf-8") as file:
        for index in range(n):
            responses = [
                f"{words(60)}, number {index}.{place}:\n\n- **{words(8)}**\n- {words(8)}\n- `{words(3)}`\n\n"
                f"```python\n{words(10)}\n```\n\n{words(40)} $\\frac{{{index}}}{{{place + 1}}}$."
                for place in range(4)
            ]
            row = {
                "prompt": f"{words(30)} {index}?",
                "responses": responses,
                "model": "m",
                "temperature": 1.0,
                "seed": 1,
            }
            file.write(json.dumps(row) + "\n")


def tell(result: Result) -> None:
    """Prints the figures."""
    notes, found = result.notes, result.reckoning
    print(f"  {'call':10} {'n':>6} {'p50':>7} {'p95':>7} {'p99':>7} {'max':>7}  ms")
    for kind, times in sorted(notes.times.items(), key=lambda item: -len(item[1])):
        times.sort()
        p50, p95, p99 = (1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.95, 0.99))
        print(f"  {kind:10} {len(times):6} {p50:7.1f} {p95:7.1f} {p99:7.1f} {1000 * times[-1]:7.1f}")
    server, database, clients = (100 * one / result.seconds for one in result.used)
    rate = len(notes.times["submit"]) / result.seconds
    print(f"  logins: {result.arrival_s:.0f} s for all, {notes.n_sent_away} had to wait")
    print(f"  {result.seconds:.0f} s, {rate:.1f} submits a second; CPU of a core: server {server:.0f}%, database "
          f"{database:.0f}%, clients {clients:.0f}%; server's peak memory {result.peak_mb:.0f} MB")  # fmt: skip
    print(f"  failures {dict(notes.failures)}, refusals {dict(notes.refusals)}")
    print(f"  {len(notes.saved)} acknowledged, {len(notes.undone)} undone; {found.n_rankings} rankings, of them "
          f"{found.n_extra} extra; problems {found.problems}", flush=True)  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
