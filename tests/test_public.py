"""`import align` offers the documented names, and imports nothing before one is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import align
from align.config import build, read_yaml
from align.errors import UserError


@pytest.mark.parametrize("name", align.__all__)
def test_a_public_name_exists_and_is_documented(name: str) -> None:
    found = getattr(align, name)
    assert found.__doc__, name
    assert name in dir(align)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(align.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "an alias of the same name is what exports it"
            seen[alias.name] = f"align.{alias.name}" if node.module == "align" else node.module
    assert seen == align._HOMES


def test_import_align_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import align; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(Path(align.__file__).parents[1])})  # fmt: skip
    named = ast.literal_eval(done.stdout)
    assert "align" in named
    others = {name for name in named if name.partition(".")[0] not in sys.stdlib_module_names}
    assert others == {"align"}


def test_the_version_is_the_same_everywhere() -> None:
    root = Path(align.__file__).parents[1]
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == align.__version__
    assert f"\n## [{align.__version__}] - " in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'align' has no attribute 'sftt'"):
        _ = align.sftt  # type: ignore[attr-defined]


def test_a_recipe_is_read_with_overrides() -> None:
    path = Path(__file__).parents[1] / "recipes" / "sft.yaml"
    recipe = align.read_recipe(align.sft.Recipe, path, "optim.learning_rate=1e-5", "seed=7")
    assert (recipe.optim.learning_rate, recipe.seed) == (1e-5, 7)
    rest = recipe.model_dump() | {"optim": None, "seed": None}
    plain = build(align.sft.Recipe, read_yaml(path), "").model_dump() | {"optim": None, "seed": None}
    assert rest == plain
    with pytest.raises(UserError, match="unknown key"):
        align.read_recipe(align.sft.Recipe, path, "sed=7")
