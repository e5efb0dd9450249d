"""What tests of the apps begin with: a clock that they set, a project with people and tasks, one in a folder."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import select

from apps.store import adding, invitations, projects, queue, tasks, work
from apps.store.engine import Store
from apps.store.people import PersonInfo
from apps.store.project import Project
from apps.store.settings import Settings
from apps.store.tables import Annotation, Task
from apps.store.tasks import NoTask, TaskView

START_OF_TIME = 1_800_000_000.0


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START_OF_TIME

    def __call__(self) -> float:
        return self.now


class Office:
    """A project with people and tasks."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.store = store
        self.project = projects.sync(store, "office", Settings(**settings))

    def person(self, name: str, role: Any = "annotator") -> PersonInfo:
        return person(self.store, name, role)

    def tasks(self, n: int, k: int = 4, kind: Any = "rank", **more: Any) -> None:
        """Adds n prompts with k answers each, and draws the queue."""
        prompts = [prompt(f"{kind} {index}", k, **more) for index in range(n)]
        adding.add_tasks(self.store, self.project, prompts, kind)
        queue.draw(self.store, self.project)


def person(store: Store, name: str, role: Any = "annotator") -> PersonInfo:
    """Somebody who was invited and came."""
    token = invitations.invite(store, role, name).token
    return invitations.accept(store, token, None, "four words or more")


def prompt(name: str, k: int = 4, **more: Any) -> adding.NewPrompt:
    """A prompt with k answers by k models."""
    answers = tuple(adding.NewAnswer(f"answer {index} to {name}", {"model": f"model {index}"}) for index in range(k))
    return adding.NewPrompt([{"role": "user", "content": name}], "questions", answers, **more)


def ranking(*ranks: int, rating: int | None = 4) -> dict[str, Any]:
    """A payload: the ranks of the slots."""
    return {
        "answers": {str(slot): {"rating": rating, "flags": [], "comment": ""} for slot in range(len(ranks))},
        "ranks": {str(slot): rank for slot, rank in enumerate(ranks)},
        "all_bad": False,
        "comment": "",
    }


def at_once(n: int, act: Callable[[int], Any]) -> list[Any]:
    """What n threads that start together return; an exception of any is raised."""
    start = threading.Barrier(n)

    def run(index: int) -> Any:
        start.wait()
        return act(index)

    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(run, range(n)))


def new_id() -> str:
    return str(uuid.uuid4())


def claim(office: Office, person: PersonInfo) -> TaskView:
    given = tasks.claim(office.store, office.project, person.id)
    assert isinstance(given, TaskView), given
    return given


def nothing(office: Office, person: PersonInfo) -> NoTask:
    given = tasks.claim(office.store, office.project, person.id)
    assert isinstance(given, NoTask), given
    return given


def rank(office: Office, person: PersonInfo, given: TaskView) -> work.Saved:
    ranks = ranking(*range(1, len(given.answers) + 1))
    return work.submit(office.store, person.id, new_id(), given.id, given.lease, ranks, 30)


def row(office: Office, task: int) -> Task:
    with office.store.read() as session:
        return session.get_one(Task, task)


def queue_of(office: Office) -> list[int]:
    with office.store.read() as session:
        return list(session.scalars(select(Task.id).where(Task.kind == "rank").order_by(Task.place)))


def assert_counts(office: Office) -> None:
    """What a task counts is what was said about it, and never more than it needs."""
    with office.store.read() as session:
        for task in session.scalars(select(Task)):
            said = session.scalars(select(Annotation).where(Annotation.task_id == task.id)).all()
            n = sum(one.status == "submitted" and not one.extra for one in said)
            assert task.n_done == n <= task.required
            assert task.status == "closed" or (task.status == "done") == (n >= task.required)


class Bench:
    """An open project, and what tests do with it."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project, self.folder = project, folder
        self.people: dict[str, int] = {}

    def file(self, name: str, rows: list[Any]) -> str:
        path = self.folder / name
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    def rank(self, name: str, *order: str) -> str:
        """Has somebody rank their next task, answers that contain the first word best; returns the annotation's id.

        Words joined by = are tied. "skip" skips.
        """
        if name not in self.people:
            self.people[name] = person(self.project.store, name).id
        given = tasks.claim(self.project.store, self.project.id, self.people[name])
        assert isinstance(given, tasks.TaskView), given
        if order == ("skip",):
            saved = work.skip(self.project.store, self.people[name], new_id(), given.id, given.lease, "no idea")
        else:
            ranks = [
                next(rank for rank, words in enumerate(order, 1) if any(word in text for word in words.split("=")))
                for text in given.answers
            ]
            payload = ranking(*ranks)
            saved = work.submit(self.project.store, self.people[name], new_id(), given.id, given.lease, payload, 20)
        return saved.id
