"""Exporting annotations as files: `align label export project.yaml --out FOLDER`.

rankings.jsonl     one row per ranking, {prompt, responses, ranks, annotator, source, ...}, which `align rm` reads
preferences.jsonl  one row per pair that a ranking decides, {prompt, chosen, rejected, ...} as messages, TRL's
                   conversational preference format
audit.jsonl        everything: every task with its answers, every revision of every annotation, every version of the
                   guidelines, every event; erased texts are blank
dataset/           rankings and preferences as a Hugging Face data set with a card (`dataset.py`)
people.csv         one row per person, with hours and quality: for paying them

Rankings and preferences leave out closed tasks unless requested. Of a task that a reviewer decided they have only the
reviewer's ranking.

Everything is read from one state of the database, in a fixed order and spelling: the same state and filters give the
same bytes. With `until`, that is the state at that time, without later changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from align.errors import UserError
from apps.label.rankings import ROWS, Exported, Filters, decisive, iso, select_annotations
from apps.store import names, people, progress
from apps.store.project import Project
from apps.store.reading import AnnotatedTask, TaskAnnotation, Version, annotated_tasks
from apps.store.tables import Event, Guidelines, Person

FORMATS = ("rankings", "preferences", "audit", "dataset", "people")
FILES = {name: f"{name}.jsonl" for name in FORMATS[:3]} | {"dataset": "dataset", "people": "people.csv"}
STATUSES = ("open", "done", "closed")


def export(
    project: Project,
    folder: Path,
    formats: tuple[str, ...] = FORMATS[:3],
    filters: Filters = Filters(),  # noqa: B008 - immutable
    overwrite: bool = False,
    names: bool = False,
) -> list[Exported]:
    """Writes the formats into `folder`; each file appears when it is complete. Returns the written files.

    `names`: the data set has people's names instead of pseudonyms. people.csv applies only the time filters. Raises
    `UserError` for an unknown format, status or annotator, and for existing files, unless `overwrite`.
    """
    from apps.label.dataset import write_dataset

    wanted = [name for name in FORMATS[:3] if name in formats]
    _check(project, folder, formats, filters, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack, project.store.read() as session:
        files = {name: stack.enter_context(_Writer(folder / f"{name}.jsonl")) for name in wanted}
        kinds = ("rank", "practice", "gold") if "audit" in files else ("rank",)
        for task in annotated_tasks(session, project.id, kinds, filters.until, with_unannotated="audit" in files):
            chosen = select_annotations(task, filters)
            if task.kind == "rank":
                for name in files.keys() & {"rankings", "preferences"}:
                    for annotation in decisive(task, chosen, filters):
                        files[name].write(ROWS[name](task, annotation))
            if "audit" in files:
                files["audit"].write(_audit_rows(task, chosen, filters))
        if "audit" in files:
            files["audit"].write(_guidelines_rows(session, project.id, filters))
            files["audit"].write(_event_rows(session, filters))
        more = write_dataset(project, session, folder / "dataset", filters, names) if "dataset" in formats else []
    if "people" in formats:
        more.append(_write_people(project, folder / FILES["people"], filters))
    return [files[name].done() for name in wanted] + more


def _write_people(project: Project, path: Path, filters: Filters) -> Exported:
    share = project.recipe.gold.pass_share
    table = progress.people_csv(project.store, project.id, share, filters.since, filters.until).encode()
    path.write_bytes(table)
    return Exported(path, table.count(b"\n") - 1, hashlib.sha256(table).hexdigest())


def parse_time(text: str, option: str) -> float:
    """An ISO 8601 date or time as seconds since 1970; UTC if it names no zone. Raises `UserError`."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{option} {text}: give a date or time such as 2026-01-31 or 2026-01-31T17:00Z") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _check(project: Project, folder: Path, formats: tuple[str, ...], filters: Filters, overwrite: bool) -> None:
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"--format {unknown[0]}: the formats are {', '.join(FORMATS)}")
    if filters.status is not None and filters.status not in STATUSES:
        raise UserError(f"--status {filters.status}: the statuses are {', '.join(STATUSES)}")
    if filters.min_agreement is not None and not 0 <= filters.min_agreement <= 1:
        raise UserError(f"--min-agreement {filters.min_agreement:g}: give a share from 0 to 1")
    for name in filters.annotators:
        people.by_name(project.store, name)
    there = [folder / FILES[name] for name in formats if (folder / FILES[name]).exists()]
    if there and not overwrite:
        raise UserError(f"--out: {there[0]} exists; choose another folder, or add --overwrite")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {folder} is a file; give a folder")


