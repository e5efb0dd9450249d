"""What an evaluation could not measure, told in its report instead of ending it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """Something that went wrong, where, and how often."""

    where: str  # as in the recipe: models.base, judges.gpt, tasks.gsm8k
    what: str  # and what to do about it
    n: int = 1


def counted(problems: Iterable[Problem]) -> list[Problem]:
    """The same without repetitions: what happened in one place in one way is told once, with its number."""
    found: dict[tuple[str, str], int] = {}
    for problem in problems:
        found[problem.where, problem.what] = found.get((problem.where, problem.what), 0) + problem.n
    return [Problem(where, what, n) for (where, what), n in found.items()]
