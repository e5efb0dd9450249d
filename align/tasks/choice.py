"""Which of several choices a model finds likeliest, by log-likelihood: nothing is sampled.

A choice's log-likelihood is a sum over its tokens, so long choices lose. GPT-3 (2005.14165, section 2.4) divides by the
number of tokens; dividing by bytes makes models of different tokenizers comparable. `raw` divides by nothing, and the
probabilities over the choices, for calibration, are the softmax of that.

No choice is scored with the EOS after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from align.tasks.questions import Question
from align.tasks.results import Outcome
from align.tasks.template import Template
from align.text.values import n_shared

Row = tuple[list[int], list[int]]  # tokens given, tokens scored


def ask_choices(
    questions: Sequence[Question],
    examples: Sequence[Sequence[Question]],
    template: Template,
    model: Any,
    metric: str = "per_token",
) -> list[Outcome]:
    """An outcome for each question with its examples; its choice is the likeliest by `metric`."""
    asked = [template.ask(one, shown, model.plain) for one, shown in zip(questions, examples, strict=True)]
    rows_of = choice_rows(questions, asked, template, model)
    fitting = [max(len(given) + len(said) for given, said in rows) <= model.max_tokens for rows in rows_of]
    found = iter(model.logprobs([row for rows, fits in zip(rows_of, fitting, strict=True) if fits for row in rows]))
    outcomes = []
    for question, rows, shown, fits in zip(questions, rows_of, examples, fitting, strict=True):
        if fits:
            sums, sizes = [math.fsum(next(found)) for _ in rows], [len(said) for _, said in rows]
            n_bytes = [len(template.written(question, i).encode()) for i in range(len(rows))]
            outcomes.append(judged(question, sums, sizes, n_bytes, metric))
        else:
            outcomes.append(Outcome(question.place, {}, too_long(len(shown), model.max_tokens)))
    return outcomes


def choice_rows(questions: Sequence[Question], asked: Sequence[Any], template: Template, model: Any) -> list[list[Row]]:
    """For each question a row for each choice: what is given, and the choice after it."""
    if model.plain:
        return [
            _split(model, text, [template.continuation(question, i, True) for i in range(len(question.choices))])
            for question, text in zip(questions, asked, strict=True)
        ]
    from align.text.encode import encode_responses

    given = model.prompt_ids(asked)
    said = [
        encode_responses(
            model.tokenizer,
            [(turns, template.continuation(question, i, False)) for i in range(len(question.choices))],
        )
        for question, turns in zip(questions, asked, strict=True)
    ]
    return [[(ids, answer[:-1]) for answer in answers] for ids, answers in zip(given, said, strict=True)]


def _split(model: Any, text: str, continuations: Sequence[str]) -> list[Row]:
    """Text and continuation are tokenised as one, and parted where the tokens of all continuations begin to differ
    from the text's own: a token may reach over the end of the text."""
    own, *wholes = model.prompt_ids([text, *(text + continuation for continuation in continuations)])
    n = min(n_shared(own, whole) for whole in wholes)
    return [(whole[:n], whole[n:]) for whole in wholes]


def judged(
    question: Question,
    sums: Sequence[float],
    n_tokens: Sequence[int],
    n_bytes: Sequence[int],
    metric: str = "per_token",
) -> Outcome:
    """The outcome from each choice's log-likelihood and how long it is."""
    if not all(math.isfinite(value) for value in sums):
        return Outcome(question.place, {}, "a choice's log-likelihood is not a number; look at the model's weights")
    if not all(n_tokens):
        return Outcome(question.place, {}, "a choice has no token of its own; write it without special tokens")
    by = {
        "per_token": [value / n for value, n in zip(sums, n_tokens, strict=True)],
        "raw": list(sums),
        "per_byte": [value / n for value, n in zip(sums, n_bytes, strict=True)],
    }
    scores = {name: float(_first_highest(values) == question.right) for name, values in by.items()}
    said = question.choices[_first_highest(by[metric])]
    return Outcome(question.place, scores, said=said, probabilities=softmax(sums), right=question.right)


def softmax(values: Sequence[float]) -> tuple[float, ...]:
    """Probabilities in proportion to exp(value)."""
    highest = max(values)
    weights = [math.exp(value - highest) for value in values]
    return tuple(weight / sum(weights) for weight in weights)


def chance(questions: Sequence[Question]) -> float:
    """How often guessing is right."""
    return sum(1 / len(question.choices) for question in questions) / len(questions)


def too_long(shots: int, max_tokens: int) -> str:
    """Why a question was not asked."""
    shown = f"with {shots} example{'' if shots == 1 else 's'} it" if shots else "it"
    return f"a question was left out: {shown} does not fit into {max_tokens} tokens; give fewer shots or more room"


def _first_highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
