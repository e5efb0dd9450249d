"""Importing answers as tasks: `align label import project.yaml answers.jsonl [...]`.

Reads the output of `align generate` and every format with answers (`align.text.formats`). Answers to the same prompt,
from any rows and files, are grouped: 2 to 9 of them make a task. All rows are checked before anything is written. They
are staged in a temporary file sorted by prompt, so memory holds only one batch. Known content is recognised: an
interrupted or repeated import can simply be run again.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from align.errors import UserError
from align.text.formats import LAYOUTS, make, parts_of, reads, recognise
from align.text.keys import Unread, is_empty, named
from align.text.messages import THOUGHTS_DROPPED, Handling
from align.text.readers import iter_rows
from align.text.records import Answers, Message, Prompt
from align.text.rows import Broken, BrokenRows, Row
from align.text.values import BadRow, LeftOut, listed, scalar, shown, string
from apps.store import queue
from apps.store.adding import Added, Kind, NewAnswer, NewPrompt, add_tasks, prompt_hash
from apps.store.project import Project

BATCH = 200  # prompts in one transaction
LONGEST_TEXT = 100_000  # characters of a message or an answer
MAKER = ("model", "temperature", "seed")
THOUGHTS = "contains thoughts; those of an answer are not shown"
WITHOUT_THOUGHTS = Handling(thoughts="drop")
UNREAD = named("label", "weight", "annotator", "margin")  # read by training stages, no matter to annotators
READ = {"explanation", "model_a", "model_b"}
_COLUMNS = re.compile(r"(set )?data\.columns=\{(\S+): (\S+)\}")


class Imported(NamedTuple):
    """The counts of an import."""

    n_rows: int
    left_out: dict[str, int]  # reason → rows left out by their format's rules
    notes: dict[str, int]  # note → rows changed by a rule
    added: Added
    unread: list[str]  # keys that are ignored, with the number of rows that have them


def import_files(project: Project, files: list[str], kind: Kind = "rank", dry_run: bool = False) -> Imported:
    """Adds the answers in `files`; a dry run only counts.

    Raises `UserError` that names every file and line that cannot be used, up to 20; then nothing is written.
    """
    unread = Unread({name: known - UNREAD | READ for name, known in reads().items()})
    with staging() as stage:
        n_rows, left_out, notes = _stage(stage, files, kind, project.recipe.ranking.max_answers, unread)
        added = Added()
        for batch in batches(stage):
            added = added.plus(add_tasks(project.store, project.id, batch, kind, dry_run))
    if not dry_run and kind == "rank" and added.tasks + added.extended:
        queue.draw(project.store, project.id)
    if not dry_run:
        project.store.analyze()
    return Imported(n_rows, left_out, notes, added, unread.lines())


def lines(found: Imported, dry_run: bool) -> list[str]:
    """The lines to print about an import."""
    a = found.added
    will = "would add" if dry_run else "added"
    report = [f"{found.n_rows:,} rows read", *(f"  {n:,} left out: {rule}" for rule, n in found.left_out.items())]
    report += [*(f"  {n:,} rows: {note}" for note, n in found.notes.items()), *(f"  {line}" for line in found.unread)]
    report.append(f"{will} {a.tasks:,} tasks, {a.answers:,} new answers and {a.prompts:,} new prompts")
    if a.extended:
        report.append(f"  {a.extended:,} unseen tasks {'would get' if dry_run else 'got'} more answers")
    if a.corrected:
        report.append(f"  {a.corrected:,} tasks {'would get' if dry_run else 'got'} other expected ranks")
    if a.waiting:
        report.append(f"  {a.waiting:,} answers are in no task yet: their prompt needs a second answer")
    return report


@contextmanager
def staging() -> Iterator[sqlite3.Connection]:
    """A temporary database for rows; removed at the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="import-"))
        stage = stack.enter_context(closing(sqlite3.connect(Path(folder) / "rows.db", isolation_level=None)))
        stage.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE prompt (n INTEGER PRIMARY KEY, hash TEXT UNIQUE);"
            "CREATE TABLE row (n INTEGER PRIMARY KEY, prompt INTEGER, body TEXT); BEGIN"
        )
        yield stage


