"""Human votes as a judge: the rankings written by `align label export`.

A ranking counts for two models if it is about the prompt and has an answer of each: one with the same text as the
model's answer, or else one that names the model (`models` of a row, the model.path of `align.generate`). On each prompt
the majority of these comparisons decides; equal numbers are a tie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from align.errors import UserError
from align.judges.verdicts import ModelAnswers, Prompts, Verdict
from align.text.files import file_rows
from align.text.formats import make
from align.text.records import Answers
from align.text.rows import Broken, Row
from align.text.values import BadRow

if TYPE_CHECKING:
    from align.text.records import Message

NOBODY = "no ranking compares answers of these models to this prompt"


class Ballot(NamedTuple):
    """One person's ranking of some answers to a prompt."""

    texts: tuple[str, ...]
    models: Sequence[str]  # of the answers; empty if the row has none
    ranks: tuple[int, ...]  # 1 is best

    def of(self, text: str, names: Sequence[str]) -> list[int]:
        """Indices of a model's answers."""
        places = [place for place, other in enumerate(self.texts) if other == text.strip()]
        return places or [place for place, model in enumerate(self.models) if model and model in names]


class VotesJudge:
    """The majority of human rankings.

    Args:
        name: the judge's key in the recipe, for messages: judges.people.
        path: the export's folder, or a file of rankings.
    """

    def __init__(self, name: str, path: str) -> None:
        file = Path(path) / "rankings.jsonl" if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise UserError(f"{name}.votes = {path}: there is no {file}; write it with align label export")
        self.ballots: dict[tuple[Message, ...], list[Ballot]] = {}
        for row in file_rows(file):
            try:
                if isinstance(row, Broken):
                    raise BadRow(row.reason)
                prompt, ballot = _ballot(row)
            except BadRow as bad:
                raise UserError(f"{name}.votes: {row.source}: {bad}; fix this row, or export the votes again") from None
            self.ballots.setdefault(prompt, []).append(ballot)
        self.fingerprint = f"votes {hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()}"

    def compare(self, prompts: Prompts, first: ModelAnswers, second: ModelAnswers) -> list[Verdict]:
        """The majority's verdict per prompt; None for a prompt without votes."""
        rows = zip(prompts, first.texts, second.texts, strict=True)
        return [self._verdict(prompt, (a, first.names), (b, second.names)) for prompt, a, b in rows]

    def _verdict(
        self, prompt: Sequence[Message], first: tuple[str, Sequence[str]], second: tuple[str, Sequence[str]]
    ) -> Verdict:
        votes = [
            (ballot.ranks[j] > ballot.ranks[i]) - (ballot.ranks[j] < ballot.ranks[i])
            for ballot in self.ballots.get(tuple(prompt), [])
            for i in ballot.of(*first)
            for j in ballot.of(*second)
        ]
        if not votes:
            return Verdict(None, NOBODY)
        return Verdict(0.5 + ((sum(votes) > 0) - (sum(votes) < 0)) / 2)


def _ballot(row: Row) -> tuple[tuple[Message, ...], Ballot]:
    record, _ = make(row.values, "ranking", "answers", row.source)
    assert isinstance(record, Answers)
    if not record.ranks:
        raise BadRow("no column 'ranks'")
    models = row.values.get("models") or []
    if not (isinstance(models, list) and len(models) in (0, len(record.responses))):
        raise BadRow(f"{len(record.responses)} responses need as many models, found {models!r}")
    return record.prompt, Ballot(record.responses, models, record.ranks)
