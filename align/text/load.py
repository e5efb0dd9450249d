"""A recipe's `data` section as records, for training and for validation.

What happens, in this order: each source is read, its format recognised by its first row; rows become records, at most
`limit` of them; the validation rows are parted from the rest; sources are repeated or thinned by their weights. Records
stay in the order of the files: the loops shuffle.

A validation share is held out by prompt: rows with the same prompt (documents with the same text) are on the same side.
Prompts are held out in the order of a hash of the prompt and the seed. All whose hash lies below the fraction are, so
that a prompt held out in one stage is held out in the next, whatever other rows that has; then more, until the share is
reached. At least one is held out, and at least one stays.

A validation path has the format and columns of the rest. A hub name without "@split", or a folder of several splits, is
read at the split "validation".
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

from align.errors import UserError
from align.sections import Data, Source
from align.text.documents import SEPARATOR, cut_row
from align.text.formats import Kind, Record, check_columns, check_kind, make, map_columns, parts_of, reads, recognise
from align.text.keys import Unread
from align.text.messages import Handling
from align.text.parsers import BadRow, LeftOut
from align.text.readers import Broken, BrokenRows, Row, iter_rows
from align.text.records import Answers, Conversation, Document, Prompt, Ranking
from align.text.rows import uncollected

RecordType = TypeVar("RecordType")

GLUED = f"{SEPARATOR} stands in the text: cut there into documents"
N_NAMED = 5  # files that are named in the log; the rest are counted


@dataclass(frozen=True)
class SourceReport:
    """What was found in one source."""

    path: str
    format: str
    n_rows: int  # records, rows left out and broken ones
    n_records: int
    weight: float
    n_broken: int
    left_out: dict[str, int]  # by the rule that left them out
    notes: dict[str, int]  # by the rule that was applied to them
    unread: tuple[str, ...] = ()  # which keys nobody reads, and how many rows have them

    def lines(self) -> list[str]:
        weight = "" if self.weight == 1 else f", weight {self.weight:g}"
        counted = [f"{count} left out: {rule}" for rule, count in self.left_out.items()]
        counted += [f"{count} rows: {rule}" for rule, count in self.notes.items()]
        counted += [f"{self.n_broken} broken rows skipped"] if self.n_broken else []
        counted += self.unread
        head = f"{self.path}: {self.n_records} of {self.n_rows} rows, format {self.format}{weight}"
        return [head, *(f"  {line}" for line in counted)]


@dataclass(frozen=True)
class LoadReport:
    """What was read and what became of it; `lines()` is for the log."""

    kind: Kind
    sources: tuple[SourceReport, ...]
    n_train: int  # after weighting
    n_validation: int
    n_shared_prompts: int  # validation rows whose prompt is trained on too; only a validation path can have them
    skipped: tuple[Broken, ...]  # the first few broken rows
    no_data: tuple[str, ...] = ()  # files in a folder that are about the data

    def lines(self) -> list[str]:
        """For the log: sources, counts, and the broken rows that were skipped, with reasons."""
        told = [line for source in self.sources for line in source.lines()]
        told += [f"  {row.source}: {row.reason}" for row in self.skipped]
        more = f" and {len(self.no_data) - N_NAMED} more" * (len(self.no_data) > N_NAMED)
        told += [f"not read, for they are no data: {', '.join(self.no_data[:N_NAMED])}{more}"] if self.no_data else []
        held_out = f" to train on, {self.n_validation}" if self.n_validation else ", none"
        told += [f"{self.n_train} {self.kind}{held_out} held out for validation"]
        if self.n_shared_prompts:
            told += [f"warning: {self.n_shared_prompts} validation rows have a prompt that is trained on too"]
        return told


@dataclass(frozen=True)
class Loaded(Generic[RecordType]):
    """Records in the order of their files, and how they came to be."""

    train: list[RecordType]
    validation: list[RecordType]
    report: LoadReport


class _Read(NamedTuple):
    records: list[Any]
    report: SourceReport


@overload
def load(data: Data, kind: Literal["documents"], seed: int) -> Loaded[Document]: ...
@overload
def load(data: Data, kind: Literal["conversations"], seed: int) -> Loaded[Conversation]: ...
@overload
def load(data: Data, kind: Literal["prompts"], seed: int) -> Loaded[Prompt]: ...
@overload
def load(data: Data, kind: Literal["rankings"], seed: int) -> Loaded[Ranking]: ...
@overload
def load(data: Data, kind: Literal["answers"], seed: int) -> Loaded[Answers]: ...
@uncollected()
def load(data: Data, kind: Kind, seed: int) -> Loaded[Any]:
    """The records of this kind that a recipe's data section names; the same seed gives the same.

    Raises `UserError` for a source that is not there, has no rows, is in no known format or in one that this kind
    cannot be made of; for a broken row, unless `data.on_error` is "skip"; when nothing is left to train on or hold out.
    """
    broken = BrokenRows(data.on_error)
    sources = _sources(data)
    reads = [_read(source, data, kind, broken, limit) for source, limit in _with_limits(sources, data.limit)]
    weights = [source.weight for source in sources]
    if isinstance(data.validation, str):
        apart = _read(Source(path=data.validation, split="validation"), data, kind, broken, data.limit)
        kept = [read.records for read in reads]
        validation = apart.records
        reads = [*reads, apart]
    else:
        kept, held = _split_by_prompt([read.records for read in reads], data.validation, seed)
        validation = _weighted(held, [min(weight, 1) for weight in weights], f"{seed}:validation")
    train = _weighted(kept, weights, f"{seed}:train")
    return Loaded(train, validation, _report(kind, reads, train, validation, broken))


def prompt_text(record: Record) -> str:
    """What a record is held out by: its prompt, or a document's text."""
    if isinstance(record, Document):
        return record.text
    if isinstance(record, Ranking | Answers):
        turns = record.prompt
    else:
        turns = record.messages[:-1] if isinstance(record, Conversation) else record.messages
    return "\n\n".join(f"{turn.role}: {turn.text}" for turn in turns)


