"""Problems: what an evaluation could not measure. The report lists them; the evaluation continues."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """What went wrong, where, and how often."""

    where: str  # as in the recipe: models.base, judges.gpt, tasks.gsm8k
    what: str  # with the remedy
    n: int = 1


def counted(problems: Iterable[Problem]) -> list[Problem]:
    """Merge equal problems of one place into one, with their count."""
    found: dict[tuple[str, str], int] = {}
    for problem in problems:
        found[problem.where, problem.what] = found.get((problem.where, problem.what), 0) + problem.n
    return [Problem(where, what, n) for (where, what), n in found.items()]
