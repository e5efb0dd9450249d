"""The recipes and prompt templates that come with this package."""

from __future__ import annotations

from pathlib import Path


def shipped(path: str) -> Path:
    """The place of a file that comes with this package, such as `recipes/demo.yaml` or `data/prompts/judge.yaml`.

    An installed package has them inside itself; in a checkout they lie beside it.
    """
    package = Path(__file__).parent
    root = package if (package / "recipes").is_dir() else package.parent
    return root / path


def own_or_shipped(path: str) -> Path:
    """A user's own file if it exists, else the one of this name that comes with this package, where there is one."""
    ours = shipped(path)
    return ours if not Path(path).is_file() and ours.is_file() else Path(path)
