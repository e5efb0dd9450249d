"""Panel: all judges of an evaluation on pairs of models; win rates, rankings, and agreement of judges.

Judges run one after the other, on a portion of prompts at a time, with one portion of texts in memory. Verdicts of
reward models and language models are cached. If a judge fails, that becomes a problem, its verdicts so far count, and
the next judge runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from align.errors import UserError
from align.evals.cache import Cache
from align.evals.models import Progress
from align.evals.problems import Problem
from align.judges.build import build_judge
from align.judges.scores import CachedScorer
from align.judges.settings import Judge
from align.judges.verdicts import AnswerScore, Compares, ModelAnswers, Prompts, Scores, Verdict, problems, verdicts
from align.stats.preferences import Outcomes, judges_agree, order_bias, preference, ranking
from align.text.records import plain as as_row

if TYPE_CHECKING:
    from align.evals.answers import Answers

PORTION = 32  # prompts; an interrupted run loses at most a language model's verdicts on these
KEPT = ("reward_model", "llm")  # cached kinds: a function's dependencies are unknown, and votes are fast to read

Pair = tuple[str, str]  # two models; wins of the first are counted
Opinion = TypeVar("Opinion", AnswerScore, Verdict)
Texts = Callable[[], Iterator[str | None]]  # a model's answers in prompt order; None: not answered


class KnownScores(NamedTuple):
    """A judge with known scores."""

    kind: str  # function or reward_model
    scores: Mapping[str, Sequence[float]]  # by model, one for each prompt; NaN for none


class PanelResult(NamedTuple):
    """The judges' results."""

    block: dict[str, Any]  # for report.json: judges, judges_agree
    problems: list[Problem]


class _NotCacheable(Exception):
    """Some verdicts are missing for a temporary reason, so the portion is not cached."""


class Panel:
    """The judges.

    Args:
        judges: the recipe's. Raises `UserError` for a missing file or key.
        cache: of verdicts.
        seed: of the bootstrap.
    """

    def __init__(self, judges: Mapping[str, Judge], cache: Cache, seed: int = 0) -> None:
        self.settings, self.cache, self.seed = judges, cache, seed
        self._judges = {name: build_judge(name, judge) for name, judge in judges.items()}

    def judge(
        self,
        prompts: Prompts,
        texts: Mapping[str, Texts],
        names: Mapping[str, Sequence[str]],
        pairs: Sequence[Pair],
        known: Mapping[str, KnownScores] | None = None,
    ) -> PanelResult:
        """Compare the models with every judge. Each judge is freed after its run, so call this once.

        Args:
            texts: answers by model.
            names: each model's names in votes: its name in the recipe, its path.
            pairs: the models to compare.
            known: judges with known scores, by name.
        """
        lengths = {model: [len(text or "") for text in model_texts()] for model, model_texts in texts.items()}
        found: list[Problem] = []
        known = known or {}
        verdicts_by = {name: _of_scores(judge.scores, pairs) for name, judge in known.items()}
        for name in list(self._judges):
            run = _JudgeRun(f"judges.{name}", self._judges.pop(name), self._cache(name), prompts, texts, names)
            verdicts_by[name] = run.verdicts(pairs)
            found += run.problems
        kinds = {name: judge.kind for name, judge in known.items()}
        kinds |= {name: settings.kind for name, settings in self.settings.items()}
        judges = {name: self._block(kinds[name], by_pair, lengths) for name, by_pair in verdicts_by.items()}
        outcomes = {name: [v.outcome for pair in pairs for v in by_pair[pair]] for name, by_pair in verdicts_by.items()}
        return PanelResult({"judges": judges, "judges_agree": self._agreement(outcomes, len(prompts))}, found)

    def _cache(self, name: str) -> Cache | None:
        return self.cache if self.settings[name].kind in KEPT else None

    def _block(
        self, kind: str, by_pair: Mapping[Pair, Sequence[Verdict]], lengths: Mapping[str, Sequence[int]]
    ) -> dict[str, Any]:
        outcomes = {pair: [verdict.outcome for verdict in found] for pair, found in by_pair.items()}
        pairs = {}
        for (first, second), of_pair in outcomes.items():
            compared = preference(of_pair, lengths[first], lengths[second], seed=self.seed)
            pairs[f"{first}_over_{second}"] = compared.block() if compared else None
        block: dict[str, Any] = {"kind": kind, "pairs": pairs, "ranking": ranking(outcomes, seed=self.seed)}
        orders = [verdict.orders for found in by_pair.values() for verdict in found]
        return block | {"order_bias": order_bias(orders, self.seed)}

    def _agreement(self, outcomes: Mapping[str, Outcomes], n_prompts: int) -> list[dict[str, Any]]:
        return [
            {"judges": [one, other]} | judges_agree(outcomes[one], outcomes[other], n_prompts, self.seed).block()
            for one, other in combinations(outcomes, 2)
        ]


