"""The house's rule: a room imports only from rooms below it. Imports inside functions count too."""

import ast
from pathlib import Path

import pytest

ALIGN = Path(__file__).parents[1] / "align"

# Each room and what it may lean on, from docs/architecture.md.
BELOW = {
    "errors": set(),
    "config": {"errors"},
    "sections": {"config"},
    "text": {"errors", "config", "sections"},
    "gpt": {"errors"},
    "lab": {"errors", "config", "sections", "text"},
    "models": {"errors", "config", "sections", "text", "gpt"},
    "train": {"errors", "config", "sections", "models"},
    "rl": {"errors", "config", "sections", "text", "gpt", "models", "train"},
    "evals": {"errors", "config", "sections", "text", "models", "rl"},
}

# Commands that stand in a room and are at the top of the house all the same: see docs/architecture.md, "The lab".
COMMANDS = {Path("lab/overoptimization.py")}


def rooms_imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "align" else [f"align.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("align.")}
    return found


def files_of(room: str) -> list[Path]:
    folder = ALIGN / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ALIGN / f"{room}.py"]


@pytest.mark.parametrize("room", BELOW)
def test_a_room_leans_only_on_those_below_it(room: str) -> None:
    for path in files_of(room):
        if path.relative_to(ALIGN) in COMMANDS:
            continue
        upward = rooms_imported(path) - BELOW[room] - {room}
        assert not upward, f"{path.relative_to(ALIGN)} imports {sorted(upward)}"


def test_nothing_imports_a_command_that_stands_in_a_room() -> None:
    names = [".".join(["align", *path.with_suffix("").parts]) for path in COMMANDS]
    for path in ALIGN.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [name for name in names if f"import {name}" in text or f"from {name} " in text], path


def test_every_folder_is_a_known_room() -> None:
    folders = {path.name for path in ALIGN.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= set(BELOW)