def _sources(data: Data) -> list[Source]:
    given = data.path if isinstance(data.path, list) else [data.path]
    if not given:
        raise UserError("data.path is an empty list; name at least one file, folder or hub data set")
    return [Source(path=source) if isinstance(source, str) else source for source in given]


def _with_limits(sources: list[Source], limit: int | None) -> Iterator[tuple[Source, int | None]]:
    """The limit is shared by the sources in proportion to their weights, one row at least for each."""
    total = sum(source.weight for source in sources)
    for source in sources:
        yield source, None if limit is None else max(1, int(limit * source.weight / total))


def _read(source: Source, data: Data, kind: Kind, broken: BrokenRows, limit: int | None) -> _Read:
    """The records of one source, up to the limit. Raises `UserError` when there is none."""
    given, name = source.format or data.format, ""
    records: list[Record] = []
    left_out: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    unread, how = Unread(reads(data.margins)), Handling.of(data)
    n_broken_before, n_good = broken.count, 0
    for row in iter_rows(source.path, source.split or data.split, broken):
        name = name or _format(row, given, kind, data.columns)
        values = map_columns(row.values, data.columns)
        unread.add(values, name)
        try:
            parts = parts_of(values, name, kind)
        except BadRow as error:
            broken.add(Broken(row.source, f"{error} (format {name})"))
            continue
        for part in parts:
            try:
                record, changes = make(part, name, kind, row.source, how)
            except BadRow as error:
                broken.add(Broken(row.source, f"{error} (format {name})"))
            except LeftOut as error:
                left_out[str(error)] += 1
            else:
                n_good += 1
                if isinstance(record, Document) and SEPARATOR in record.text:
                    records += [record._replace(text=text) for text in cut_row(record.text)]
                    changes = (*changes, GLUED)
                else:
                    records.append(record)
                if changes:
                    notes.update(changes)
        if limit is not None and len(records) >= limit:
            del records[limit:]
            break
    n_broken = broken.count - n_broken_before
    n_rows = n_good + left_out.total() + n_broken
    counts = (n_rows, len(records), source.weight, n_broken, dict(left_out), dict(notes), tuple(unread.lines()))
    report = SourceReport(source.path, name or given, *counts)
    if not records:
        raise _nothing_left(report, broken)
    return _Read(records, report)


def _format(row: Row, given: str, kind: Kind, columns: dict[str, str]) -> str:
    check_columns(row.values, columns, row.source)
    name = recognise(map_columns(row.values, columns), kind, row.source) if given == "auto" else given
    check_kind(name, kind, row.source)
    return name


def _nothing_left(report: SourceReport, broken: BrokenRows) -> UserError:
    if not report.n_rows:
        return UserError(f"{report.path}: this data set has no rows")
    first = [f"  {row.source}: {row.reason}" for row in broken.listed[:3]]
    return UserError("\n".join(["no row can be used", *report.lines(), *first]))


def _split_by_prompt(parts: list[list[Any]], fraction: float, seed: int) -> tuple[list[list[Any]], list[list[Any]]]:
    """Each part as (what stays, what is held out); all rows with one prompt are on one side.

    Raises `UserError` when a share is wanted of fewer than two prompts.
    """
    if fraction == 0:
        return parts, [[] for _ in parts]
    texts = [[prompt_text(record) for record in part] for part in parts]
    places = {text: _place(text, seed) for part in texts for text in part}
    if len(places) < 2:
        n_rows = sum(map(len, parts))
        raise UserError(
            f"data.validation={fraction:g}: cannot hold out a share of {n_rows} row{'s' * (n_rows > 1)} with one prompt"
            "; add rows, set data.validation=0, or give it a path"
        )
    ordered = sorted(places, key=lambda text: places[text])
    n_wanted = max(1, round(fraction * len(ordered)), sum(place < fraction for place in places.values()))
    held_texts = set(ordered[: min(n_wanted, len(ordered) - 1)])
    is_held = [[text in held_texts for text in part] for part in texts]
    held = [list(compress(part, flags)) for part, flags in zip(parts, is_held, strict=True)]
    kept = [list(compress(part, map(not_, flags))) for part, flags in zip(parts, is_held, strict=True)]
    return kept, held


def _place(text: str, seed: int) -> float:
    """A number in [0, 1) that hangs on the text and the seed alone, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _weighted(parts: list[list[Any]], weights: Sequence[float], seed: str) -> list[Any]:
    """Each part as often as its weight says, one after the other; a fraction takes rows at random, in their order."""
    records = []
    for index, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        passes, fraction = divmod(weight, 1)
        records += part * int(passes)
        if fraction and part:
            chosen = random.Random(f"{seed}:{index}").sample(range(len(part)), max(1, round(fraction * len(part))))
            records += [part[place] for place in sorted(chosen)]
    return records


def _report(kind: Kind, reads: list[_Read], train: list[Any], validation: list[Any], broken: BrokenRows) -> LoadReport:
    trained_on = {prompt_text(record) for record in train} if validation else set()
    n_shared = sum(prompt_text(record) in trained_on for record in validation)
    sources = tuple(read.report for read in reads)
    no_data = tuple(dict.fromkeys(broken.no_data))
    return LoadReport(kind, sources, len(train), len(validation), n_shared, tuple(broken.listed), no_data)
