"""Exporting rankings as a Hugging Face data set: `export --format dataset` writes a folder with a card.

    dataset/README.md                   the card: contents, origin, and the meaning of each column
    dataset/data/rankings.parquet       one row per ranking, which `align rm` reads
    dataset/data/preferences.parquet    one row per pair that a ranking decides, TRL's conversational format

People appear as annotator-1, annotator-2, ... in order of appearance, unless names are requested. Comments, reasons and
events are left out. Each column has one type, whatever the prompts hold: tool calls and tools are JSON strings.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from align.errors import UserError
from align.text.records import Message
from apps.label.rankings import ROWS, Exported, Filters, agreement, decisive, iso, select_annotations
from apps.store.project import Project
from apps.store.reading import AnnotatedTask, annotated_tasks
from apps.store.tables import Guidelines

if TYPE_CHECKING:
    import pyarrow as pa

N_AT_ONCE = 1000  # rows written together
TURN_PARTS = ("role", "content", "reasoning_content", "tool_calls", "name", "tool_call_id")
# Column → its type, and what it means.
COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "rankings": {
        "prompt": ("turns", "the conversation up to the answer, as messages"),
        "tools": ("text", "the tools available to the model, as JSON; null if none"),
        "responses": ("texts", "the answers"),
        "ranks": ("numbers", "each answer's rank, 1 is best; equal ranks are ties"),
        "annotator": ("text", "the person who ranked them"),
        "source": ("text", "the collection that the prompt comes from"),
        "models": ("texts", "the model that wrote each answer; the annotator did not see it"),
        "ratings": ("numbers", "each answer's rating from 1 (bad) to 7, null where none was given"),
        "flags": ("lists", "the problems flagged for each answer"),
        "all_bad": ("yes", "whether the annotator marked all answers as bad"),
        "extra": ("yes", "whether the task already had the requested number of rankings"),
        "final": ("yes", "whether this is a reviewer's ranking that decides the task; its other rankings are left out"),
        "seconds": ("real", "the time spent, as the page measured it"),
        "at": ("text", "when it was submitted"),
        "task": ("text", "a hash of the prompt and its answers: rows with the same hash rank the same answers"),
        "annotation": ("text", "the ranking's id"),
        "propensity": ("real", "the probability that the task was drawn for its place in the queue"),
        "pool": ("number", "the number of tasks that it was drawn from"),
    },
    "preferences": {
        "prompt": ("turns", "the conversation up to the answer, as messages"),
        "tools": ("text", "the tools available to the model, as JSON; null if none"),
        "chosen": ("turns", "the better answer, as a message"),
        "rejected": ("turns", "the worse answer, as a message"),
        "annotator": ("text", "the person who ranked the pair"),
        "source": ("text", "the collection that the prompt comes from"),
        "task": ("text", "a hash of the prompt and all its answers"),
    },
}


def write_dataset(
    project: Project, session: Session, folder: Path, filters: Filters, names: bool = False
) -> list[Exported]:
    """Writes the folder from the session's state. `names`: keep people's names. Returns the data files."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    who, facts = _Pseudonyms(names), _Facts()
    with ExitStack() as stack:
        tables = {name: stack.enter_context(_Table(folder / "data" / f"{name}.parquet", name)) for name in COLUMNS}
        for task in annotated_tasks(session, project.id, ("rank",), filters.until):
            for annotation in decisive(task, select_annotations(task, filters), filters):
                if annotation.ranks is not None:
                    facts.add(task, annotation.last.at, annotation.last.guidelines_version)
                    more = _prompt(task) | {"annotator": who(annotation.person)}
                    for name, rows in ROWS.items():
                        tables[name].add(row | more for row in rows(task, annotation))
    written = [table.done() for table in tables.values()]
    card = _card(project, session, written, facts, who)
    (folder / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
    return written


def push(folder: Path, name: str) -> str:
    """Uploads the folder to the hub as the data set `name`; a new one is private. Returns its address.

    Raises `UserError` if nobody is logged in, the name is invalid, or the hub refuses or cannot be reached.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    hub = HfApi()
    try:
        address = hub.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        hub.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder, commit_message="Export of rankings")
    except LocalTokenNotFoundError:
        raise UserError("--push: you are not logged in to the hub; run `hf auth login` or set HF_TOKEN") from None
    except HFValidationError as error:
        raise UserError(f"--push {name}: {error}") from None
    except OfflineModeIsEnabled:
        raise UserError("--push: HF_HUB_OFFLINE is set; unset it to reach the hub") from None
    except HfHubHTTPError as error:
        raise UserError(f"--push {name}: the hub refused the upload ({str(error).strip().splitlines()[0]})") from None
    except (httpx.HTTPError, OSError) as error:
        raise UserError(
            f"--push {name}: the hub cannot be reached ({error}); {folder} is complete, try again"
        ) from None
    return str(address)


def _prompt(task: AnnotatedTask) -> dict[str, Any]:
    """The columns `prompt` and `tools`."""
    first, turns = task.messages[0], [turn for turn in task.messages if turn["role"] != "tools"]
    return {
        "prompt": [Message.of(turn).as_dict() for turn in turns],
        "tools": first["content"] if first["role"] == "tools" else None,
    }


class _Pseudonyms:
    """Maps people to annotator-1, annotator-2, ..., or to their names."""

    def __init__(self, names: bool) -> None:
        self.names, self.known = names, dict[str, str]()

    def __call__(self, person: str) -> str:
        return self.known.setdefault(person, person if self.names else f"annotator-{len(self.known) + 1}")


class _Facts:
    """Facts for the card."""

    def __init__(self) -> None:
        self.agreements: dict[int, float | None] = {}  # by task
        self.versions: Counter[int] = Counter()  # of the guidelines
        self.first, self.last = float("inf"), 0.0

    def add(self, task: AnnotatedTask, at: float, version: int) -> None:
        self.agreements[task.id] = agreement(task)
        self.versions[version] += 1
        self.first, self.last = min(self.first, at), max(self.last, at)


class _Table:
    """A Parquet file written in portions; it appears when it is complete."""

    def __init__(self, path: Path, name: str) -> None:
        import pyarrow as pa

        self.path, self.n_rows, self.rows = path, 0, list[dict[str, Any]]()
        types = _types()
        self.schema = pa.schema([(column, types[kind]) for column, (kind, _) in COLUMNS[name].items()])
        self.writing = path.with_name(f".{path.name}.writing")

    def __enter__(self) -> _Table:
        import pyarrow.parquet as pq

        self.file = pq.ParquetWriter(self.writing, self.schema)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write()
        self.file.close()
        if kind is None:
            self.writing.replace(self.path)
        else:
            self.writing.unlink()

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            turns = {column: _turns(row[column]) for column in ("prompt", "chosen", "rejected") if column in row}
            self.rows.append(row | turns)
        if len(self.rows) >= N_AT_ONCE:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        self.file.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.n_rows += len(self.rows)
        self.rows.clear()

    def done(self) -> Exported:
        return Exported(self.path, self.n_rows, hashlib.sha256(self.path.read_bytes()).hexdigest())


def _turns(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with all keys, so that every row has the same ones; tool calls as JSON."""
    found = [{part: turn.get(part) for part in TURN_PARTS} for turn in messages]
    for turn in found:
        turn["tool_calls"] = turn["tool_calls"] and json.dumps(turn["tool_calls"], ensure_ascii=False)
    return found


def _types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    turn = pa.struct([(part, pa.string()) for part in TURN_PARTS])
    lists = {"turns": turn, "texts": pa.string(), "numbers": pa.int64(), "lists": pa.list_(pa.string())}
    plain = {"text": pa.string(), "number": pa.int64(), "real": pa.float64(), "yes": pa.bool_()}
    return plain | {name: pa.list_(inner) for name, inner in lists.items()}


def _card(project: Project, session: Session, written: list[Exported], facts: _Facts, who: _Pseudonyms) -> str:
    """The text of README.md in the hub's format."""
    import yaml

    configs = [{"config_name": one.path.stem, "data_files": f"data/{one.path.name}"} for one in written]
    front = {
        "pretty_name": project.recipe.name,
        "license": "unknown",
        "tags": ["human-feedback", "preferences", "rlhf"],
        "size_categories": [_size(written[0].n_rows)],
        "configs": [configs[0] | {"default": True}, *configs[1:]],
    }
    parts = [f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---", f"# {project.recipe.name}"]
    parts += [_description(project, written, facts, who), *_columns(), *_guidelines(session, project.id, facts)]
    return "\n\n".join(parts) + "\n"


def _description(project: Project, written: list[Exported], facts: _Facts, who: _Pseudonyms) -> str:
    """The card's description: contents and origin."""
    rankings, pairs = (one.n_rows for one in written)
    overlap, agreed = project.recipe.overlap, [one for one in facts.agreements.values() if one is not None]
    what = f"{rankings:,} rankings of answers to {len(facts.agreements):,} prompts ({pairs:,} decided pairs)"
    by = f"by {len(who.known):,} people{'' if who.names else ' (pseudonyms)'}"
    when = f", from {iso(facts.first)[:10]} to {iso(facts.last)[:10]}" if rankings else ""
    coverage = f"{overlap} {'person' if overlap == 1 else 'people'} ranked each prompt"
    consistency = (
        f" Two annotators agree on {mean(agreed):.0%} of pairs that both decide (mean over {len(agreed):,} prompts; "
        "50% is chance)."
        if agreed
        else ""
    )
    return (
        f"{what} {by}{when}.\n\n"
        "Each person saw the answers in a random order, without model names, and rated and ranked them. "
        f"{coverage}.{consistency}\n\n"
        "This card was generated without knowing the license or the languages. Fill them in before you publish the "
        "data, and check it for texts that must not be published."
    )


def _columns() -> Iterator[str]:
    for config, columns in COLUMNS.items():
        rows = [f"| `{name}` | {meaning} |" for name, (_, meaning) in columns.items()]
        yield "\n".join([f"## Columns of `{config}`\n", "| column | meaning |", "|---|---|", *rows])


def _guidelines(session: Session, project_id: int, facts: _Facts) -> Iterator[str]:
    """The guidelines: each version under which somebody ranked."""
    query = select(Guidelines.version, Guidelines.text).where(Guidelines.project_id == project_id)
    for version, text in session.execute(query.order_by(Guidelines.version)):
        if facts.versions[version] and text.strip():
            heading = f"## Guidelines, version {version} ({facts.versions[version]:,} rankings)"
            yield heading + "\n\n" + "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _size(n_rows: int) -> str:
    """The hub's size category."""
    for limit, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M")):
        if n_rows < limit:
            return name
    return "1M<n<10M"
