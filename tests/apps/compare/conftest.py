"""A comparison of tiny models for each test, with an arena or without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from comparing import Pace, Place, project_file, recipe_of
from tiny import World, tiny_gpt

from apps.compare import models as models_module
from apps.compare.models import StreamingModels
from apps.compare.server import compare_app
from apps.store.project import opened


@pytest.fixture(scope="session")
def models(world: World, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a recipe names."""
    paths = {}
    for seed, name in enumerate(("sft", "ppo"), start=7):
        paths[name] = str(tmp_path_factory.mktemp(name))
        tiny_gpt(tokenizer, seed).save_pretrained(paths[name])
        tokenizer.save_pretrained(paths[name])
    base = {"path": world.base, "asked": "plain"}
    return {
        "models": {"base": base, "sft": {"path": paths["sft"]}, "ppo": {"path": paths["ppo"]}},
        "reward": world.reward,
    }


@pytest.fixture(scope="session")
def loaded(models: dict[str, Any]) -> StreamingModels:
    return StreamingModels(recipe_of(models))


@pytest.fixture
def make_place(models: dict[str, Any], loaded: StreamingModels, tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes the application; `arena=True` with accounts, else keys of the recipe."""
    with ExitStack() as stack:

        def make(arena: bool = False, **changes: Any) -> Place:
            own = StreamingModels.__new__(StreamingModels)  # the same models in every test, in a dictionary of its own
            own.__dict__ |= loaded.__dict__ | {"by_name": dict(loaded.by_name)}
            path = project_file(tmp_path) if arena else None
            recipe = recipe_of(models, arena=path, **changes)
            project = None if path is None else stack.enter_context(opened(path))
            return Place(recipe, own, project, compare_app(recipe, own, project))

        yield make


@pytest.fixture
def place(make_place: Callable[..., Place]) -> Place:
    return make_place()


@pytest.fixture
def arena(make_place: Callable[..., Place]) -> Place:
    return make_place(arena=True)


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pace]:
    """Every token waits until it is let."""
    made = Pace(models_module.stream)
    monkeypatch.setattr(models_module, "stream", made)
    yield made
    made.free()
