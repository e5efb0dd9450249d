"""A project in a folder, on either database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from offices import Clock, new_id, person, ranking

from apps.label.project import Project, opened
from apps.store import tasks, work


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
        assert isinstance(given, tasks.Given), given
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


@pytest.fixture
def make(url: str, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Opens a project with the keys given."""
    from contextlib import ExitStack

    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:

        def made(**keys: Any) -> Bench:
            path = tmp_path / "project.yaml"
            path.write_text(json.dumps({"name": "bench", "database": url, **keys}), encoding="utf-8")
            project = stack.enter_context(opened(str(path)))
            project.store.clock = clock
            return Bench(project, tmp_path)

        yield made


@pytest.fixture
def bench(make: Any) -> Bench:
    made: Bench = make()
    return made
