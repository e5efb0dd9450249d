"""Loads a recipe's `data` section as records, split into training and validation.

Steps, in this order: each source is read, and its first row decides the format; rows become records, at most `limit` of
them; validation rows are held out; weights repeat or thin the sources. Records stay in the order of the files; the
training loops shuffle.

A validation share is held out by prompt: rows with the same prompt (documents with the same text) are on the same side.
Each prompt gets a hash in [0, 1) of prompt and seed. Prompts with a hash below the fraction are held out, so a prompt
that one stage holds out is held out in the next stage too, whatever its other rows are. If that is less than the share,
prompts with the next hashes follow. At least one prompt is held out and at least one stays.

A validation path is read with the same format and columns. A hub name without "@split", or a folder of several splits,
is read at the split "validation".
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

GLUED = f"the text has {SEPARATOR} in it: split there into documents"
N_NAMED = 5  # unread files that the log lists; the rest are counted


@dataclass(frozen=True)
class SourceReport:
    """Counts of one source."""

    path: str
    format: str
    n_rows: int  # records, rows left out and broken rows
    n_records: int
    weight: float
    n_broken: int
    left_out: dict[str, int]  # rows left out, by rule
    notes: dict[str, int]  # rows changed, by rule
    unread: tuple[str, ...] = ()  # keys that are not read, with counts

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
    """What was read and how it was used; `lines()` is for the log."""

    kind: Kind
    sources: tuple[SourceReport, ...]
    n_train: int  # after weighting
    n_validation: int
    n_shared_prompts: int  # validation rows with a training prompt; only a validation path can have them
    skipped: tuple[Broken, ...]  # the first few broken rows
    no_data: tuple[str, ...] = ()  # files in a folder that describe the data

    def lines(self) -> list[str]:
        """Log lines: sources, counts, and skipped rows with reasons."""
        lines = [line for source in self.sources for line in source.lines()]
        lines += [f"  {row.source}: {row.reason}" for row in self.skipped]
        more = f" and {len(self.no_data) - N_NAMED} more" * (len(self.no_data) > N_NAMED)
        lines += [f"files that are not data: {', '.join(self.no_data[:N_NAMED])}{more}"] if self.no_data else []
        held_out = f" to train on, {self.n_validation}" if self.n_validation else ", none"
        lines += [f"{self.n_train} {self.kind}{held_out} held out for validation"]
        if self.n_shared_prompts:
            lines += [f"warning: {self.n_shared_prompts} validation rows have a prompt that is also in training"]
        return lines


@dataclass(frozen=True)
class Loaded(Generic[RecordType]):
    """Records in the order of their files, and a report."""

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
    """Loads the records of this kind from a recipe's data section. The result depends only on data and seed.

    Raises `UserError` for a source that does not exist, has no rows, has an unknown format or one without this kind of
    record; for a broken row, unless `data.on_error` is "skip"; if nothing is left to train on or to hold out.
    """
    broken = BrokenRows(data.on_error)
    sources = _sources(data)
    reads = [_read(source, data, kind, broken, limit) for source, limit in _with_limits(sources, data.limit)]
    weights = [source.weight for source in sources]
    if isinstance(data.validation, str):
        held_out = _read(Source(path=data.validation, split="validation"), data, kind, broken, data.limit)
        kept = [read.records for read in reads]
        validation = held_out.records
        reads = [*reads, held_out]
    else:
        kept, held = _split_by_prompt([read.records for read in reads], data.validation, seed)
        validation = _weighted(held, [min(weight, 1) for weight in weights], f"{seed}:validation")
    train = _weighted(kept, weights, f"{seed}:train")
    return Loaded(train, validation, _report(kind, reads, train, validation, broken))


def prompt_text(record: Record) -> str:
    """The text by which a record is held out: its prompt, or a document's text."""
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
        raise UserError("data.path is an empty list; give at least one file, folder or hub data set")
    return [Source(path=source) if isinstance(source, str) else source for source in given]


def _with_limits(sources: list[Source], limit: int | None) -> Iterator[tuple[Source, int | None]]:
    """Divides the limit among the sources in proportion to their weights, at least one row each."""
    total = sum(source.weight for source in sources)
    for source in sources:
        yield source, None if limit is None else max(1, int(limit * source.weight / total))


def _read(source: Source, data: Data, kind: Kind, broken: BrokenRows, limit: int | None) -> _Read:
    """The records of one source, up to the limit. Raises `UserError` if there is none."""
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
    """Splits each part into (kept, held out). All rows with one prompt are on one side.

    Raises `UserError` if there are fewer than two prompts to split.
    """
    if fraction == 0:
        return parts, [[] for _ in parts]
    texts = [[prompt_text(record) for record in part] for part in parts]
    places = {text: _place(text, seed) for part in texts for text in part}
    if len(places) < 2:
        n_rows = sum(map(len, parts))
        raise UserError(
            f"data.validation={fraction:g}: cannot split {n_rows} row{'s' * (n_rows > 1)} with one prompt; add rows, "
            "set data.validation=0, or give a path"
        )
    ordered = sorted(places, key=lambda text: places[text])
    n_wanted = max(1, round(fraction * len(ordered)), sum(place < fraction for place in places.values()))
    held_texts = set(ordered[: min(n_wanted, len(ordered) - 1)])
    is_held = [[text in held_texts for text in part] for part in texts]
    held = [list(compress(part, flags)) for part, flags in zip(parts, is_held, strict=True)]
    kept = [list(compress(part, map(not_, flags))) for part, flags in zip(parts, is_held, strict=True)]
    return kept, held


def _place(text: str, seed: int) -> float:
    """A number in [0, 1) that depends only on the text and the seed, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _weighted(parts: list[list[Any]], weights: Sequence[float], seed: str) -> list[Any]:
    """Repeats each part by its weight. The fractional part of a weight adds a random subset, in order."""
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
