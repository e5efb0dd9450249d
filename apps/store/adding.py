"""Adding prompts and answers as tasks. Adding the same content again changes nothing.

For ranking, each answer is in one task of its prompt. New answers to a known prompt fill up a task that nobody has seen
yet, or make new tasks; a single left-over answer waits for a second one. A gold or practice task is one row of answers
with their expected ranks.
"""

from __future__ import annotations

import math
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.projects import settings_of, take_places
from apps.store.settings import Settings
from apps.store.tables import Output, Prompt, Task, TaskOutput

Kind = Literal["rank", "practice", "gold"]


class NewAnswer(NamedTuple):
    """An answer and the model that gave it."""

    text: str
    maker: dict[str, Any]  # {model, temperature, seed}, as far as it is known


class NewPrompt(NamedTuple):
    """A prompt and its answers, from any number of rows."""

    messages: list[dict[str, Any]]
    source: str
    answers: tuple[NewAnswer, ...]
    expected: tuple[int, ...] = ()  # ranks of the answers, for gold and practice
    explanation: str = ""
    priority: float = 0.0


class NewTask(NamedTuple):
    """A task to be made, by the hashes of its prompt and answers."""

    prompt: str  # its hash
    members: list[str]  # hashes of its answers
    expected: dict[str, Any] | None
    priority: float


HashedPrompt = tuple[str, NewPrompt]  # a prompt with its hash


