"""A row as a data set has it, and the rows that cannot be read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from align.errors import UserError

N_LISTED = 20  # broken rows that are kept for the log; the rest are only counted


class Cell(str):
    """A text of a CSV file: the only kind in which a list, a number, or true and false may be written out."""

    __slots__ = ()


class Row(NamedTuple):
    """One row as it was found, and where: "file.jsonl:12" (line) or "file.json:row 3", both from 1."""

    values: dict[str, Any]
    source: str


class Broken(NamedTuple):
    """A row that cannot be read, and why."""

    source: str
    reason: str

    def error(self) -> UserError:
        return UserError(
            f"{self.source}: {self.reason}; mend this row, or set data.on_error=skip to leave out such rows"
        )


@dataclass
class BrokenRows:
    """Stops at the first broken row, or counts them and keeps the first few to list."""

    on_error: Literal["stop", "skip"] = "stop"
    count: int = 0
    listed: list[Broken] = field(default_factory=list)
    no_data: list[str] = field(default_factory=list)  # files of a folder that are about the data (a licence): not read

    def add(self, broken: Broken) -> None:
        """Raises `UserError` unless broken rows are to be skipped."""
        if self.on_error == "stop":
            raise broken.error()
        self.count += 1
        if len(self.listed) < N_LISTED:
            self.listed.append(broken)


@contextmanager
def uncollected() -> Iterator[None]:
    """Python's collector of cycles rests: rows hold none and stay, and it would look through all of them each time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
