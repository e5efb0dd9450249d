"""The order of the queue: highest priority first, with a share of random draws.

With probability `random_share` a place goes to a task drawn from all remaining ones, else to one of the highest
priority; ties are drawn uniformly. The random draws keep the labelled tasks from being only the model's choice. Each
task's draw probability and the number of candidates are stored; with them a mean over labelled tasks can be weighted
back to all tasks (Farquhar et al. 2021, 2101.11665).
"""

from __future__ import annotations

import hashlib
from array import array
from typing import NamedTuple

import numpy as np
from sqlalchemy import bindparam, select, update

from apps.store.engine import Store
from apps.store.projects import settings_of, take_places
from apps.store.tables import Task

N_AT_ONCE = 2000  # tasks moved in one transaction; few, so that nobody waits long


class Drawn(NamedTuple):
    """An order of tasks by index, with each draw's probability and number of candidates."""

    order: np.ndarray  # (n,) int64
    propensity: np.ndarray  # (n,) float64
    pool: np.ndarray  # (n,) int64


def draw(store: Store, project_id: int) -> int:
    """Reorders all unseen tasks, behind all others. Returns how many.

    Tasks that somebody has seen keep their places and so come first: they are finished before others are begun.
    """
    with store.read() as session:
        settings = settings_of(session, project_id)
        unseen = (Task.project_id == project_id) & (Task.kind == "rank") & ~Task.shown & (Task.status == "open")
        ids, priorities = array("q"), array("d")
        query = select(Task.id, Task.priority).where(unseen).order_by(Task.hash).execution_options(yield_per=10_000)
        for task_id, priority in session.execute(query):
            ids.append(task_id)
            priorities.append(priority)
    found = drawn(np.array(priorities), settings.queue.random_share, settings.seed)
    task_ids = np.array(ids, dtype=np.int64)[found.order]
    moved = update(Task).where(Task.id == bindparam("task"), ~Task.shown)
    moved = moved.values(place=bindparam("to"), propensity=bindparam("p"), pool=bindparam("n"))
    for first in range(0, len(task_ids), N_AT_ONCE):
        part = slice(first, first + N_AT_ONCE)
        columns = (task_ids[part].tolist(), found.propensity[part].tolist(), found.pool[part].tolist())
        with store.write() as session:
            behind = take_places(session, project_id, len(columns[0]))
            rows = [
                {"task": task_id, "to": behind + index, "p": p, "n": n}
                for index, (task_id, p, n) in enumerate(zip(*columns, strict=True))
            ]
            session.connection().execute(moved, rows)
    return len(task_ids)


def drawn(priorities: np.ndarray, random_share: float, seed: int) -> Drawn:
    """The order in which tasks with these priorities are drawn; depends only on the arguments."""
    n = len(priorities)
    chance = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}:queue:{n}".encode()).digest()[:8], "big"))
    shuffled = chance.permutation(n)
    by_priority = shuffled[np.argsort(-priorities[shuffled], kind="stable")]  # equals in random order
    at_random, is_random = chance.permutation(n), chance.random(n) < random_share
    left_of = {value: int(count) for value, count in zip(*np.unique(priorities, return_counts=True), strict=True)}
    order, propensity = np.empty(n, np.int64), np.empty(n)
    taken = np.zeros(n, bool)
    top = anywhere = 0
    for step in range(n):
        while taken[by_priority[top]]:
            top += 1
        while taken[at_random[anywhere]]:
            anywhere += 1
        task = at_random[anywhere] if is_random[step] else by_priority[top]
        highest = priorities[by_priority[top]]
        urgent = (1 - random_share) / left_of[highest] if priorities[task] == highest else 0.0
        order[step], propensity[step] = task, urgent + random_share / (n - step)
        taken[task] = True
        left_of[priorities[task]] -= 1
    return Drawn(order, propensity, np.arange(n, 0, -1))
