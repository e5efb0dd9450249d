"""What was computed once is read the second time: rows of JSON, filed under a hash of all that they follow from.

A portion of an evaluation (some prompts, one model, one way to sample) is computed whole and written at once. So an
evaluation that was killed goes on where it was, one that is run again computes nothing, and one of whose models has
changed asks that model alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1  # of the rows; another one makes all that was kept unknown


class Cache:
    """A folder of portions. `read` and `computed` count how often it served and how often it could not."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.read = self.computed = 0

    def rows(self, of: Any, compute: Callable[[], Sequence[Any]]) -> list[Any]:
        """The rows that `compute` gives, or gave before for an equal `of`: JSON values that they are a function of."""
        path = self._path(of)
        known = _read(path)
        if known is not None:
            self.read += 1
            return known
        rows = list(compute())
        _write(path, rows)
        self.computed += 1
        return [json.loads(json.dumps(row)) for row in rows]  # as they will be read: a tuple has become a list

    def each(
        self,
        ofs: Sequence[Any],
        compute: Callable[[list[int]], Sequence[Any]],
        at_once: int,
        keep: Callable[[Any], bool],
    ) -> list[Any]:
        """One row for each of `ofs`, filed one by one: for what is dear. Only rows that are worth it are kept.

        `compute` is given the indices of those that are not known, `at_once` of them at a time.
        """
        found = [_read(self._path(of)) for of in ofs]
        missing = [index for index, rows in enumerate(found) if rows is None]
        self.read += len(ofs) - len(missing)
        for first in range(0, len(missing), at_once):
            some = missing[first : first + at_once]
            for index, row in zip(some, compute(some), strict=True):
                self.computed += 1
                if keep(row):
                    _write(self._path(ofs[index]), [row])
                found[index] = [json.loads(json.dumps(row))]
        return [rows[0] for rows in found if rows]

    def _path(self, of: Any) -> Path:
        text = json.dumps([FORMAT, of], sort_keys=True, ensure_ascii=True)
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.jsonl"


def _read(path: Path) -> list[Any] | None:
    """The rows, None where there are none: a file that was cut short or spoilt counts as none."""
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
