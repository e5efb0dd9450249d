"""A room imports only from rooms below it. Imports inside functions count too."""

import ast
from pathlib import Path

import pytest

ALIGN = Path(__file__).parents[1] / "align"
APPS = ALIGN.parent / "apps"

# Each room and the rooms that it may import, from docs/architecture.md.
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "plots": set(),
    "commands": set(),
    "shipped": set(),
    "config": {"errors", "commands"},
    "sections": {"config"},
    "text": {"errors", "config", "sections"},
    "gpt": {"errors"},
    "lab": {"errors", "commands", "config", "sections", "text"},
    "models": {"errors", "config", "sections", "text", "gpt"},
    "train": {"errors", "commands", "config", "sections", "text", "models"},
    "generation": {"errors", "config", "sections", "text", "models", "train"},
    "rewards": {"errors", "config", "sections", "text", "models", "train", "generation"},
    "rl": {"errors", "config", "sections", "text", "gpt", "models", "train", "generation", "rewards"},
    "stats": {"errors", "plots", "text"},
    "evals": {"errors", "config", "sections", "text", "models", "train", "generation", "stats"},
    "report": {"errors", "config", "plots", "text", "models", "stats", "evals"},
    "judges": {"errors", "shipped", "config", "sections", "text", "models", "train", "rewards", "stats", "evals"},
    "tasks": {"errors", "shipped", "config", "sections", "text", "models", "train", "generation", "stats", "evals"},
}

# Commands in a room that may import everything: see docs/architecture.md, decision 32.
COMMANDS = {Path("lab/overoptimization.py"), Path("lab/inverse_scaling.py")}


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


# The apps' rooms, and those that each may import, besides `align`.
APPS_BELOW: dict[str, set[str]] = {
    "store": set(),
    "votes": {"store"},
    "web": {"store"},
    "label": {"store", "votes", "web"},
    "compare": {"store", "votes", "web"},
}


def packages_imported(path: Path) -> set[str]:
    """Modules of `align` and `apps` that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("align", "apps")}


@pytest.mark.parametrize("room", APPS_BELOW)
def test_an_app_leans_only_on_rooms_below_it(room: str) -> None:
    for path in (APPS / room).rglob("*.py"):
        rooms = {name.split(".")[1] for name in packages_imported(path) if name.startswith("apps.")}
        upward = rooms - APPS_BELOW[room] - {room}
        assert not upward, f"{path.relative_to(APPS)} imports {sorted(upward)}"


def test_the_store_needs_nothing_of_align_but_errors_and_config() -> None:
    for path in (APPS / "store").rglob("*.py"):
        found = {name.split(".")[1] for name in packages_imported(path) if name.startswith("align.")}
        assert found <= {"errors", "config"}, f"{path.relative_to(APPS)} imports {sorted(found)}"


def test_align_imports_no_app() -> None:
    for path in ALIGN.rglob("*.py"):
        assert not [name for name in packages_imported(path) if name.startswith("apps")], path


def test_every_folder_of_the_apps_is_a_known_room() -> None:
    folders = {path.name for path in APPS.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= set(APPS_BELOW)


def test_every_folder_is_a_known_room() -> None:
    folders = {path.name for path in ALIGN.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= set(BELOW)


def modules_imported(path: Path) -> set[str]:
    """The modules that a file imports. Imports for types alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_two_files_import_each_other() -> None:
    paths = [path for top in (ALIGN, APPS) for path in top.rglob("*.py") if path.name != "__init__.py"]
    names = {".".join(path.relative_to(ALIGN.parent).with_suffix("").parts): path for path in paths}
    imports = {name: modules_imported(path) & names.keys() for name, path in names.items()}
    circles = [(a, b) for a, found in imports.items() for b in found if a < b and a in imports[b]]
    assert not circles