def _audit_rows(task: AnnotatedTask, chosen: list[TaskAnnotation], filters: Filters) -> Iterator[dict[str, Any]]:
    """A task, then all revisions of each annotation that passes the filters."""
    if not chosen and filters != Filters(until=filters.until):
        return
    yield {
        "record": "task",
        "task": task.hash,
        "kind": task.kind,
        "prompt": task.messages,
        "source": task.source,
        "answers": [{"text": a.text, "makers": a.makers, "scores": a.scores} for a in task.answers],
        "expected": task.expected,
        "required": task.required,
        "status": task.status,
        "priority": task.priority,
        "place": task.place,
        "propensity": task.propensity,
        "pool": task.pool,
    }
    for annotation in chosen:
        for version in annotation.versions:
            yield _revision_row(task, annotation, version)


def _revision_row(task: AnnotatedTask, annotation: TaskAnnotation, version: Version) -> dict[str, Any]:
    return {
        "record": "revision",
        "task": task.hash,
        "annotation": annotation.id,
        "annotator": annotation.person,
        "n": version.n,
        "status": version.status,
        "extra": version.extra,
        "payload": version.payload,  # by slot; places[slot] is the answer's index in the task
        "places": annotation.places,
        "seconds": version.seconds,
        "guidelines_version": version.guidelines_version,
        "shown_at": iso(annotation.shown_at),
        "at": iso(version.at),
    }


def _guidelines_rows(session: Session, project_id: int, filters: Filters) -> Iterator[dict[str, Any]]:
    """All versions of the guidelines until the time of the filter."""
    query = select(Guidelines, Person.name).outerjoin(Person, Person.id == Guidelines.person_id)
    query = query.where(Guidelines.project_id == project_id).order_by(Guidelines.version)
    for one, name in session.execute(query):
        if filters.until is None or one.at <= filters.until:
            row = {"record": "guidelines", "version": one.version, "text": one.text, "person": name}
            yield row | {"at": iso(one.at)}


def _event_rows(session: Session, filters: Filters) -> Iterator[dict[str, Any]]:
    """The chain of events, filtered by time and annotators."""
    keys = {names.name_key(name) for name in filters.annotators}
    query = select(Event, Person.name, Person.key).outerjoin(Person, Person.id == Event.person_id).order_by(Event.seq)
    for event, name, key in session.execute(query.execution_options(yield_per=1000)):
        is_late = filters.until is not None and event.at > filters.until
        is_early = filters.since is not None and event.at < filters.since
        if not (is_late or is_early or (keys and key not in keys)):
            row = {"record": "event", "seq": event.seq, "at": iso(event.at), "person": name, "verb": event.verb}
            yield row | {"subject": event.subject, "data": event.data, "prev_hash": event.prev_hash, "hash": event.hash}
        session.expunge(event)


class _Writer:
    """A JSONL file that appears when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.n_rows, self.sum = path, 0, hashlib.sha256()
        self.writing = path.with_name(f".{path.name}.writing")

    def __enter__(self) -> _Writer:
        self.file: IO[bytes] = self.writing.open("wb")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.file.close()
        if kind is None:
            self.writing.replace(self.path)
        else:
            self.writing.unlink()

    def write(self, rows: Iterator[dict[str, Any]]) -> None:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
            self.file.write(line)
            self.sum.update(line)
            self.n_rows += 1

    def done(self) -> Exported:
        return Exported(self.path, self.n_rows, self.sum.hexdigest())
