"""Multiple choice: the choice with the highest log-likelihood. Nothing is sampled.

A choice's log-likelihood is a sum over its tokens, so long choices are at a disadvantage. GPT-3 (2005.14165, section
2.4) divides by the number of tokens; dividing by bytes makes models of different tokenizers comparable. `raw` does not
divide; its softmax gives the probabilities of the choices, for calibration.

Choices are scored without EOS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from align.tasks.questions import Question
from align.tasks.results import Outcome
from align.tasks.template import Template
from align.text.values import n_shared

Row = tuple[list[int], list[int]]  # context tokens, scored tokens


def ask_choices(
    questions: Sequence[Question],
    examples: Sequence[Sequence[Question]],
    template: Template,
    model: Any,
    metric: str = "per_token",
) -> list[Outcome]:
    """One outcome per question with its examples. The choice is the likeliest by `metric`."""
    prompts = [template.ask(one, shown, model.plain) for one, shown in zip(questions, examples, strict=True)]
    rows_of = choice_rows(questions, prompts, template, model)
    fitting = [
        max(len(context) + len(choice_ids) for context, choice_ids in rows) <= model.max_tokens for rows in rows_of
    ]
    found = iter(model.logprobs([row for rows, fits in zip(rows_of, fitting, strict=True) if fits for row in rows]))
    outcomes = []
    for question, rows, shown, fits in zip(questions, rows_of, examples, fitting, strict=True):
        if fits:
            sums, sizes = [math.fsum(next(found)) for _ in rows], [len(choice_ids) for _, choice_ids in rows]
            n_bytes = [len(template.written(question, i).encode()) for i in range(len(rows))]
            outcomes.append(outcome_of(question, sums, sizes, n_bytes, metric))
        else:
            outcomes.append(Outcome(question.place, {}, too_long(len(shown), model.max_tokens)))
    return outcomes


def choice_rows(
    questions: Sequence[Question], prompts: Sequence[Any], template: Template, model: Any
) -> list[list[Row]]:
    """For each question, one row per choice: context tokens and choice tokens."""
    if model.plain:
        return [
            _split(model, text, [template.continuation(question, i, True) for i in range(len(question.choices))])
            for question, text in zip(questions, prompts, strict=True)
        ]
    from align.text.encode import encode_responses

    context = model.prompt_ids(prompts)
    choice_ids = [
        encode_responses(
            model.tokenizer,
            [(turns, template.continuation(question, i, False)) for i in range(len(question.choices))],
        )
        for question, turns in zip(questions, prompts, strict=True)
    ]
    return [[(ids, answer[:-1]) for answer in answers] for ids, answers in zip(context, choice_ids, strict=True)]


def _split(model: Any, text: str, continuations: Sequence[str]) -> list[Row]:
    """Tokenise text and continuation together, and split where the tokens of any continuation differ from the text's.

    A token may span the end of the text."""
    own, *wholes = model.prompt_ids([text, *(text + continuation for continuation in continuations)])
    n = min(n_shared(own, whole) for whole in wholes)
    return [(whole[:n], whole[n:]) for whole in wholes]


def outcome_of(
    question: Question,
    sums: Sequence[float],
    n_tokens: Sequence[int],
    n_bytes: Sequence[int],
    metric: str = "per_token",
) -> Outcome:
    """The outcome from the log-likelihood and length of each choice."""
    if not all(math.isfinite(value) for value in sums):
        return Outcome(question.place, {}, "a choice's log-likelihood is not a number; check the model's weights")
    if not all(n_tokens):
        return Outcome(question.place, {}, "a choice has no token of its own; write it without special tokens")
    by = {
        "per_token": [value / n for value, n in zip(sums, n_tokens, strict=True)],
        "raw": list(sums),
        "per_byte": [value / n for value, n in zip(sums, n_bytes, strict=True)],
    }
    scores = {name: float(_first_highest(values) == question.right) for name, values in by.items()}
    chosen = question.choices[_first_highest(by[metric])]
    return Outcome(question.place, scores, prediction=chosen, probabilities=softmax(sums), right=question.right)


def softmax(values: Sequence[float]) -> tuple[float, ...]:
    """Probabilities proportional to exp(value)."""
    highest = max(values)
    weights = [math.exp(value - highest) for value in values]
    return tuple(weight / sum(weights) for weight in weights)


def chance(questions: Sequence[Question]) -> float:
    """Accuracy of guessing."""
    return sum(1 / len(question.choices) for question in questions) / len(questions)


def too_long(shots: int, max_tokens: int) -> str:
    """The reason why a question was skipped."""
    shown = f"with {shots} example{'' if shots == 1 else 's'} it" if shots else "it"
    return f"a question was skipped: {shown} does not fit into {max_tokens} tokens; use fewer shots or more tokens"


def _first_highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
