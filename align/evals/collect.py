"""All models answer the same prompts, and every answer is measured, a portion at a time.

What cannot be had (a model that does not load, a prompt without room, a judge that is down) becomes a `Problem`; the
rest goes on. Words go through the cache (`align.evals.models`): a contest that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from align.errors import JudgeError, UserError
from align.evals.answers import NOTHING, Answers, Replies
from align.evals.models import PORTION, EvalModel, EvalModels
from align.evals.problems import Problem
from align.evals.settings import ComparedModel
from align.stats.best_of_n import kl_bound

if TYPE_CHECKING:
    from align.generation.sampling import Sampling
    from align.generation.text_model import Reply
    from align.text.records import Message

    Turns = Sequence[Message]


class Measure(Protocol):
    """Numbers of answers."""

    where: str  # what it is called where problems are told

    def columns(self, prompts: Sequence[Turns], texts: Sequence[str]) -> dict[str, list[float]]:
        """One number for each answer in every column, NaN for none. Raises `JudgeError` if it cannot go on."""
        ...


class Collector:
    """The models and what they are asked.

    Args:
        models: by name, in the order in which they answer.
        asked: the prompts.
        voices: the same models, to be asked.
        how: how answers are drawn.
        seed: of the answers.
        measures: what is measured of every answer.
        choose: gives the scores by which the best of n is chosen; needed where a model has best_of.
        reference: the model that KL is measured to.
    """

    def __init__(
        self,
        models: Mapping[str, ComparedModel],
        asked: Sequence[Turns],
        voices: EvalModels,
        how: Sampling,
        seed: int,
        measures: Sequence[Measure],
        choose: Choose | None = None,
        reference: str | None = None,
    ) -> None:
        self.models, self.asked, self.voices, self.how, self.seed = models, asked, voices, how, seed
        self.measures, self.choose, self.reference = measures, choose, reference
        self.problems: list[Problem] = []

    def held(self) -> dict[str, Answers]:
        """Every model's answers, measured. Raises `UserError` if there are none at all."""
        answers: dict[str, Answers] = {}
        for name in self.models:
            try:
                answers[name] = self._ask(name)
            except UserError as error:
                self.problems.append(Problem(f"models.{name}", str(error)))
                continue
            print(f"{name} answered {len(self.asked):,} prompts", flush=True)
        if not answers:
            raise UserError("\n  ".join(["no model could answer", *(f"{p.where}: {p.what}" for p in self.problems)]))
        if self.reference in answers:
            for name, said in answers.items():
                self._add_kl(self.voices[str(self.reference)], name, said)
        return answers

    def _ask(self, name: str) -> Answers:
        from align.text.tokenizer import brings_template

        model, said, n_asked = self.models[name], Answers(partial(self._replies, name)), 0
        if model.asked == "chat" and not brings_template(model.path, model.trust_remote_code):
            told = "its tokenizer brings no chat template, so it was asked through one of ours (align/text/chat.py)"
            self.problems.append(Problem(f"models.{name}", f"{told}; set asked: plain if it is a base model"))
        for portion in said.portions():
            said.add(len(portion), self._measured(self.voices[name], said.n, portion))
            n_asked += sum(reply is not None for reply in portion)
        if n_asked < said.n:
            told = f"a prompt left no room for an answer of {self.how.max_tokens} tokens and was not asked; raise "
            told += "data.max_tokens if the model has the positions, or lower sampling.max_tokens"
            self.problems.append(Problem(f"models.{name}", told, said.n - n_asked))
        return said

    def _replies(self, name: str) -> Iterator[Replies]:
        """A model's answers, portion by portion: sampled the first time, read from the cache every other time."""
        model, voice = self.models[name], self.voices[name]
        seed, n = self.seed if model.seed is None else model.seed, model.best_of
        if n is None:
            yield from voice.answers(self.asked, self.how, seed)
            return
        repeated = [turns for turns in self.asked for _ in range(n)]
        width, first = n * max(1, PORTION // n), 0
        for drawn in voice.answers(repeated, self.how, seed, portion=width):
            yield best_replies(self.choose, repeated[first : first + len(drawn)], drawn, n)
            first += len(drawn)

    def _measured(self, voice: EvalModel, first: int, portion: Replies) -> dict[str, list[float]]:
        """The columns of a portion that begins at prompt `first`: length, ending, and what the measures say."""
        places, known = _given(portion)
        asked, texts = [self.asked[first + place] for place in places], [reply.text for reply in known]
        columns = {
            "n_tokens": [float(len(reply.ids)) for reply in known],
            "ended": [float(reply.ended) for reply in known],
            "empty": [float(not text.strip()) for text in texts],
        }
        for measure in self.measures:
            try:
                columns |= measure.columns(asked, texts)
            except JudgeError as error:
                self.problems.append(Problem(measure.where, str(error), len(texts)))
        if self.reference is not None:
            columns["logprob"] = [sum(row) for row in voice.logprobs([(r.prompt_ids, r.ids) for r in known])]
        return {name: _spread(places, values, len(portion)) for name, values in columns.items()}

    def _add_kl(self, reference: EvalModel, name: str, said: Answers) -> None:
        """log p_model - log p_reference of each answer, in nats, each model reading the prompt in its own form.

        Choosing the best of n adds to the distance of the model that is sampled, at most log n - (n - 1) / n:
        KL(best of n || reference) = KL(best of n || model) + E_best[log p_model - log p_reference].
        """
        from align.text.tokenizer import same_words

        if not same_words(self.voices[name].tokenizer, reference.tokenizer):
            told = f"has another vocabulary than {reference.name}, so no KL to it can be measured"
            self.problems.append(Problem(f"models.{name}", told))
            return
        own, chosen, first, n_too_long = said.columns["logprob"], kl_bound(self.models[name].best_of or 1), 0, 0
        for portion in said.portions():
            places, known = _given(portion)
            given = reference.prompt_ids([self.asked[first + place] for place in places])
            rows = {p: (ids, reply.ids) for p, ids, reply in zip(places, given, known, strict=True)}
            fitting = {p: row for p, row in rows.items() if len(row[0]) + len(row[1]) <= reference.max_tokens}
            n_too_long += len(rows) - len(fitting)
            others = reference.logprobs(list(fitting.values()))
            kl = [own[first + p] - sum(row) + chosen for p, row in zip(fitting, others, strict=True)]
            said.append("kl", _spread(list(fitting), kl, len(portion)))
            first += len(portion)
        if n_too_long:  # a base model reads the last turn alone, and the reference all turns
            told = f"a prompt that {reference.name} reads in another form is too long for it, so no KL was measured"
            self.problems.append(Problem(f"models.{name}", told, n_too_long))


class Choose(Protocol):
    """Scores answers to prompts, NaN for one that cannot be scored."""

    def __call__(self, prompts: Sequence[Turns], texts: Sequence[str]) -> list[float]: ...


def best_replies(choose: Choose | None, asked: Sequence[Turns], drawn: Replies, n: int) -> list[Reply | None]:
    """Of n answers to each prompt the one with the highest score; the first of equals."""
    assert choose is not None  # a recipe with best_of has a reward model
    found = choose(asked, ["" if reply is None else reply.text for reply in drawn])
    scores = [-math.inf if math.isnan(score) else score for score in found]
    return [drawn[max(range(i, i + n), key=scores.__getitem__)] for i in range(0, len(drawn), n)]


def _given(portion: Replies) -> tuple[list[int], list[Reply]]:
    """The replies that there are, and their places."""
    known = {place: reply for place, reply in enumerate(portion) if reply is not None}
    return list(known), list(known.values())


def _spread(places: Sequence[int], values: Sequence[float], n: int) -> list[float]:
    column = [NOTHING] * n
    for place, value in zip(places, values, strict=True):
        column[place] = value
    return column
