"""Generated answers: exact match, F1 and ROUGE-L of a model's answers to questions.

With several votes each question is sampled that often, and the most frequent answer counts: self-consistency
 (Wang et al., 2203.11171).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from align.generation.sampling import Sampling
from align.tasks.choice import too_long
from align.tasks.metrics import MEASURES, exact, key_of, majority
from align.tasks.questions import Question
from align.tasks.results import Outcome
from align.tasks.template import Template


def ask_questions(
    questions: Sequence[Question],
    examples: Sequence[Sequence[Question]],
    template: Template,
    text_model: Any,
    how: Sampling,
    votes: int,
    metrics: Sequence[str],
    seed: int,
) -> list[Outcome]:
    """One outcome per question with its examples."""
    prompts = [template.ask(one, shown, text_model.plain) for one, shown in zip(questions, examples, strict=True)]
    stop = template.stops_at(text_model.plain)
    samples = [text_model.answer(prompts, how, seed * 1000 + vote, stop) for vote in range(votes)]
    outcomes = []
    for question, shown, completions in zip(questions, examples, zip(*samples, strict=True), strict=True):
        texts = [completion.text for completion in completions if completion is not None]
        if len(texts) == votes:
            outcomes.append(outcome_of(question, texts, template, metrics))
        else:
            outcomes.append(Outcome(question.place, {}, too_long(len(shown), text_model.max_tokens)))
    return outcomes


def outcome_of(question: Question, texts: Sequence[str], template: Template, metrics: Sequence[str]) -> Outcome:
    """The outcome of one question from its samples. Without an extracted answer it is wrong."""
    answers = [template.extracted(answer) or answer for answer in question.answers]
    found = [template.extracted(text) for text in texts]
    chosen = majority(found, template.number)
    answer_text = None if chosen is None else found[chosen]
    scores = {}
    for name in metrics:
        if name == "exact":
            scores[name] = _right(answer_text, answers, template.number)
        else:
            scores[name] = 0.0 if answer_text is None else MEASURES[name](answer_text, answers)
    samples: tuple[str | None, ...] = ()
    if len(texts) > 1:
        scores["exact_single"] = fmean(_right(one, answers, template.number) for one in found)
        samples = tuple(None if one is None else key_of(one, template.number) for one in found)
    return Outcome(question.place, scores, prediction=texts[chosen or 0], found=answer_text, samples=samples)


def _right(answer_text: str | None, answers: Sequence[str], number: bool) -> float:
    return 0.0 if answer_text is None else exact(answer_text, answers, number)
