"""Every judge about every two models, prompt by prompt: the report's block `judges`.

    judges.<name>
        kind                       function, reward_model, votes, llm
        pairs.<a>_over_<b>         {win, tie, loss, rate, controlled, p, n, n_failed} of align.evals.preferences
        ranking                    {standings, unranked, n_prompts}: all models by Bradley and Terry
        orders                     of a judge that reads both orders: {n, orders_disagree, first_shown_wins}
    agreement.<one>_with_<other>   {same, kappa, n}: do two judges say the same?

A judge that cannot go on is a problem of the report; the others stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from align.errors import JudgeError
from align.evals.answers import Answers
from align.evals.cache import Cache
from align.evals.preferences import judges_agree, order_bias, preference, ranking
from align.evals.problems import Problem
from align.evals.verdict import compared_pairs
from align.judges.verdicts import Mark, Said, Verdict, problems, verdicts
from align.text.records import plain as as_row

if TYPE_CHECKING:
    from align.judges.marking import Marker
    from align.judges.verdicts import Compares, Prompts

Pair = tuple[str, str]

UNANSWERED, NOT_BOTH = Mark(None), Verdict(None)  # why is told with the model
AT_ONCE = 32  # prompts that are compared before the verdicts are kept


class Player(NamedTuple):
    """A model whose answers are judged."""

    answers: Answers
    names: Sequence[str]  # what it is called: in the recipe, and its path


class Tournament:
    """Judges the answers of some models to the same prompts.

    Args:
        prompts: what was asked.
        players: the models by name.
        cache: where verdicts are kept.
        seed: of the bootstrap.
    """

    def __init__(self, prompts: Prompts, players: Mapping[str, Player], cache: Cache, seed: int) -> None:
        self.prompts, self.players, self.cache, self.seed = prompts, players, cache, seed
        self.problems: list[Problem] = []
        self.outcomes: dict[str, dict[Pair, list[float | None]]] = {}  # by judge and pair

    def marked(self, name: str, kind: str, marker: Marker) -> dict[str, Any]:
        """The block of a judge that scores. Its marks are in memory as numbers, its words nowhere."""
        marks: dict[str, list[Mark]] = {}
        for model in self.players:
            marks[model] = []
            for prompts, (texts,) in self._portions(model):
                known = iter(marker.marks(*_given(prompts, texts)))
                marks[model] += [next(known) if text is not None else UNANSWERED for text in texts]
        found = {pair: verdicts(marks[pair[0]], marks[pair[1]]) for pair in self._pairs()}
        return self._block(name, kind, found)

    def compared(self, name: str, kind: str, judge: Compares, keep: bool) -> dict[str, Any]:
        """The block of a judge that reads two answers at a time. `keep` its verdicts, where they cost something."""
        found: dict[Pair, list[Verdict]] = {}
        for one, other in self._pairs():
            said: list[Verdict] = []
            for prompts, (first, second) in self._portions(one, other):
                said += self._compared(judge, prompts, (one, first), (other, second), keep)
            found[one, other] = said
        return self._block(name, kind, found)

    def agreement(self) -> dict[str, Any]:
        """How often two judges name the same winner, over all pairs of models."""
        blocks = {}
        for one, other in combinations(self.outcomes, 2):
            pairs = [pair for pair in self.outcomes[one] if pair in self.outcomes[other]]
            sides = [[outcome for pair in pairs for outcome in self.outcomes[judge][pair]] for judge in (one, other)]
            blocks[f"{one}_with_{other}"] = judges_agree(sides[0], sides[1], self.seed).block()
        return blocks

    def _pairs(self) -> list[Pair]:
        """Every two models once; those that the report compares, as it compares them."""
        known = dict.fromkeys(compared_pairs(list(self.players)))
        rest = [pair for pair in combinations(self.players, 2) if pair not in known and pair[::-1] not in known]
        return [*known, *(pair[::-1] for pair in rest)]

    def _portions(self, *models: str) -> Iterator[tuple[Prompts, list[list[str | None]]]]:
        """(prompts, each model's texts), a portion at a time."""
        first = 0
        for portions in zip(*(self.players[model].answers.portions() for model in models), strict=True):
            n = len(portions[0])
            texts = [[None if reply is None else reply.text for reply in portion] for portion in portions]
            yield self.prompts[first : first + n], texts
            first += n

    def _compared(
        self,
        judge: Compares,
        prompts: Prompts,
        one: tuple[str, list[str | None]],
        other: tuple[str, list[str | None]],
        keep: bool,
    ) -> list[Verdict]:
        places = [i for i, (a, b) in enumerate(zip(one[1], other[1], strict=True)) if a is not None and b is not None]
        asked = [prompts[i] for i in places]
        first, second = (
            Said([str(texts[i]) for i in places], self.players[name].names) for name, texts in (one, other)
        )

        def compare(some: list[int]) -> list[Verdict]:
            now = [Said([side.texts[i] for i in some], side.names) for side in (first, second)]
            return judge.compare([asked[i] for i in some], *now)

        ofs = [
            {"verdict": judge.fingerprint, "prompt": as_row(tuple(turns)), "first": a, "second": b}
            for turns, a, b in zip(asked, first.texts, second.texts, strict=True)
        ]
        if keep:
            rows = self.cache.each(ofs, compare, AT_ONCE, lambda verdict: not verdict.trouble)
        else:
            rows = compare(list(range(len(asked))))
        found: list[Verdict] = [NOT_BOTH] * len(prompts)
        for place, (outcome, trouble, orders) in zip(places, rows, strict=True):
            found[place] = Verdict(outcome, trouble, orders and tuple(orders))
        return found

    def _block(self, name: str, kind: str, found: Mapping[Pair, list[Verdict]]) -> dict[str, Any]:
        self.problems += problems(f"judges.{name}", (verdict for said in found.values() for verdict in said))
        self.outcomes[name] = {pair: [verdict.outcome for verdict in said] for pair, said in found.items()}
        lengths = {model: self._lengths(model) for model in self.players}
        pairs = {}
        for (a, b), outcomes in self.outcomes[name].items():
            if (result := preference(outcomes, lengths[a], lengths[b], seed=self.seed)) is not None:
                pairs[f"{a}_over_{b}"] = result.block()
        block: dict[str, Any] = {"kind": kind, "pairs": pairs}
        if len(self.players) > 2:
            block["ranking"] = ranking(self.outcomes[name], seed=self.seed)
        orders = order_bias([verdict.orders for said in found.values() for verdict in said], self.seed)
        return block | ({"orders": orders} if orders else {})

    def _lengths(self, model: str) -> list[int]:
        """Characters, as AlpacaEval counts."""
        return [len(text or "") for _, (texts,) in self._portions(model) for text in texts]


def down(name: str, error: JudgeError) -> Problem:
    """A judge that could not go on."""
    return Problem(f"judges.{name}", str(error))


def _given(prompts: Prompts, texts: Sequence[str | None]) -> tuple[Prompts, list[str]]:
    places = [i for i, text in enumerate(texts) if text is not None]
    return [prompts[i] for i in places], [str(texts[i]) for i in places]
