"""Cache of an evaluation: rows of JSON, stored under a hash of everything that they depend on.

A portion of an evaluation (some prompts, one model, one sampling setting) is computed whole and written at once. So an
interrupted evaluation resumes, a repeated one computes nothing, and after a change of one model only that model runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1  # of the rows; a new number invalidates all entries


class Cache:
    """A folder of portions. `read` and `computed` count hits and misses."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.read = self.computed = 0

    def rows(self, of: Any, compute: Callable[[], Sequence[Any]]) -> list[Any]:
        """The rows of `compute`, or the cached rows of an equal key `of` (JSON values that decide the rows)."""
        path = self._path(of)
        known = _read(path)
        if known is not None:
            self.read += 1
            return known
        rows = list(compute())
        _write(path, rows)
        self.computed += 1
        return [json.loads(json.dumps(row)) for row in rows]  # as they are read later: tuples become lists

    def _path(self, of: Any) -> Path:
        text = json.dumps([FORMAT, of], sort_keys=True, ensure_ascii=True)
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.jsonl"


def _read(path: Path) -> list[Any] | None:
    """The rows; None if the file is missing, truncated or damaged."""
    try:
        *lines, end = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return None
    return rows[:-1] if not end and rows and rows[-1] == {"rows": len(rows) - 1} else None


def _write(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_suffix(f".{os.getpid()}")
    with writing.open("w", encoding="utf-8") as file:
        for row in [*rows, {"rows": len(rows)}]:
            file.write(json.dumps(row) + "\n")
    writing.replace(path)
