"""Collect and measure the answers of all models to the same prompts, a portion at a time.

A failure (a model that does not load, a prompt without room, a judge that is down) becomes a `Problem`; the rest
continues. Answers go through the cache (`align.evals.models`), so an interrupted evaluation resumes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from align.errors import JudgeError, UserError
from align.evals.answers import NOTHING, Answers, Completions
from align.evals.models import PORTION, EvalModel, EvalModels
from align.evals.problems import Problem
from align.evals.settings import ComparedModel
from align.stats.best_of_n import kl_bound

if TYPE_CHECKING:
    from align.generation.sampling import Sampling
    from align.generation.text_model import Completion
    from align.text.records import Message

    Messages = Sequence[Message]


class Measure(Protocol):
    """Metrics of answers."""

    where: str  # its name in problems

    def columns(self, prompts: Sequence[Messages], texts: Sequence[str]) -> dict[str, list[float]]:
        """One number per answer in every column; NaN if missing. Raises `JudgeError` if it cannot continue."""
        ...


class Collector:
    """Collects the answers of models to prompts, with their metrics.

    Args:
        models: recipe sections by name, in the order in which they answer.
        prompts: for all models.
        eval_models: the same models, ready to answer.
        how: sampling settings.
        seed: of the answers.
        measures: metrics of every answer.
        choose: scores that select the best of n; needed if a model has best_of.
        reference: the model that KL is measured against.
    """

    def __init__(
        self,
        models: Mapping[str, ComparedModel],
        prompts: Sequence[Messages],
        eval_models: EvalModels,
        how: Sampling,
        seed: int,
        measures: Sequence[Measure],
        choose: Choose | None = None,
        reference: str | None = None,
    ) -> None:
        self.models, self.prompts, self.eval_models, self.how, self.seed = models, prompts, eval_models, how, seed
        self.measures, self.choose, self.reference = measures, choose, reference
        self.problems: list[Problem] = []

    def collected(self) -> dict[str, Answers]:
        """Every model's answers with metrics. Raises `UserError` if no model could answer."""
        answers: dict[str, Answers] = {}
        for name in self.models:
            try:
                answers[name] = self._answers(name)
            except UserError as error:
                self.problems.append(Problem(f"models.{name}", str(error)))
                continue
            print(f"{name} answered {len(self.prompts):,} prompts", flush=True)
        if not answers:
            raise UserError("\n  ".join(["no model could answer", *(f"{p.where}: {p.what}" for p in self.problems)]))
        if self.reference in answers:
            for name, answers_of in answers.items():
                self._add_kl(self.eval_models[str(self.reference)], name, answers_of)
        return answers

    def _answers(self, name: str) -> Answers:
        from align.text.tokenizer import brings_template

        model, answers_of, n_asked = self.models[name], Answers(partial(self._completions, name)), 0
        if model.asked == "chat" and not brings_template(model.path, model.trust_remote_code):
            reason = "its tokenizer has no chat template, so one of ours was used (align/text/chat.py)"
            self.problems.append(Problem(f"models.{name}", f"{reason}; set asked: plain if it is a base model"))
        for portion in answers_of.portions():
            answers_of.add(len(portion), self._measured(self.eval_models[name], answers_of.n, portion))
            n_asked += sum(completion is not None for completion in portion)
        if n_asked < answers_of.n:
            reason = f"a prompt left no room for an answer of {self.how.max_tokens} tokens and was skipped; raise "
            reason += "data.max_tokens if the model has the positions, or lower sampling.max_tokens"
            self.problems.append(Problem(f"models.{name}", reason, answers_of.n - n_asked))
        return answers_of

    def _completions(self, name: str) -> Iterator[Completions]:
        """A model's answers, portion by portion: sampled the first time, then read from the cache."""
        model, eval_model = self.models[name], self.eval_models[name]
        seed, n = self.seed if model.seed is None else model.seed, model.best_of
        if n is None:
            yield from eval_model.answers(self.prompts, self.how, seed)
            return
        repeated = [messages for messages in self.prompts for _ in range(n)]
        width, first = n * max(1, PORTION // n), 0
        for drawn in eval_model.answers(repeated, self.how, seed, portion=width):
            yield best_completions(self.choose, repeated[first : first + len(drawn)], drawn, n)
            first += len(drawn)

    def _measured(self, eval_model: EvalModel, first: int, portion: Completions) -> dict[str, list[float]]:
        """Columns of a portion that starts at prompt `first`: length, ending, and the measures' metrics."""
        places, known = _known(portion)
        prompts, texts = [self.prompts[first + place] for place in places], [completion.text for completion in known]
        columns = {
            "n_tokens": [float(len(completion.ids)) for completion in known],
            "ended": [float(completion.ended) for completion in known],
            "empty": [float(not text.strip()) for text in texts],
        }
        for measure in self.measures:
            try:
                columns |= measure.columns(prompts, texts)
            except JudgeError as error:
                self.problems.append(Problem(measure.where, str(error), len(texts)))
        if self.reference is not None:
            columns["logprob"] = [sum(row) for row in eval_model.logprobs([(r.prompt_ids, r.ids) for r in known])]
        return {name: _spread(places, values, len(portion)) for name, values in columns.items()}

    def _add_kl(self, reference: EvalModel, name: str, answers_of: Answers) -> None:
        """Add log p_model - log p_reference of each answer, in nats; each model reads the prompt in its own form.

        Best of n adds at most log n - (n - 1) / n to the KL of the sampled model:
        KL(best of n || reference) = KL(best of n || model) + E_best[log p_model - log p_reference].
        """
        from align.text.tokenizer import same_words

        if not same_words(self.eval_models[name].tokenizer, reference.tokenizer):
            reason = f"its vocabulary differs from that of {reference.name}, so KL to it cannot be measured"
            self.problems.append(Problem(f"models.{name}", reason))
            return
        own, chosen, first, n_too_long = answers_of.columns["logprob"], kl_bound(self.models[name].best_of or 1), 0, 0
        for portion in answers_of.portions():
            places, known = _known(portion)
            prompt_ids = reference.prompt_ids([self.prompts[first + place] for place in places])
            rows = {p: (ids, completion.ids) for p, ids, completion in zip(places, prompt_ids, known, strict=True)}
            fitting = {p: row for p, row in rows.items() if len(row[0]) + len(row[1]) <= reference.max_tokens}
            n_too_long += len(rows) - len(fitting)
            others = reference.logprobs(list(fitting.values()))
            kl = [own[first + p] - sum(row) + chosen for p, row in zip(fitting, others, strict=True)]
            answers_of.append("kl", _spread(list(fitting), kl, len(portion)))
            first += len(portion)
        if n_too_long:  # a base model reads only the last message, the reference all
            reason = f"a prompt is too long in the form that {reference.name} reads, so its KL was not measured"
            self.problems.append(Problem(f"models.{name}", reason, n_too_long))


class Choose(Protocol):
    """Scores answers to prompts; NaN for an answer that cannot be scored."""

    def __call__(self, prompts: Sequence[Messages], texts: Sequence[str]) -> list[float]: ...


def best_completions(
    choose: Choose | None, prompts: Sequence[Messages], drawn: Completions, n: int
) -> list[Completion | None]:
    """The highest-scored of n answers to each prompt; the first of equal scores."""
    assert choose is not None  # a recipe with best_of has a reward model
    found = choose(prompts, ["" if completion is None else completion.text for completion in drawn])
    scores = [-math.inf if math.isnan(score) else score for score in found]
    return [drawn[max(range(i, i + n), key=scores.__getitem__)] for i in range(0, len(drawn), n)]


def _known(portion: Completions) -> tuple[list[int], list[Completion]]:
    """The completions that are not None, and their places."""
    known = {place: completion for place, completion in enumerate(portion) if completion is not None}
    return list(known), list(known.values())


def _spread(places: Sequence[int], values: Sequence[float], n: int) -> list[float]:
    column = [NOTHING] * n
    for place, value in zip(places, values, strict=True):
        column[place] = value
    return column
