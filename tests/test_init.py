"""`align init` and what comes with the package. The walk with an installed wheel is `.ci/wheel`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import align
from align.commands import COMMANDS
from align.config import build, read_yaml
from align.errors import UserError
from align.init import README, STAGES, init, starters
from align.schema import recipe_class
from align.shipped import own_or_shipped, shipped

ROOT = Path(__file__).parents[1]


def test_it_writes_recipes_prompts_a_project_and_what_to_run(tmp_path: Path) -> None:
    init(tmp_path / "mine")
    written = {path.relative_to(tmp_path / "mine").as_posix() for path in (tmp_path / "mine").rglob("*.*")}
    assert written == set(starters())
    assert {"README.md", "project.yaml", "recipes/sft.yaml", "data/prompts/judge.yaml"} <= written
    for stage in STAGES:
        build(recipe_class(stage), read_yaml(tmp_path / "mine" / "recipes" / f"{stage}.yaml"), stage)
    build(recipe_class("label"), read_yaml(tmp_path / "mine" / "project.yaml"), "project.yaml")


@pytest.mark.parametrize("name", [name for name in starters() if name.endswith(".yaml") and "prompts" not in name])
def test_the_schema_that_a_file_names_is_written(name: str) -> None:
    schema = starters()[name].splitlines()[0].partition("$schema=")[2]
    assert (Path(name).parent / schema).as_posix() in starters()


def test_a_file_that_exists_is_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("my own")
    init(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own"
    assert (tmp_path / "recipes" / "ppo.yaml").read_text() == (ROOT / "recipes" / "ppo.yaml").read_text()
    assert "kept as they are: README.md; to get a new one, rename yours" in capsys.readouterr().out


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match=r"DIR: .*mine is a file"):
        init(tmp_path / "mine")


def test_the_commands_of_its_readme_exist_and_name_files_that_it_writes() -> None:
    lines = [line.split() for line in README.splitlines() if line.startswith("    align ")]
    assert len(lines) > 12
    for _, command, *words in lines:
        assert command.replace("-", "_") in COMMANDS
        named = {word for word in words if word.endswith(".yaml")}
        assert named <= set(starters())


@pytest.mark.slow
def test_a_starter_recipe_is_checked_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """Outside of the checkout; all recipes are run in `.ci/wheel`."""
    init(tmp_path)
    words = ["-m", "align", "sft", "recipes/sft.yaml", "--dry-run", "--model-shape", "demo"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "memory" in done.stdout.lower()


# ------------------------------------------------------------------------------------------------------------ shipped


def test_a_checkout_has_what_is_shipped_beside_the_package() -> None:
    assert shipped("recipes/demo.yaml") == ROOT / "recipes" / "demo.yaml"


def test_an_installed_package_has_it_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "align" / "recipes").mkdir(parents=True)
    monkeypatch.setattr("align.shipped.__file__", str(tmp_path / "align" / "shipped.py"))
    assert shipped("recipes/demo.yaml") == tmp_path / "align" / "recipes" / "demo.yaml"


def test_a_user_s_own_template_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "data/prompts/judge.yaml"
    assert own_or_shipped(name) == ROOT / name
    assert own_or_shipped("data/prompts/mine.yaml") == Path("data/prompts/mine.yaml")  # read_yaml says it is missing
    (tmp_path / "data" / "prompts").mkdir(parents=True)
    (tmp_path / name).write_text("user: mine")
    assert own_or_shipped(name) == Path(name)


def test_the_package_is_typed() -> None:
    assert (Path(align.__file__).parent / "py.typed").exists()
    assert (ROOT / "apps" / "py.typed").exists()
