"""Writers killed with SIGKILL at random moments: what was acknowledged is there, once, and all counts are right.

ALIGN_KILLS sets how often (10). Writers are forked, so that a kill costs milliseconds and not the start of a Python.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from offices import Office, new_id, ranking
from sqlalchemy import func, select, text

from apps.store import events, tasks, work
from apps.store.engine import Store
from apps.store.tables import Annotation, Revision, Task

N_KILLS = int(os.environ.get("ALIGN_KILLS", "10"))
N_WRITERS = 3
OVERLAP = 2


def write_until_killed(url: str, project: int, people: list[int], acknowledged: Path, seed: int) -> None:
    """Works as several people in turn; a line is written after each answer of the store, as a page would show it."""
    chance = random.Random(seed)
    log = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    store = Store.open(url)
    while True:
        person = chance.choice(people)
        given = tasks.claim(store, project, person)
        if isinstance(given, tasks.Nothing):
            mine = chance.choice(work.history(store, project, person, limit=9)).id
            ranks = ranking(*(chance.randint(1, 2) for _ in range(2)))
            saved = work.revise(store, person, mine, ranks)
            os.write(log, f"{saved.id} {saved.revision} {events.digest(ranks)}\n".encode())
            continue
        if chance.random() < 0.3:
            work.save_draft(store, person, given.id, {"comment": "half"}, given.draft_rev + 1)
        id = given.annotation or new_id()
        ranks = ranking(*(chance.randint(1, 2) for _ in given.answers))
        saved = work.submit(store, person, id, given.id, given.lease, ranks)
        os.write(log, f"{saved.id} {saved.revision} {events.digest(ranks)}\n".encode())
        if chance.random() < 0.2:
            undone = work.undo(store, project, person, saved.id)
            assert undone is not None
            os.write(log, f"{saved.id} {undone.revision} {events.digest({})}\n".encode())


def start(url: str, office: Office, people: list[int], log: Path, seed: int) -> int:
    """A writer's process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        write_until_killed(url, office.project, people, log, seed)
    finally:
        os._exit(1)  # only a bug comes here


def acknowledged_in(logs: list[Path]) -> set[tuple[str, int, str]]:
    """A line is one write, so a kill leaves none of it or all."""
    lines = [line.split() for log in logs if log.exists() for line in log.read_text().splitlines()]
    return {(id, int(n), digest) for id, n, digest in lines}


@pytest.mark.filterwarnings("ignore:This process")  # that fork and threads do not mix: no thread runs here
def test_what_was_acknowledged_survives_sigkill(url: str, tmp_path: Path) -> None:
    store = Store.open(url)
    office = Office(store, overlap=OVERLAP, lease_minutes=0.002)
    office.tasks(300, k=2)
    crew = [[office.person(f"{writer}-{n}").id for n in range(3)] for writer in range(N_WRITERS)]
    store.close()
    logs = [tmp_path / f"log-{writer}" for writer in range(N_WRITERS)]
    chance = random.Random(1)
    running = [start(url, office, crew[writer], logs[writer], writer) for writer in range(N_WRITERS)]
    try:
        for kill in range(N_KILLS):
            writer = chance.randrange(N_WRITERS)
            wait_for_work(logs[writer], chance.randrange(4))
            time.sleep(chance.random() * 0.02)
            os.kill(running[writer], signal.SIGKILL)
            _, status = os.waitpid(running[writer], 0)
            assert os.WIFSIGNALED(status), "a writer ended by itself"
            running[writer] = start(url, office, crew[writer], logs[writer], 100 + kill)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    check(url, acknowledged_in(logs))


def wait_for_work(log: Path, n_lines: int) -> None:
    """Until so many more answers were acknowledged."""
    before = len(acknowledged_in([log]))
    deadline = time.monotonic() + 60
    while len(acknowledged_in([log])) < before + n_lines:
        assert time.monotonic() < deadline, "no writer gets on"
        time.sleep(0.002)


def check(url: str, acknowledged: set[tuple[str, int, str]]) -> None:
    """The database holds what was acknowledged, each once, and its counts are right."""
    assert len(acknowledged) > N_KILLS / 4
    store = Store.open(url)
    with store.read() as session:
        if store.is_sqlite:
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []
        kept = {(one.annotation_id, one.n): events.digest(one.payload) for one in session.scalars(select(Revision))}
        lost = [line for line in acknowledged if kept.get(line[:2]) != line[2]]
        assert lost == []
        for task in session.scalars(select(Task)):
            said = select(func.count()).where(Annotation.task_id == task.id, Annotation.status == "submitted")
            assert session.scalar(said.where(~Annotation.extra)) == task.n_done <= OVERLAP
    assert events.verify(store).problems == ()
    store.close()
