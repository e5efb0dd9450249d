"""Where a claim begins: behind what the person has dealt with; and it still finds all that there is to find."""

from __future__ import annotations

import random

import pytest
from offices import Clock, Office, assert_counts, claim, new_id, nothing, queue_of, rank, row
from sqlalchemy import func, select

from apps.store import people, projects, tasks, work
from apps.store.engine import Store
from apps.store.settings import Settings
from apps.store.tables import Annotation, Desk, Lease, Task
from apps.store.tasks import TaskView


def desk(office: Office, person: people.PersonInfo) -> Desk:
    with office.store.read() as session:
        return session.get_one(Desk, (office.project, person.id))


def test_a_claim_begins_behind_what_the_person_has_done(store: Store) -> None:
    office = Office(store, overlap=3)
    office.tasks(40)
    ann = office.person("Ann")
    for _ in range(30):
        rank(office, ann, claim(office, ann))
    given = claim(office, ann)
    assert row(office, given.id).place == desk(office, ann).place + 1  # although 30 tasks before it are open


def test_who_passed_a_full_task_meets_it_again_when_it_is_taken_back(office: Office, clock: Clock) -> None:
    office.tasks(3)
    ann, bob = office.person("Ann"), office.person("Bob")
    given = claim(office, ann)
    rank(office, ann, given)
    for _ in range(2):
        rank(office, bob, claim(office, bob))
    assert nothing(office, bob).reason == "done"
    work.undo(office.store, office.project, ann.id)
    assert nothing(office, bob).reason == "held"
    clock.now += 3600
    assert claim(office, bob).id == given.id


def test_a_greater_overlap_opens_what_was_done_to_others(office: Office) -> None:
    office.tasks(4)
    ann, bob = office.person("Ann"), office.person("Bob")
    for _ in range(4):
        rank(office, ann, claim(office, ann))
    assert nothing(office, bob).reason == "done"
    projects.sync(office.store, "office", Settings(overlap=2))
    seen = []
    for _ in range(4):
        given = claim(office, bob)
        seen.append(given.id)
        rank(office, bob, given)
    assert seen == queue_of(office)
    assert nothing(office, ann).reason == "done"
    projects.sync(office.store, "office", Settings(overlap=1))
    assert {row(office, task).status for task in seen} == {"done"}


def test_tasks_added_later_are_reached(office: Office) -> None:
    office.tasks(2)
    ann = office.person("Ann")
    for _ in range(2):
        rank(office, ann, claim(office, ann))
    assert nothing(office, ann).reason == "done"
    office.tasks(4)  # two of them are known
    for _ in range(2):
        rank(office, ann, claim(office, ann))
    assert nothing(office, ann).reason == "done"


@pytest.mark.parametrize("seed", range(3))
def test_whatever_people_do_a_claim_finds_what_looking_at_everything_finds(
    store: Store, clock: Clock, seed: int
) -> None:
    """Random work of four people, and the clock, against a claim's definition applied to all tasks."""
    chance = random.Random(seed)
    office = Office(store, overlap=chance.choice((1, 2, 3)), lease_minutes=1)
    office.tasks(12, k=2)
    crew = [office.person(name) for name in ("Ann", "Bob", "Cy", "Di")]
    held: dict[int, TaskView] = {}
    for step in range(90):
        person = chance.choice(crew)
        act = chance.choice(("claim", "claim", "submit", "submit", "skip", "undo", "wait", "release", "more", "close"))
        given = held.get(person.id)
        if act == "claim":
            candidates, lapsed = expected_tasks(office, person, clock.now)
            found = tasks.claim(office.store, office.project, person.id)
            if isinstance(found, TaskView):
                held[person.id] = found
                assert found.id in lapsed or found.id == candidates[0], step
            else:
                assert not candidates, step
                assert not lapsed, step
        elif act == "wait":
            clock.now += chance.choice((5, 30, 70))
        elif act == "undo":
            undone = work.undo(office.store, office.project, person.id)
            if undone is not None:
                held[person.id] = undone
        elif act == "more":
            office.tasks(12 + step // 10, k=2)
        elif act == "close":
            task = chance.choice(queue_of(office))
            chance.choice((tasks.close_task, tasks.reopen_task, tasks.reopen_task))(office.store, task)
        elif given is not None and act == "release":
            tasks.release(office.store, person.id, given.id, given.lease)
        elif given is not None and act == "submit":
            rank(office, person, given)
        elif given is not None and row_of(office, given.id, person) != "submitted":
            work.skip(office.store, person.id, new_id(), given.id, given.lease, "no idea")
        if step % 10 == 9:
            assert_counts(office)


def expected_tasks(office: Office, person: people.PersonInfo, now: float) -> tuple[list[int], set[int]]:
    """The open tasks that a person may be given, in the queue's order, and those that they hold or held."""
    with office.store.read() as session:
        free, held = [], set()
        for task in session.scalars(select(Task).where(Task.status == "open").order_by(Task.place)):
            mine = session.scalar(
                select(Annotation).where(Annotation.task_id == task.id, Annotation.person_id == person.id)
            )
            others = session.scalar(
                select(func.count())
                .select_from(Lease)
                .where(Lease.task_id == task.id, Lease.person_id != person.id, Lease.expires_at > now)
            )
            assert others is not None
            is_free = task.n_done + others < task.required
            lease = session.get(Lease, (task.id, person.id))
            if lease is not None and (lease.expires_at > now or (lease.expires_at > 0 and is_free)):
                held.add(task.id)
            elif is_free and (mine is None or mine.status == "undone"):
                free.append(task.id)
        return free, held


def row_of(office: Office, task: int, person: people.PersonInfo) -> str:
    with office.store.read() as session:
        said = (Annotation.task_id == task) & (Annotation.person_id == person.id)
        return session.scalar(select(Annotation.status).where(said)) or ""