class Added(NamedTuple):
    """Counts of what was added, or would be."""

    prompts: int = 0
    answers: int = 0
    tasks: int = 0
    extended: int = 0  # unseen tasks that got more answers
    corrected: int = 0  # gold and practice tasks that got other expected ranks
    waiting: int = 0  # answers in no task, because their prompt has no second one

    def plus(self, other: Added) -> Added:
        """The sums of both."""
        return Added(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def prompt_hash(messages: Sequence[dict[str, Any]]) -> str:
    """A prompt's hash in its project, over all its messages with their extra keys (thoughts, tool calls)."""

    def values(role: str, content: str, **extra: Any) -> list[Any]:
        return [role, content, *([extra] if extra else [])]

    return events.digest([values(**message) for message in messages])


def text_hash(text: str) -> str:
    """An answer's hash at its prompt."""
    return events.digest(text)


def add_tasks(
    store: Store, project_id: int, prompts: Sequence[NewPrompt], kind: Kind = "rank", dry_run: bool = False
) -> Added:
    """Adds a batch of prompts in one transaction; a dry run only counts.

    New tasks go to the end of the queue in the order of the batch, until `queue.draw` reorders them.
    """
    with store.read() if dry_run else store.write() as session:
        batch = _Batch(session, settings_of(session, project_id), project_id, kind, dry_run)
        added = batch.add(_merged(prompts) if kind == "rank" else [(prompt_hash(one.messages), one) for one in prompts])
        if not dry_run and any(added[:5]):
            events.append(session, store.clock(), None, "import", kind, added._asdict())
        return added


def task_of_answers(session: Session, project_id: int, prompt: NewPrompt, now: float, by: int | None) -> Task:
    """The ranking task of exactly these answers (two or more), made if there is none.

    An answer that several models gave is passed once for each of them.
    """
    batch = _Batch(session, settings_of(session, project_id), project_id, "rank", dry_run=False)
    key, members = prompt_hash(prompt.messages), [text_hash(answer.text) for answer in prompt.answers]
    members = list(dict.fromkeys(members))
    known = batch.described([(key, prompt)])
    name = task_hash("rank", key, members)
    there = select(Task).where(Task.project_id == project_id, Task.hash == name)
    if session.scalar(there) is None:
        batch.make([NewTask(key, members, None, prompt.priority)], known)
        events.append(session, now, by, "import", "rank", Added(tasks=1)._asdict())
    return session.scalars(there).one()


@dataclass
class _PromptState:
    """A prompt's rows in the database, before and while adding to it."""

    id: int = 0  # 0 in a dry run that would make it
    outputs: dict[str, int] = field(default_factory=dict)  # hash → id, in the order of arrival
    kinds: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # kinds of tasks that an output is in
    unseen: dict[int, list[str]] = field(default_factory=dict)  # ranking tasks that nobody has seen → their outputs


class _Batch:
    """The prompts of one transaction."""

    def __init__(self, session: Session, settings: Settings, project_id: int, kind: Kind, dry_run: bool) -> None:
        self.session, self.settings, self.project_id = session, settings, project_id
        self.kind, self.dry_run = kind, dry_run

    def add(self, prompts: list[HashedPrompt]) -> Added:
        known = self._known([key for key, _ in prompts])
        n_prompts = self._add_prompts(prompts, known)
        n_answers = self._add_outputs(prompts, known)
        added = self._add_ranking(prompts, known) if self.kind == "rank" else self._add_expected(prompts, known)
        return added._replace(prompts=n_prompts, answers=n_answers)

    def described(self, prompts: list[HashedPrompt]) -> dict[str, _PromptState]:
        """Adds prompts and answers, but no tasks. Returns their state afterwards."""
        known = self._known([key for key, _ in prompts])
        self._add_prompts(prompts, known)
        self._add_outputs(prompts, known)
        return known

    def _known(self, hashes: list[str]) -> dict[str, _PromptState]:
        """The database's rows of these prompts."""
        here = select(Prompt.id, Prompt.hash).where(Prompt.project_id == self.project_id, Prompt.hash.in_(hashes))
        hash_of = {row.id: row.hash for row in self.session.execute(here)}
        known = {hash_of[prompt_id]: _PromptState(prompt_id) for prompt_id in hash_of}
        outputs = (
            select(Output.id, Output.prompt_id, Output.hash).where(Output.prompt_id.in_(hash_of)).order_by(Output.id)
        )
        name_of = {}
        for output in self.session.execute(outputs):
            known[hash_of[output.prompt_id]].outputs[output.hash] = output.id
            name_of[output.id] = output.hash
        members = (
            select(Task.id, Task.prompt_id, Task.kind, Task.shown, Task.status, TaskOutput.output_id)
            .join(TaskOutput, TaskOutput.task_id == Task.id)
            .where(Task.prompt_id.in_(hash_of))
            .order_by(Task.id, TaskOutput.place)
        )
        for row in self.session.execute(members):
            prompt = known[hash_of[row.prompt_id]]
            prompt.kinds[name_of[row.output_id]].add(row.kind)
            if row.kind == "rank" and not row.shown and row.status == "open":
                prompt.unseen.setdefault(row.id, []).append(name_of[row.output_id])
        return known

    def _add_prompts(self, prompts: list[HashedPrompt], known: dict[str, _PromptState]) -> int:
        new = {key: prompt for key, prompt in reversed(prompts) if key not in known}
        rows = [
            {"project_id": self.project_id, "hash": key, "messages": prompt.messages, "source": prompt.source}
            for key, prompt in reversed(new.items())
        ]
        known |= {key: _PromptState() for key in new}
        if rows and not self.dry_run:
            for row in self.session.execute(insert(Prompt).returning(Prompt.id, Prompt.hash), rows):
                known[row.hash].id = row.id
        return len(new)

    def _add_outputs(self, prompts: list[HashedPrompt], known: dict[str, _PromptState]) -> int:
        """Adds new answers, and further makers to known ones. Returns the number of new answers."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        again: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for key, prompt in prompts:
            for answer in prompt.answers:
                name = text_hash(answer.text)
                if (key, name) in rows:
                    _add_maker(rows[key, name]["makers"], answer.maker)
                elif name in known[key].outputs:
                    again[known[key].outputs[name]].append(answer.maker)
                else:
                    rows[key, name] = {"prompt_id": known[key].id, "hash": name, "text": answer.text, "makers": []}
                    _add_maker(rows[key, name]["makers"], answer.maker)
        for key, name in rows:
            known[key].outputs[name] = 0
        if self.dry_run:
            return len(rows)
        key_of = {one.id: key for key, one in known.items()}
        if rows:
            written = insert(Output).returning(Output.id, Output.prompt_id, Output.hash)
            for row in self.session.execute(written, list(rows.values())):
                known[key_of[row.prompt_id]].outputs[row.hash] = row.id
        self._add_makers(again)
        return len(rows)

    def _add_makers(self, again: dict[int, list[dict[str, Any]]]) -> None:
        query = select(Output.id, Output.makers).where(Output.id.in_(again))
        for row in self.session.execute(query).all():
            makers = list(row.makers)
            for maker in again[row.id]:
                _add_maker(makers, maker)
            if len(makers) > len(row.makers):
                self.session.execute(update(Output).where(Output.id == row.id).values(makers=makers))

    def _add_ranking(self, prompts: list[HashedPrompt], known: dict[str, _PromptState]) -> Added:
        added, tasks = Added(), list[NewTask]()
        for key, prompt in prompts:
            one = known[key]
            given = {text_hash(answer.text) for answer in prompt.answers}
            free = [
                name for name in one.outputs if not one.kinds[name] or (name in given and "rank" not in one.kinds[name])
            ]
            grown, new, n_waiting = distribute(free, one.unseen, self.settings.ranking.max_answers)
            tasks += [NewTask(key, members, None, prompt.priority) for members in new]
            for task_id, members in grown.items():
                self._extend(key, one, task_id, members)
            added = added.plus(Added(tasks=len(new), extended=len(grown), waiting=n_waiting))
        self.make(tasks, known)
        return added

    def _extend(self, key: str, one: _PromptState, task_id: int, members: list[str]) -> None:
        if self.dry_run:
            return
        before = one.unseen[task_id]
        whole = task_hash(self.kind, key, [*before, *members])
        self.session.execute(update(Task).where(Task.id == task_id).values(hash=whole))
        rows = [
            {"task_id": task_id, "place": place, "output_id": one.outputs[name]}
            for place, name in enumerate(members, start=len(before))
        ]
        self.session.execute(insert(TaskOutput), rows)

    def _add_expected(self, prompts: list[HashedPrompt], known: dict[str, _PromptState]) -> Added:
        """Adds gold and practice tasks, one per row; corrects the expected ranks of known ones."""
        wanted = {}
        for key, prompt in prompts:
            members = [text_hash(answer.text) for answer in prompt.answers]
            wanted[task_hash(self.kind, key, members)] = (key, members, prompt)
        there = select(Task).where(Task.project_id == self.project_id, Task.hash.in_(wanted))
        n_corrected = 0
        for task in self.session.scalars(there):
            _, members, prompt = wanted.pop(task.hash)
            ranks = dict(zip(members, prompt.expected, strict=True))
            outputs = select(Output.hash).join(TaskOutput, TaskOutput.output_id == Output.id)
            places = self.session.scalars(outputs.where(TaskOutput.task_id == task.id).order_by(TaskOutput.place))
            expected = {"ranks": [ranks[name] for name in places], "explanation": prompt.explanation}
            n_corrected += expected != task.expected
            if expected != task.expected and not self.dry_run:
                task.expected = expected
        rows = [
            NewTask(key, members, {"ranks": list(prompt.expected), "explanation": prompt.explanation}, prompt.priority)
            for key, members, prompt in wanted.values()
        ]
        self.make(rows, known)
        return Added(tasks=len(rows), corrected=n_corrected)

    def make(self, tasks: list[NewTask], known: dict[str, _PromptState]) -> None:
        """Makes the tasks."""
        if self.dry_run or not tasks:
            return
        first = take_places(self.session, self.project_id, len(tasks))
        required = self.settings.overlap if self.kind == "rank" else 1
        common: dict[str, Any] = {"project_id": self.project_id, "kind": self.kind, "n_done": 0}
        common |= {"shown": False, "assigned": False}
        common |= {"status": "open", "required": required, "propensity": 1.0, "pool": 1}
        rows: list[dict[str, Any]] = []
        for place, task in enumerate(tasks, start=first):
            name = task_hash(self.kind, task.prompt, task.members)
            own = {"hash": name, "prompt_id": known[task.prompt].id, "expected": task.expected, "place": place}
            rows.append({**own, "public_id": random_id(), "priority": task.priority, **common})
        written = self.session.execute(insert(Task).returning(Task.id, Task.hash), rows)
        id_of = {row.hash: row.id for row in written}
        outputs = [
            {"task_id": id_of[row["hash"]], "place": place, "output_id": known[task.prompt].outputs[name]}
            for row, task in zip(rows, tasks, strict=True)
            for place, name in enumerate(task.members)
        ]
        self.session.execute(insert(TaskOutput), outputs)


def random_id() -> int:
    """A random public id below 2^53, the largest range that JavaScript's numbers hold exactly."""
    return secrets.randbelow(2**53 - 1) + 1


def distribute(
    free: list[str], unseen: dict[int, list[str]], most: int
) -> tuple[dict[int, list[str]], list[list[str]], int]:
    """Distributes a prompt's free answers over tasks: (task → answers to add, new tasks, number left waiting).

    Unseen tasks are filled up first. The rest becomes tasks of nearly equal size, at most `most` answers each.
    """
    left, grown = list(free), {}
    for task_id, members in unseen.items():
        room = max(0, most - len(members))
        if room and left:
            grown[task_id], left = left[:room], left[room:]
    if len(left) < 2:
        return grown, [], len(left)
    n_tasks = math.ceil(len(left) / most)
    cuts = [round(index * len(left) / n_tasks) for index in range(n_tasks + 1)]
    new = [left[low:high] for low, high in pairwise(cuts)]
    if min(map(len, new)) < 2:  # only 3 answers in tasks of at most 2
        return grown, [part for part in new if len(part) > 1], 1
    return grown, new, 0


def task_hash(kind: str, prompt: str, members: list[str]) -> str:
    """A task's hash: its prompt and its answers in any order."""
    return events.digest([kind, prompt, sorted(members)])


def _merged(prompts: Sequence[NewPrompt]) -> list[HashedPrompt]:
    """Each prompt once with the answers of all its rows, the first row's source and the highest priority."""
    merged: dict[str, NewPrompt] = {}
    for prompt in prompts:
        key = prompt_hash(prompt.messages)
        before = merged.get(key, prompt._replace(answers=()))
        priority = max(before.priority, prompt.priority)
        merged[key] = before._replace(answers=(*before.answers, *prompt.answers), priority=priority)
    return list(merged.items())


def _add_maker(makers: list[dict[str, Any]], maker: dict[str, Any]) -> None:
    if maker and maker not in makers:
        makers.append(maker)
