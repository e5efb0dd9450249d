"""A served project for each test, and one that tests share which change nothing for others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Server
from browsing import Desk
from served import Place, project_in

from apps.store import people

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))  # whose simulated annotators the tests use too


@pytest.fixture
def make_place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes a served project; keys of project.yaml are arguments."""
    from apps.label.server import ranking_app

    made = []

    def make(**recipe: object) -> Place:
        project = project_in(tmp_path / str(len(made)), **recipe)
        made.append(project)
        return Place(project, ranking_app([project]))

    yield make
    for project in made:
        project.store.close()


@pytest.fixture
def place(make_place: Callable[..., Place]) -> Place:
    return make_place(overlap=2)


@pytest.fixture
def sit_down(
    browser: Any, office: tuple[Place, Server], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Desk]]:
    """Opens the page for a person of the module's `office`; at the end nothing may have gone wrong in any window.

    The module's WINDOW has the defaults of the browser's context.
    """
    place, server = office
    window = getattr(request.module, "WINDOW", {})
    desks = []

    def sit(name: str, role: Any = "annotator", **context: Any) -> Desk:
        if name not in [person.name for person in people.all_people(place.project.store)]:
            place.member(name, role)
        desks.append(Desk(browser, server.url, place.token(name), **{**window, **context}))
        return desks[-1].open()

    yield sit
    for desk in desks:
        desk.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A project with one task for everybody."""
    from apps.label.server import ranking_app

    project = project_in(tmp_path_factory.mktemp("shared"), overlap=100)
    made = Place(project, ranking_app([project]))
    made.tasks(1)
    yield made
    project.store.close()
