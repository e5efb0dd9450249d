"""A served project: the real application on SQLite, with people who are logged in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from offices import person, prompt
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from apps.store import adding, projects, queue, sessions
from apps.store.engine import Store
from apps.store.people import PersonInfo
from apps.store.project import Project, Recipe

BASE = "http://127.0.0.1:7860"
PASSWORD = "four words or more"  # what `offices.person` gives everybody
GUIDELINES = "# How to judge\n\nRead *everything* first."


class Member(NamedTuple):
    """Somebody with a client that is logged in as them."""

    who: PersonInfo
    client: TestClient

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """An API call's answer; `.status_code` and `.json()`."""
        return self.client.request(method, f"/api/{path}", headers={"X-Align": "1"}, json=body)


class Place(NamedTuple):
    """A project and the application that serves it."""

    project: Project
    app: ASGIApp

    def tasks(self, n: int, k: int = 4, kind: Any = "rank", **more: Any) -> None:
        self.add([prompt(f"{kind} {index}", k, **more) for index in range(n)], kind)

    def add(self, prompts: list[adding.NewPrompt], kind: Any = "rank") -> None:
        adding.add_tasks(self.project.store, self.project.id, prompts, kind)
        queue.draw(self.project.store, self.project.id)

    def client(self, token: str | None = None, **more: Any) -> TestClient:
        cookies = {} if token is None else {"align_label": token}
        return TestClient(self.app, base_url=BASE, cookies=cookies, follow_redirects=False, **more)

    def token(self, name: str) -> str:
        return sessions.login(self.project.store, name, PASSWORD, "10.0.0.1")

    def member(self, name: str, role: Any = "annotator") -> Member:
        who = person(self.project.store, name, role)
        return Member(who, self.client(self.token(name)))


def project_in(folder: Path, **recipe: Any) -> Project:
    made = Recipe(**{"name": "judge & compare", "database": str(folder / "labels.db"), **recipe})
    store = Store.open(made.database)
    return Project(made, store, projects.sync(store, made.name, made.settings(), GUIDELINES))