def _of_scores(scores: Mapping[str, Sequence[float]], pairs: Sequence[Pair]) -> dict[Pair, list[Verdict]]:
    marks = {
        model: [AnswerScore(None if math.isnan(score) else score) for score in row] for model, row in scores.items()
    }
    return {pair: verdicts(marks[pair[0]], marks[pair[1]]) for pair in pairs}


def texts_of(answers: Answers) -> Texts:
    """A model's collected answers as texts."""

    def read() -> Iterator[str | None]:
        return (
            None if completion is None else completion.text for portion in answers.portions() for completion in portion
        )

    return read


class _JudgeRun:
    """Runs one judge on the answers of some models."""

    def __init__(
        self,
        where: str,
        judge: Scores | Compares,
        cache: Cache | None,
        prompts: Prompts,
        texts: Mapping[str, Texts],
        names: Mapping[str, Sequence[str]],
    ) -> None:
        self.where, self.judge, self.cache = where, judge, cache
        self.prompts, self.texts, self.names = prompts, texts, names
        self.problems: list[Problem] = []
        self._has_ended = False

    def verdicts(self, pairs: Sequence[Pair]) -> dict[Pair, list[Verdict]]:
        """A verdict per prompt and pair; outcome None where a model gave no answer or the judge failed."""
        judge = self.judge
        if isinstance(judge, Compares):
            return {pair: self._over(pair, partial(self._compared, judge, pair), Verdict(None)) for pair in pairs}
        marker = CachedScorer("", self.where, judge, self.cache)
        models = dict.fromkeys(model for pair in pairs for model in pair)
        marks = {model: self._over((model,), marker.marks, AnswerScore(None)) for model in models}
        return {(first, second): verdicts(marks[first], marks[second]) for first, second in pairs}

    def _over(self, models: Sequence[str], ask: Callable[..., list[Opinion]], nothing: Opinion) -> list[Opinion]:
        """Apply `ask` to the models' answers, a portion of prompts at a time."""
        found: list[Opinion] = []
        answers = zip(self.prompts, *(self.texts[model]() for model in models), strict=True)
        progress = Progress(f"{self.where} on {' and '.join(models)}", len(self.prompts))
        while portion := list(islice(answers, PORTION)):
            given = [row for row in portion if None not in row]
            asked = iter(self._asked(ask, given) or [nothing] * len(given))
            found += [nothing if None in row else next(asked) for row in portion]
            progress.show(len(found))
        self.problems += problems(self.where, found)
        return found

    def _asked(self, ask: Callable[..., list[Opinion]], rows: Sequence[tuple[Any, ...]]) -> list[Opinion]:
        """The judge's results; [] once it has failed."""
        if self._has_ended or not rows:
            return []
        try:
            return ask(*(list(column) for column in zip(*rows, strict=True)))
        except UserError as error:  # a JudgeError, or a reward model that does not load
            self._has_ended = True
            self.problems.append(Problem(self.where, f"{error}; its verdicts before this count, the rest is missing"))
            return []

    def _compared(
        self, judge: Compares, pair: Pair, prompts: Prompts, one: Sequence[str], other: Sequence[str]
    ) -> list[Verdict]:
        first, second = (
            ModelAnswers(texts, self.names.get(m, ())) for m, texts in zip(pair, (one, other), strict=True)
        )
        if self.cache is None:
            return judge.compare(prompts, first, second)
        verdicts: list[Verdict] = []

        def compute() -> list[Verdict]:
            verdicts.extend(judge.compare(prompts, first, second))
            if any(verdict.again for verdict in verdicts):
                raise _NotCacheable
            return verdicts

        rows = [[as_row(tuple(messages)), a, b] for messages, a, b in zip(prompts, one, other, strict=True)]
        try:
            kept = self.cache.rows({"verdicts": judge.fingerprint, "rows": rows}, compute)
        except _NotCacheable:
            return verdicts
        return [Verdict(*row) for row in kept]
