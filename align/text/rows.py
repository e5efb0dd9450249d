"""Rows of data files, broken rows, and the count of broken rows."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from align.errors import UserError

N_LISTED = 20  # broken rows that the log lists; the rest are only counted


class Cell(str):
    """A text from a CSV file: the only texts that may hold a list, a number, true or false."""

    __slots__ = ()


class Row(NamedTuple):
    """One row and its source: "file.jsonl:12" (line) or "file.json:row 3", both from 1."""

    values: dict[str, Any]
    source: str


class Broken(NamedTuple):
    """A row that cannot be read, with the reason."""

    source: str
    reason: str

    def error(self) -> UserError:
        return UserError(f"{self.source}: {self.reason}; fix this row, or set data.on_error=skip to skip such rows")


@dataclass
class BrokenRows:
    """Raises at the first broken row, or counts broken rows and keeps the first few for the log."""

    on_error: Literal["stop", "skip"] = "stop"
    count: int = 0
    listed: list[Broken] = field(default_factory=list)
    no_data: list[str] = field(default_factory=list)  # files of a folder that are not data (a licence)

    def add(self, broken: Broken) -> None:
        """Counts a broken row. Raises `UserError` unless broken rows are skipped."""
        if self.on_error == "stop":
            raise broken.error()
        self.count += 1
        if len(self.listed) < N_LISTED:
            self.listed.append(broken)


@contextmanager
def uncollected() -> Iterator[None]:
    """Turns Python's garbage collector off: rows have no cycles, and each collection would scan all of them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
