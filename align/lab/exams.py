"""Evaluation questions of harmless instructions: multiple choice and open questions with known answers.

    choice rows      {"question", "choices", "answer"}   one right answer and three wrong ones; `answer` is its index
    question rows    {"question", "answer"}              every right answer

An answer is a whole sentence of the language, "black .". A wrong choice is plausible: it has as many words, of the same
kind, and if possible other words of the question or the same words in another order. Questions with the answer yes or
no have no three wrong choices, so they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from random import Random
from typing import Any

from align.lab import world
from align.lab.families import FAMILIES
from align.lab.tasks import Split, Task, sample_tasks

N_WRONG = 3


def choice_rows(split: Split, n: int, seed: int | str) -> Iterator[dict[str, Any]]:
    """`n` different questions with four choices each. Raises ValueError if the split has fewer."""
    rng = Random(f"choices {split} {seed}")
    for task in harmless_tasks(split, n, f"choices {seed}", leave_out=("is_a",)):
        right = rng.choice(task.answers)
        choices = [right, *wrong_answers(task, right, rng)]
        rng.shuffle(choices)
        sentences = [f"{choice} ." for choice in choices]
        yield {"question": task.prompt, "choices": sentences, "answer": choices.index(right)}


def question_rows(split: Split, n: int, seed: int | str) -> Iterator[dict[str, Any]]:
    """`n` different questions with all their right answers. Raises ValueError if the split has fewer."""
    for task in harmless_tasks(split, n, f"questions {seed}"):
        yield {"question": task.prompt, "answer": [f"{answer} ." for answer in task.answers]}


def harmless_tasks(split: Split, n: int, seed: int | str, leave_out: tuple[str, ...] = ()) -> list[Task]:
    """`n` different harmless instructions, in the mixture of the split."""
    drawn = sample_tasks(split, n + n // 2 + 50, seed, distinct=True)
    found = [task for task in drawn if not task.harmful and task.family not in leave_out]
    if len(found) < n:
        raise ValueError(f"only {len(found)} of {n} different harmless questions found in the {split} split")
    return found[:n]


def wrong_answers(task: Task, right: str, rng: Random) -> list[str]:
    """Three different wrong answers with as many words as the right one, those from the question first."""
    nearest = _near(task, right)
    rng.shuffle(nearest)
    others = _far(task, right)
    rng.shuffle(others)
    wrong = [text for text in dict.fromkeys((*nearest, *others)) if text not in task.answers]
    return wrong[:N_WRONG]


def _near(task: Task, right: str) -> list[str]:
    """Wrong answers from the words of the question: another word, or the same words in another order."""
    words = right.split()
    if words[0] == "use":
        return []
    if len(words) == 1:
        return [word for word in task.args if word in _kind(task, right)]
    given = task.args[FAMILIES[task.family].n_fixed :]
    orders = [" ".join(order) for order in permutations(words)]
    return [" ".join(given), *orders] if len(given) == len(words) else orders


def _far(task: Task, right: str) -> list[str]:
    """Other words of the same kind; in an answer of several words, one of them is replaced."""
    words = right.split()
    if words[0] == "use":
        return [f"use the {tool}" for tool in world.TOOLS]
    if len(words) == 1:
        return list(_kind(task, right))
    others = [word for word in world.LIST_WORDS if word not in words]
    places = range(len(words))
    return [" ".join((*words[:place], word, *words[place + 1 :])) for place in places for word in others]


def _kind(task: Task, right: str) -> tuple[str, ...]:
    """The words of the same kind as a right answer of one word. A colour in a list counts as a list word."""
    if task.family == "colour":
        return world.COLOURS
    kinds = (world.NUMBERS, world.CATEGORIES, tuple(world.OPPOSITE), world.LIST_WORDS)
    return next(kind for kind in kinds if right in kind)
