"""Example answers of the report: evenly spaced prompts, and prompts with the largest differences of two models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from align.evals.answers import Answers, picked
from align.report.fields import label_of
from align.report.verdict import compared_pairs


class Group(NamedTuple):
    """Some prompts under one heading."""

    heading: str
    note: str
    indices: list[int]


def groups(answers: Mapping[str, Answers], by: str, n_prompts: int, n: int) -> list[Group]:
    """A tuned model's largest wins and losses against SFT, half of n each, and n evenly spaced prompts."""
    if n == 0:
        return []
    step = max(1, n_prompts // n)
    evenly = Group("Answers", "Evenly spaced prompts.", list(range(0, n_prompts, step))[:n])
    return [*_largest(answers, by, max(1, n // 2)), evenly]


def _largest(answers: Mapping[str, Answers], by: str, n: int) -> Iterator[Group]:
    pairs = [
        pair for pair in compared_pairs(list(answers)) if all(answers[name].known(by) is not None for name in pair)
    ]
    if not pairs:
        return
    came_from_sft = [pair for pair in pairs if pair[1] == "sft"]
    later, earlier = (came_from_sft or pairs[-1:])[0]
    difference = answers[later].columns[by] - answers[earlier].columns[by]
    order = [int(i) for i in np.argsort(-difference, kind="stable") if math.isfinite(difference[i])]
    wins, losses = [i for i in order if difference[i] > 0][:n], [i for i in order[::-1] if difference[i] < 0][:n]
    a, b = label_of(later), label_of(earlier)
    if wins:
        yield Group(f"Where {a} wins most over {b}", f"The prompts with the largest difference in {by}.", wins)
    if losses:
        yield Group(f"Where {a} loses most to {b}", f"The prompts with the largest difference in {by}.", losses)


def rows(answers: Mapping[str, Answers], prompts: Sequence[str], indices: Sequence[int]) -> list[dict[str, Any]]:
    """Prompts with every model's answer and scores."""
    texts = picked(answers, indices)
    return [row(answers, prompts[index], index, texts[index]) for index in indices]


def row(answers: Mapping[str, Answers], prompt: str, index: int, texts: Mapping[str, str | None]) -> dict[str, Any]:
    """One prompt: {prompt, answers: {model: {text, gold, reward}}}; text is None if the prompt left no room."""
    found = {name: {"text": texts[name], **_scores(answers_of, index)} for name, answers_of in answers.items()}
    return {"prompt": prompt, "answers": found}


def every_row(answers: Mapping[str, Answers], prompts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All prompts in order, with one portion of answers in memory."""
    answers_of = {
        name: (completion for portion in found.portions() for completion in portion) for name, found in answers.items()
    }
    for index, prompt in enumerate(prompts):
        completions = {name: next(iterator) for name, iterator in answers_of.items()}
        texts = {name: None if completion is None else completion.text for name, completion in completions.items()}
        yield row(answers, prompt, index, texts)


def _scores(answers_of: Answers, index: int) -> dict[str, float | None]:
    found = {name: answers_of.at(name, index) for name in ("gold", "reward")}
    return {name: value for name, value in found.items() if value is not None or name == "gold"}
