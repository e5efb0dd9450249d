"""Benchmark of the ranking app's database with many tasks: time and memory of import, claim, submit and export.

    python benchmarks/label_store.py [--tasks 100000] [--done 5000] [--database PATH|postgresql://...] [--folder FOLDER]

Imports N prompts with 4 answers each. Measures claims and submits of a new person, of a person with thousands of
rankings of tasks that are open to others, at the end of the queue, and of an empty queue; then exports. Memory is the
peak of the process (getrusage) after each step; times are medians, 95th percentiles and maxima over 200 claims. Needs
an empty database.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update

from apps.label.importing import import_files
from apps.store import invitations, tasks, work
from apps.store.project import Project, opened
from apps.store.tables import Annotation, Desk, Lease, Presentation, Revision, Task

WORDS = "the model answers at some length; a row is about as long as rows of people are".split()  # noqa: SIM905
N_TIMED = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--done", type=int, default=5000, help="tasks that one person has done and others have not")
    parser.add_argument("--database", help="an empty one; by default a new file")
    parser.add_argument("--folder", help="where files go; by default a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary)
        measure(folder, given.tasks, given.done, given.database or str(folder / "labels.db"))


def measure(folder: Path, n: int, n_done: int, database: str) -> None:
    print(f"{n:,} tasks, {database.partition('://')[0] if '://' in database else 'sqlite'}, {platform.machine()}")
    (folder / "project.yaml").write_text(json.dumps({"name": "bench", "database": database, "overlap": 3}))
    write_answers(folder / "answers.jsonl", n)
    told("start", (0.0, 0.0))
    with opened(str(folder / "project.yaml")) as project:
        timed("import", lambda: import_files(project, [str(folder / "answers.jsonl")]))
        timed("import again", lambda: import_files(project, [str(folder / "answers.jsonl")]))
        crew = [someone(project, f"person {index}") for index in range(4)]
        work_rounds("a person who begins", project, crew[0])
        have_done(project, crew[1], n_done)
        work_rounds(f"a person who has done {n_done:,}, open to others", project, crew[1])
        with project.store.write() as session:  # as if all places of the desk had to be read again
            session.execute(update(Desk).where(Desk.person_id == crew[1]).values(place=0))
        timed(f"one claim that passes {n_done:,} one by one", lambda: tasks.claim(project.store, project.id, crew[1]))
        have_done(project, crew[2], n)
        with project.store.write() as session:
            session.execute(update(Task).values(n_done=3, status="done"))
            left = select(Task.id).where(Task.kind == "rank").order_by(Task.place.desc()).limit(2 * N_TIMED)
            session.execute(update(Task).where(Task.id.in_(left)).values(n_done=2, status="open"))
        project.store.analyze()
        work_rounds("the end of the queue", project, crew[3])
        rounds("nothing left for a person", lambda: tasks.claim(project.store, project.id, crew[2]), N_TIMED)
    export_alone(folder)


def export_alone(folder: Path) -> None:
    """Runs in its own process, so that its memory can be measured."""
    words = [sys.executable, "-m", "apps.label", "export", str(folder / "project.yaml"), "--out", str(folder / "out")]
    started = now()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, cpu = since(started)[0], used.ru_utime + used.ru_stime
    print(f"  export: {wall:.1f} s, of CPU {cpu:.1f} s, peak memory {used.ru_maxrss / 1024:.0f} MB", flush=True)


def write_answers(path: Path, n: int) -> None:
    """About 1.6 kB a row."""
    text = " ".join(WORDS * 4)
    with path.open("w", encoding="utf-8") as file:
        for index in range(n):
            responses = [f"{text} {index} {place}" for place in range(4)]
            row = {"prompt": f"{text} {index}", "responses": responses, "model": "m", "temperature": 1.0, "seed": 1}
            file.write(json.dumps(row) + "\n")


def someone(project: Project, name: str) -> int:
    token = invitations.invite(project.store, "annotator", name).token
    return invitations.accept(project.store, token, None, "four words or more").id


def have_done(project: Project, person: int, n: int) -> None:
    """Rankings by a person of the first n tasks of the queue, written directly."""
    answer = {"rating": 4, "flags": [], "comment": ""}
    payload = {"answers": {str(slot): answer for slot in range(4)}, "ranks": {"0": 1, "1": 2, "2": 3, "3": 4}}
    payload |= {"all_bad": False, "comment": ""}
    with project.store.read() as session:
        said = select(Annotation.task_id).where(Annotation.person_id == person)
        ids = session.scalars(select(Task.id).where(Task.id.not_in(said)).order_by(Task.place).limit(n)).all()
    for first in range(0, len(ids), 5000):
        part = ids[first : first + 5000]
        keys = [str(uuid.uuid4()) for _ in part]
        own = [{"task_id": task, "person_id": person} for task in part]
        annotations = [
            {
                "id": key,
                "project_id": project.id,
                "status": "submitted",
                "n_revisions": 1,
                "extra": False,
                "turn": 0,
                **one,
            }
            for key, one in zip(keys, own, strict=True)
        ]
        revisions = [
            {"annotation_id": key, "n": 1, "status": "submitted", "extra": False, "payload": payload, "seconds": 30.0}
            | {"guidelines_version": 1, "created_at": 0.0}
            for key in keys
        ]
        with project.store.write() as session:
            connection = session.connection()
            connection.execute(insert(Annotation), annotations)
            connection.execute(insert(Revision), revisions)
            connection.execute(insert(Presentation), [one | {"places": [0, 1, 2, 3], "shown_at": 0.0} for one in own])
            connection.execute(insert(Lease), [one | {"token": "", "expires_at": 0.0} for one in own])
            connection.execute(update(Task).where(Task.id.in_(part)).values(shown=True))


def work_rounds(name: str, project: Project, person: int) -> None:
    """Claims, each followed by a submit, both timed."""
    claims, submits = [], []
    for _ in range(N_TIMED):
        started = now()
        given = tasks.claim(project.store, project.id, person)
        claims.append(since(started))
        assert isinstance(given, tasks.TaskView), given
        answers = {str(slot): {"rating": 4} for slot in range(len(given.answers))}
        payload = {"answers": answers, "ranks": {slot: 1 + int(slot) for slot in answers}}
        started = now()
        work.submit(project.store, person, str(uuid.uuid4()), given.id, given.lease, payload, 30)
        submits.append(since(started))
    told_times(f"claim, {name}", claims)
    told_times(f"submit, {name}", submits)


def rounds(name: str, act: Callable[[], Any], n: int) -> None:
    found = []
    for _ in range(n):
        started = now()
        act()
        found.append(since(started))
    told_times(name, found)


Took = tuple[float, float]  # wall-clock seconds, and CPU seconds, which do not depend on other work


def now() -> Took:
    return time.perf_counter(), time.process_time()


def since(started: Took) -> Took:
    return time.perf_counter() - started[0], time.process_time() - started[1]


def told_times(name: str, took: list[Took]) -> None:
    wall, cpu = (sorted(1000 * value for value in values) for values in zip(*took, strict=True))
    p95 = wall[int(0.95 * len(wall))]
    said = f"median {statistics.median(wall):.1f} ms, p95 {p95:.1f}, max {wall[-1]:.1f}"
    print(f"  {name}: {said}; CPU median {statistics.median(cpu):.1f}, max {cpu[-1]:.1f}", flush=True)


def timed(name: str, act: Callable[[], Any]) -> None:
    started = now()
    act()
    told(name, since(started))


def told(name: str, took: Took) -> None:
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {name}: {took[0]:.1f} s, of CPU {took[1]:.1f} s, peak memory {peak_mb:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
