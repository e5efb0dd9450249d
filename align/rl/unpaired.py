"""KTO's data: tokenised answers labelled good or bad (Ethayarajh et al., 2402.01306).

A pair gives one good and one bad answer. KTO estimates KL on mismatched answers: each row also has the answer of
another prompt of the same step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from align.errors import UserError
from align.sections import Data
from align.text.extra_keys import NOT_LEARNED
from align.text.rankings import encode_rankings
from align.text.records import Answers, Ranking
from align.train.parallel import say


class LabelledAnswer(NamedTuple):
    """A prompt and an answer as tokens, ending in EOS, and whether it is good. The names are those of TRL's columns."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    KL_completion_ids: list[int]  # another prompt's answer

    @property
    def ids(self) -> list[int]:
        """Prompt and answer."""
        return [*self.prompt_ids, *self.completion_ids]

    @property
    def longest(self) -> int:
        """Number of tokens of prompt and answer."""
        return len(self.prompt_ids) + len(self.completion_ids)


def encode_unpaired(data: Data, tokenizer: Any, rows: list[Answers], what: str) -> list[LabelledAnswer]:
    """The answers of `rows` as tokens. Raises `UserError` for a row without labels, and if none is left."""
    learned = [row for row in rows if row.learned]
    if len(learned) < len(rows):
        say(f"{len(rows) - len(learned)} of {len(rows)} {what} rows left out: {NOT_LEARNED}")
    alone = [
        Ranking(row.prompt, (answer,), (1 if is_good else 2,), source=row.source)
        for row in learned
        for answer, is_good in zip(row.responses, labels_of(row), strict=True)
    ]
    encoded, counts = encode_rankings(tokenizer, alone, data.max_tokens, data.too_long, keep_tied=True)
    if rows and not encoded:
        raise UserError(f"data.path: none of {len(alone)} {what} answers is left; raise data.max_tokens")
    found = [(row.answers[0][: row.n_prompt], row.answers[0][row.n_prompt :], row.ranks == (1,)) for row in encoded]
    n_good = sum(is_good for *_, is_good in found)
    if rows:
        say(*(f"{count} of {len(alone)} {what} answers {why}" for why, count in counts.items() if count))
        say(f"{what}: {n_good:,} good and {len(found) - n_good:,} bad answers")
    return [LabelledAnswer(*row, []) for row in found]


def labels_of(row: Answers) -> tuple[bool, ...]:
    """Which answers of a row are good. Raises `UserError` if the row does not say."""
    if row.good is not None:
        return (row.good,) * len(row.responses)
    if sorted(row.ranks) == [1, 2]:
        return tuple(rank == 1 for rank in row.ranks)
    raise UserError(
        f"{row.source}: the row does not say whether its answers are good. This loss reads {{prompt, completion, "
        "label}} with label true or false, or two answers of which one is better"
    )


def with_mismatched(step: list[LabelledAnswer]) -> list[LabelledAnswer]:
    """The answers of a step, each with the answer of the row before it as KL_completion_ids."""
    before = [step[-1], *step[:-1]]
    return [row._replace(KL_completion_ids=other.completion_ids) for row, other in zip(step, before, strict=True)]
