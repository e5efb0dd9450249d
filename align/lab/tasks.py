"""Instructions of the lab: sample one from a split, or parse one from its prompt.

The splits. A task's combination is its family and its arguments, without the phrasing. A stable hash of it (the same on
every machine and in every process) puts 20% of the combinations into the held-out split. No training text of any seed
contains them in any phrasing (a song may contain the words of a list, never the instruction). Six families have so few
combinations that a held-out combination would be a fact that the model never sees: sum, difference, next, category,
opposite and colour (`Family.is_fact`). There pairs of fact and phrasing are held out, again 20%, and at most one
phrasing of a fact: the web text states the fact and asks for it in other phrasings, but the held-out prompt itself
never appears. (So a fact of the category family, "cat is a kind of animal .", is in the web text even if the question
`is cat a kind of animal ?` is held out.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Literal

from align.lab import world
from align.lab.families import FAMILIES, Args, Family

Split = Literal["train", "heldout"]

ONE_IN = 5  # one combination in five is held out
TRIES = 5  # draws from one family to find a new prompt
MAX_MISSES = 10_000  # draws in a row without a new prompt before `sample_tasks` gives up

_BY_WEIGHT = tuple(family for family in FAMILIES.values() for _ in range(family.weight))


@dataclass(frozen=True, slots=True)
class Task:
    """An instruction with its right answers. Each of `answers` is complete, without the full stop."""

    prompt: str
    family: str
    args: Args
    phrasing: int  # index into the family's phrasings
    answers: tuple[str, ...]
    harmful: bool = False

    @property
    def split(self) -> Split:
        return split_of(FAMILIES[self.family], self.args, self.phrasing)


def split_of(family: Family, args: Args, phrasing: int) -> Split:
    """The split of a combination (of fact and phrasing, in the families of facts)."""
    key = " ".join((family.name, *(sorted(args) if family.is_unordered else args)))
    bucket = int.from_bytes(blake2b(key.encode(), digest_size=4).digest(), "big") % ONE_IN
    return "heldout" if bucket == (phrasing if family.is_fact else 0) else "train"


def make_task(family: Family, args: Args, phrasing: int) -> Task:
    """The task of a family's arguments in one of its phrasings."""
    prompt = family.phrasings[phrasing].format(*args, words=" ".join(args[family.n_fixed :]))
    return Task(prompt, family.name, args, phrasing, family.answers(args), family.harmful)


def draw_task(split: Split, rng: Random, family: Family | None = None) -> Task:
    """One task of a split: a family by weight (or the one given), then arguments and a phrasing."""
    family = family or rng.choice(_BY_WEIGHT)
    while True:
        args, phrasing = family.draw(rng), rng.randrange(len(family.phrasings))
        if split_of(family, args, phrasing) == split:
            return make_task(family, args, phrasing)


def sample_tasks(split: Split, n: int, seed: int | str, *, distinct: bool = False) -> list[Task]:
    """`n` tasks of a split, a pure function of the arguments.

    The mixture over families is that of the table in `align.lab.families`; prompts repeat only if a family has hardly
    any new ones left. With `distinct` no prompt repeats, and the share of an exhausted family goes to the others.
    Raises ValueError if fewer than `n` distinct prompts are found.
    """
    rng = Random(f"tasks {split} {seed}")
    seen: set[str] = set()
    tasks: list[Task] = []
    n_missed = 0
    while len(tasks) < n:
        task = _draw_new(split, rng, seen)
        if distinct and task.prompt in seen:
            n_missed += 1
            if n_missed > MAX_MISSES:
                raise ValueError(f"found only {len(tasks)} of {n} distinct prompts in the {split} split; ask for fewer")
            continue
        n_missed = 0
        seen.add(task.prompt)
        tasks.append(task)
    return tasks


def _draw_new(split: Split, rng: Random, seen: set[str]) -> Task:
    family = rng.choice(_BY_WEIGHT)
    for _ in range(TRIES):
        task = draw_task(split, rng, family)
        if task.prompt not in seen:
            break
    return task


# ------------------------------------------------------------------------------------------------- from text to task

_WORD = "([a-z]+(?: into)?)"  # "break into" counts as one word
_LIST = "(?P<words>[a-z]+(?: [a-z]+)*)"


def _pattern(phrasing: str) -> re.Pattern[str]:
    slots = {r"\{words\}": _LIST, r"\{0\}": f"(?P<s0>{_WORD})", r"\{1\}": f"(?P<s1>{_WORD})"}
    text = re.escape(phrasing)
    for slot, pattern in slots.items():
        text = text.replace(slot, pattern)
    return re.compile(text)


_PATTERNS = [(f, i, _pattern(phrasing)) for f in FAMILIES.values() for i, phrasing in enumerate(f.phrasings)]


@lru_cache(maxsize=100_000)
def parse(prompt: str) -> Task | None:
    """The task of a prompt, from its text alone; None if it is not an instruction of this world."""
    text = " ".join(world.words(prompt))
    for family, phrasing, pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match:
            groups = match.groupdict()
            fixed = [groups[f"s{i}"] for i in range(family.n_fixed)]
            args = (*fixed, *groups.get("words", "").split())
            if family.answers(args):
                return make_task(family, args, phrasing)
    return None
