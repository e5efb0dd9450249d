"""Answers that somebody called good or bad, as tokens: what KTO learns from (Ethayarajh et al., 2402.01306).

Two answers of a pair are one of each. Beside each answer KTO looks at one that belongs to another prompt of the same
step: how much likelier the policy finds these than the reference does is its KL, which no reward counts for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from align.errors import UserError
from align.sections import Data
from align.text.extra_keys import NOT_LEARNED
from align.text.rankings import encode_rankings
from align.text.records import Answers, Ranking
from align.train.parallel import say


class Marked(NamedTuple):
    """An answer as tokens, ending in EOS, and whether it is a good one. The names are those of TRL's columns."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    KL_completion_ids: list[int]  # another prompt's answer

    @property
    def ids(self) -> list[int]:
        """All tokens, for counting."""
        return [*self.prompt_ids, *self.completion_ids]

    @property
    def longest(self) -> int:
        """Tokens of the answer with its prompt."""
        return len(self.prompt_ids) + len(self.completion_ids)


def encode_marked(data: Data, tokenizer: Any, rows: list[Answers], what: str) -> list[Marked]:
    """The answers of some rows as tokens. Raises `UserError` for a row without marks, and if none is left."""
    learned = [row for row in rows if row.learned]
    if len(learned) < len(rows):
        say(f"{len(rows) - len(learned)} of {len(rows)} {what} rows left out: {NOT_LEARNED}")
    alone = [
        Ranking(row.prompt, (answer,), (1 if is_good else 2,), source=row.source)
        for row in learned
        for answer, is_good in zip(row.responses, marks_of(row), strict=True)
    ]
    encoded, counts = encode_rankings(tokenizer, alone, data.max_tokens, data.too_long, keep_tied=True)
    if rows and not encoded:
        raise UserError(f"data.path: none of {len(alone)} {what} answers is left; raise data.max_tokens")
    told = [(row.answers[0][: row.n_prompt], row.answers[0][row.n_prompt :], row.ranks == (1,)) for row in encoded]
    n_good = sum(is_good for *_, is_good in told)
    if rows:
        say(*(f"{count} of {len(alone)} {what} answers {why}" for why, count in counts.items() if count))
        say(f"{what}: {n_good:,} good and {len(told) - n_good:,} bad answers")
    return [Marked(*row, []) for row in told]


def marks_of(row: Answers) -> tuple[bool, ...]:
    """Which answers of a row are good."""
    if row.good is not None:
        return (row.good,) * len(row.responses)
    if sorted(row.ranks) == [1, 2]:
        return tuple(rank == 1 for rank in row.ranks)
    raise UserError(
        f"{row.source}: nobody says whether its answers are good; this loss reads {{prompt, completion, label}}, true "
        "or false, or two answers of which one is better"
    )


def with_others(step: list[Marked]) -> list[Marked]:
    """The answers of a step, each beside the answer before it in the step."""
    before = [step[-1], *step[:-1]]
    return [row._replace(KL_completion_ids=other.completion_ids) for row, other in zip(step, before, strict=True)]
