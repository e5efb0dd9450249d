"""Scores the answers in a file with a reward model or an ensemble of them.

    align score recipes/score.yaml

Reads any format with answers: rankings, preferences, demonstrations, the output of align.generate. Writes JSONL rows
{prompt, responses, scores, model} in the order of the file, with `member_scores` for several models, `ranks` if the
answers have them, and `truncated` if an answer was cut. A score is read at the answer's EOS.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section, parse_command, to_yaml
from align.errors import UserError, check_place, exit_on_user_error
from align.rewards.settings import RewardModel
from align.text.records import plain

if TYPE_CHECKING:
    from align.rewards.scorer import Encoded, Scorer
    from align.text.records import Answers

N_LISTED = 20  # skipped rows that the log lists; the others are only counted


class Recipe(Section):
    """Scoring."""

    model: RewardModel
    data: sections.Data = sections.Data.defaults(too_long="drop", validation=0.0)
    batch_tokens: int = Field(16384, gt=0)
    """Tokens in one batch, padding included. Changes memory and speed."""
    output: str
    """The .jsonl file to write."""
    seed: int = Field(1, ge=0)
    """Seed of the choice of rows if a source's weight is a fraction."""
    overwrite: bool = False
    """Replace an existing file at output."""

    @model_validator(mode="after")
    def _all_rows(self) -> Self:
        if self.data.validation != 0:
            raise ValueError(f"data.validation = {self.data.validation}: all rows are scored; leave it 0")
        if self.data.template or self.data.template_options:
            raise ValueError("data.template, data.template_options: reward models use their own; remove these keys")
        return self


class Row(NamedTuple):
    """A prompt with its answers, each tokenised for each member of the ensemble."""

    record: Answers
    ids: list[list[list[int]]]  # (n_answers, n_members) rows of tokens, cut where they were too long
    truncated: list[bool]  # of each answer


def main() -> None:
    """Parses the command line and scores."""
    recipe, dry_run = parse_command(Recipe, "score")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Writes `recipe.output`. The file appears only when it is complete."""
    from align.rewards.scorer import Scorer, longest_row
    from align.text.load import load

    path = Path(recipe.output)
    check_place(path, is_file=True)
    if path.exists() and not recipe.overwrite:
        raise UserError(f"output: {path} exists; choose another output, or replace it with overwrite=true")
    longest = longest_row(recipe.model, recipe.data.max_tokens)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_tokens": longest})})
    loaded = load(recipe.data, "answers", recipe.seed)
    records = loaded.train
    for source in loaded.report.sources:
        print("\n".join(source.lines()))
    if dry_run:
        n_answers = sum(len(record.responses) for record in records)
        print(to_yaml(recipe), f"prompts: {len(records):,}, answers: {n_answers:,}", sep="\n")
        return
    scorer = Scorer(recipe.model, recipe.batch_tokens)
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.writing")
    tally = Tally()
    with writing.open("w", encoding="utf-8") as file:
        for row in scored_rows(recipe, scorer, records, tally):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print("\n".join(tally.lines(recipe, len(records))))
    if not tally.scores:
        writing.unlink()
        raise UserError(f"data.path: all {len(records)} rows are too long; raise data.max_tokens")
    writing.replace(path)
    print(f"wrote {path}")


class Tally:
    """Counts for the log: scores, cut answers, skipped rows."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.n_cut = 0
        self.left_out: list[str] = []

    def lines(self, recipe: Recipe, n_rows: int) -> list[str]:
        """Log lines: skipped rows, cut answers, mean and spread of the scores."""
        limit = f"data.max_tokens={recipe.data.max_tokens}"
        lines = [f"  {source}" for source in self.left_out[:N_LISTED]]
        if self.left_out:
            more = f" (the first {N_LISTED} are listed)" if len(self.left_out) > N_LISTED else ""
            lines = [f"{len(self.left_out)} of {n_rows} rows left out, longer than {limit}{more}:", *lines]
        if self.n_cut:
            lines.append(f"{self.n_cut} answers cut before their EOS, longer than {limit}")
        if self.scores:
            lowest, highest = min(self.scores), max(self.scores)
            lines.append(
                f"{len(self.scores):,} answers scored: mean {fmean(self.scores):.4f}, standard deviation "
                f"{pstdev(self.scores):.4f}, from {lowest:.4f} to {highest:.4f}"
            )
        return lines


def scored_rows(
    recipe: Recipe, scorer: Scorer, records: list[Answers], tally: Tally, n_at_once: int = 256
) -> Iterator[dict[str, Any]]:
    """Yields one row for each record that is short enough, in order. Prints progress every 10 seconds."""
    started = shown = time.monotonic()
    for first in range(0, len(records), n_at_once):
        rows = fitting(recipe, scorer, records[first : first + n_at_once], tally)
        scored = scorer.score([answer for row in rows for answer in row.ids])
        pairs = iter(zip(scored.scores, scored.members, strict=True))
        for row in rows:
            mine = [next(pairs) for _ in row.ids]
            tally.scores += [score for score, _ in mine]
            yield written(recipe, row, mine)
        done = min(first + n_at_once, len(records))
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            left_s = (shown - started) / done * (len(records) - done)
            print(f"score {done}/{len(records)} prompts  {left_s:.0f} s left", flush=True)


def fitting(recipe: Recipe, scorer: Scorer, records: list[Answers], tally: Tally) -> list[Row]:
    """Encodes records. A record that is too long is left out, or with too_long=truncate its answers are cut."""
    prompts = [record.prompt for record in records for _ in record.responses]
    encoded = iter(scorer.encode(prompts, [response for record in records for response in record.responses]))
    rows = []
    for record in records:
        answers = [next(encoded) for _ in record.responses]
        ids = [[fitted(recipe.data, member) for member in answer] for answer in answers]
        if any(not member for answer in ids for member in answer):
            tally.left_out.append(record.source)
            continue
        truncated = [
            any(len(kept) < len(member.ids) for kept, member in zip(*pair, strict=True))
            for pair in zip(ids, answers, strict=True)
        ]
        tally.n_cut += sum(truncated)
        rows.append(Row(record, ids, truncated))
    return rows


def fitted(data: sections.Data, answer: Encoded) -> list[int]:
    """The tokens to score. Empty if the answer is too long, or if cutting it would leave nothing of it."""
    from align.text.rankings import shortened

    if len(answer.ids) <= data.max_tokens:
        return answer.ids
    if data.too_long == "drop" or len(answer.prompt) > data.max_tokens - 2:
        return []
    return shortened(answer.ids, data.max_tokens)


def written(recipe: Recipe, row: Row, scored: list[tuple[float, list[float]]]) -> dict[str, Any]:
    """One output row."""
    record = row.record
    out: dict[str, Any] = {"prompt": plain(record.prompt), "responses": list(record.responses)}
    out["scores"] = [score for score, _ in scored]
    if len(scored[0][1]) > 1:
        out["member_scores"] = [members for _, members in scored]
    if record.ranks:
        out["ranks"] = list(record.ranks)
    if any(row.truncated):
        out["truncated"] = row.truncated
    return out | {"model": recipe.model.path}


if __name__ == "__main__":
    exit_on_user_error(main)
