"""A served project for each test, and one that tests share which change nothing for others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import Place, project_in

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


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A project with one task for everybody."""
    from apps.label.server import ranking_app

    project = project_in(tmp_path_factory.mktemp("shared"), overlap=100)
    made = Place(project, ranking_app([project]))
    made.tasks(1)
    yield made
    project.store.close()