def batches(stage: sqlite3.Connection) -> Iterator[list[NewPrompt]]:
    """The staged rows, grouped by prompt, in the order of the prompts' first rows."""
    stage.execute("CREATE INDEX of_prompt ON row (prompt, n)")
    batch: list[NewPrompt] = []
    seen: set[int] = set()
    for prompt, body in stage.execute("SELECT prompt, body FROM row ORDER BY prompt, n"):
        if prompt not in seen and len(seen) == BATCH:
            yield batch
            batch, seen = [], set()
        seen.add(prompt)
        given = json.loads(body)
        answers = tuple(NewAnswer(*answer) for answer in given.pop("answers"))
        batch.append(NewPrompt(answers=answers, **given | {"expected": tuple(given["expected"])}))
    if batch:
        yield batch


def _stage(
    stage: sqlite3.Connection, files: list[str], kind: Kind, most: int, unread: Unread
) -> tuple[int, dict[str, int], dict[str, int]]:
    """Checks all rows and stages them. Raises `UserError` if any cannot be used."""
    broken = BrokenRows("skip")
    left_out: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    n_rows = 0
    for file in files:
        for row in iter_rows(file, broken=broken):
            n_rows += 1
            try:
                name = _format(row)
                unread.add(row.values, name)
                for part in parts_of(row.values, name, "answers"):
                    prompt, changes = new_prompt(Row(part, row.source), name, kind, most)
                    _put(stage, prompt)
                    notes.update(changes)
            except BadRow as error:
                # an import has no recipe key data.columns to rename columns with
                broken.add(Broken(row.source, _COLUMNS.sub(r"rename \3 to \2", str(error))))
            except LeftOut as error:
                left_out[str(error)] += 1
    if broken.count:
        more = [f"  and {broken.count - len(broken.listed)} more"] if broken.count > len(broken.listed) else []
        problems = [f"  {one.source}: {one.reason}" for one in broken.listed]
        raise UserError("\n".join([f"{broken.count} rows cannot be used; nothing was imported", *problems, *more]))
    if not n_rows:
        raise UserError(f"{', '.join(files)}: no rows found")
    return n_rows, dict(left_out), dict(notes)


def _put(stage: sqlite3.Connection, prompt: NewPrompt) -> None:
    key = prompt_hash(prompt.messages)
    stage.execute("INSERT OR IGNORE INTO prompt (hash) VALUES (?)", (key,))
    body = json.dumps(prompt._asdict())
    stage.execute("INSERT INTO row (prompt, body) SELECT n, ? FROM prompt WHERE hash = ?", (body, key))


def _format(row: Row) -> str:
    """The format of a row that has answers. Raises `BadRow` for any other row."""
    try:
        name = recognise(row.values, "answers", row.source)
    except UserError:
        name = ""
    if not name or "answers" not in LAYOUTS[name].kinds:
        raise BadRow(f"no answers in the columns {', '.join(row.values)}; expected prompt and responses")
    return name


