"""The command: what a recipe may say, what is told before anything is loaded, and a server that really starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from comparing import OWN, project_file, question

from align.config import build
from align.errors import UserError
from apps.compare.recipe import Recipe
from apps.compare.server import check

ROOT = Path(__file__).parents[3]
TWO: dict[str, Any] = {"models": {"a": {"path": "x/a"}, "sft": {"path": "x/b"}}}


def command(*words: str, **more: Any) -> Any:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"models": {"a": {"path": "x"}}}, "models: 1 given; name at least two to compare"),
        (TWO | {"models": {" ": {"path": "x"}, "b": {"path": "y"}}}, "models: ' ' is not a valid model name"),
        (TWO | {"reference": "c"}, "reference = 'c' is not one of the models: a, sft"),
        (TWO | {"sampling": {"max_tokens": 600}}, "sampling.max_tokens = 600 is more than most_tokens, 512"),
        (TWO | {"host": "0.0.0.0"}, "host = 0.0.0.0: serving other machines needs accounts; set arena"),
        (TWO | {"trusted_proxies": ["10.0.0.1"]}, "trusted_proxies = ('10.0.0.1',): serving other machines needs"),
        (TWO | {"origin": "https://c.example"}, "origin = https://c.example: serving other machines needs accounts"),
        (TWO | {"moddels": 1}, "moddels = 1: unknown key; did you mean models?"),
        (TWO | {"models": {"a": {"path": "x", "best_of": 4}, "b": {"path": "y"}}}, "best_of"),
        (TWO | {"port": 70000}, "port"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        build(Recipe, given, "r.yaml")


def test_the_reference_is_the_one_named_or_sft() -> None:
    assert Recipe.model_validate(TWO).kl_reference == "sft"
    assert Recipe.model_validate(TWO | {"reference": "a"}).kl_reference == "a"
    assert Recipe.model_validate({"models": {"a": {"path": "x"}, "b": {"path": "y"}}}).kl_reference is None


def test_what_is_missing_is_told_before_anything_is_loaded(models: dict[str, Any], tmp_path: Path) -> None:
    for change, told in (
        ({"models": models["models"] | {"dpo": {"path": "runs/none/at/all"}}}, "models.dpo.path = 'runs/none/at/all'"),
        ({"reward": "runs/no/rm"}, "reward = 'runs/no/rm': there is no such folder"),
        ({"arena": "no/project.yaml"}, "no/project.yaml"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            check(Recipe.model_validate(models | change))
    check(Recipe.model_validate(models | {"arena": project_file(tmp_path)}))


def test_help_lists_every_key_and_loads_nothing_heavy() -> None:
    done = command("-X", "importtime", "-m", "apps.compare", "--help")
    assert done.returncode == 0
    assert "usage: python -m apps.compare RECIPE.yaml" in done.stdout
    for key in ("models", "reference", "reward", "sampling.top_p", "queue.waiting", "arena", "conversation_tokens"):
        assert f"  {key} " in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in imported
    assert imported.isdisjoint({"torch", "transformers", "numpy", "gradio", "fastapi", "sqlalchemy"})


def test_a_mistake_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(TWO))
    done = command("-m", "apps.compare", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: models.a.path = 'x/a'")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_it_serves_until_it_is_stopped(models: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(models | {"port": 0, "arena": project_file(tmp_path)}))
    dry = command("-m", "apps.compare", str(path), "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "conversation_tokens: 2048" in dry.stdout
    assert not (tmp_path / "labels.db").exists()
    words = [sys.executable, "-m", "apps.compare", str(path), "arena=null"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        told = [server.stdout.readline() for _ in range(5)]
        assert [line.split(" from ")[0] for line in told[:4]] == [
            "loading base", "loading sft", "loading ppo", "loading the reward model",
        ]  # fmt: skip
        found = re.search(r"is at (http://127\.0\.0\.1:\d+); Ctrl-C stops it", told[4])
        assert found
        answer = httpx.post(f"{found[1]}/api/ask", headers=OWN, json=question("say red", "ppo", "base"), timeout=60)
        assert answer.text.count('"figures"') == 2
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