def new_prompt(row: Row, name: str, kind: Kind, most: int) -> tuple[NewPrompt, tuple[str, ...]]:
    """The prompt and the answers of a row in the named format, and the notes of applied rules.

    Annotators see answers without the thoughts before them. Raises `BadRow` or `LeftOut`.
    """
    if name == "ranking" and not _are_texts(row.values["responses"]):
        raise BadRow(f"responses must be a list of texts, found {shown(row.values['responses'])}")
    record, notes = make(row.values, name, "answers", row.source, WITHOUT_THOUGHTS)
    assert isinstance(record, Answers)
    if THOUGHTS_DROPPED in notes:  # thoughts of earlier messages are part of the prompt
        prompt, _ = make(row.values, name, "prompts", row.source)
        assert isinstance(prompt, Prompt)
        record = record._replace(prompt=prompt.messages)
        notes = (*(note for note in notes if note != THOUGHTS_DROPPED), THOUGHTS)
    for text in (*(part for message in record.prompt for part in message.parts), *record.responses):
        if len(_kept(text, "a text")) > LONGEST_TEXT:
            raise BadRow(f"a text has {len(text):,} characters; at most {LONGEST_TEXT:,} can be ranked")
    makers = _makers(row, len(record.responses))
    answers = tuple(NewAnswer(text, maker) for text, maker in zip(record.responses, makers, strict=True))
    messages = list(map(stored_message, record.prompt))
    source = _kept(str(row.values.get("source") or Path(row.source.partition(":")[0]).name), "source")
    priority = scalar(row.values.get("priority"))
    found = NewPrompt(messages, source, answers, priority=float(_number(priority or 0, "priority")))
    return found if kind == "rank" else _with_expected(found, record, row, most), notes


def stored_message(message: Message) -> dict[str, Any]:
    """A message as the database stores it. Tool calls are text, since the database's JSON would reorder their keys."""
    return message.as_dict() | ({"tool_calls": message.calls} if message.calls else {})


def _with_expected(prompt: NewPrompt, record: Answers, row: Row, most: int) -> NewPrompt:
    """A gold or practice task; its expected ranks must decide at least one pair."""
    if not record.ranks:
        raise BadRow("no ranks; a gold or practice task needs expected ranks, 1 for the best answer")
    if len(set(record.ranks)) == 1:
        raise BadRow("all expected ranks are equal, so every ranking would pass; give at least two different ranks")
    if len(set(record.responses)) < len(record.responses):
        raise BadRow("two responses are equal; remove one")
    if len(record.responses) > most:
        raise BadRow(f"{len(record.responses)} responses; at most {most} can be ranked (ranking.max_answers)")
    explanation = row.values.get("explanation") or ""
    if not isinstance(explanation, str):
        raise BadRow(f"explanation must be a text, found {shown(explanation)}")
    return prompt._replace(expected=record.ranks, explanation=_kept(explanation, "explanation"))


def _are_texts(value: Any) -> bool:
    value = listed(value)
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _makers(row: Row, n: int) -> list[dict[str, Any]]:
    """Each answer's model: from `model`, from a list in `models`, or from an arena's `model_a` and `model_b`."""
    common = {key: _plain(row.values[key], key) for key in MAKER if not is_empty(row.values.get(key))}
    models = listed(row.values.get("models"))
    if is_empty(models) and n == 2 and not row.values.keys().isdisjoint(("model_a", "model_b")):
        models = [row.values.get(name) for name in ("model_a", "model_b")]
    if is_empty(models):
        return [common] * n
    if not (isinstance(models, list) and len(models) == n):
        raise BadRow(f"{n} responses need as many models, found {shown(models)}")
    return [common | ({} if model is None else {"model": _plain(model, "model")}) for model in models]


def _plain(value: Any, name: str) -> Any:
    """A name or a number; anything else, such as a list of an ensemble's folders, as text."""
    value = value if name == "model" else scalar(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return _number(value, name) if is_number else _kept(str(value), name)


def _number(value: Any, name: str) -> int | float:
    """A number within 64 bits. Raises `BadRow` for any other value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -(2**63) <= value < 2**64:  # NaN is not within them either
        raise BadRow(f"{name} must be a number within 64 bits, found {shown(value)}")
    return value  # type: ignore[no-any-return]


def _kept(text: str, name: str) -> str:
    """A text that the database can store. Raises `BadRow` for NUL or half of a surrogate pair."""
    if "\0" in text:
        raise BadRow(f"{name} contains the character NUL, which cannot be stored; remove it")
    return string(text, name, may_be_empty=True)
