"""What a reviewer decides about a task holds until somebody says something else about it."""

from __future__ import annotations

import pytest
from offices import Clock, Office, new_id, ranking, row
from sqlalchemy import select

from apps.store import reading, reviews, tasks, work
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.people import Somebody
from apps.store.tables import Event, Task


def say(office: Office, person: Somebody, *ranks: int) -> int:
    """The person ranks the next task. Returns its id."""
    given = tasks.claim(office.store, office.project, person.id)
    assert isinstance(given, tasks.Given)
    work.submit(office.store, person.id, new_id(), given.id, given.lease, ranking(*ranks))
    return given.id


def decided(office: Office) -> set[int]:
    with office.store.read() as session:
        return reviews.decided(session, office.project)


@pytest.fixture
def pair(store: Store) -> Office:
    return Office(store, overlap=2)


def test_a_task_that_is_sent_back_is_given_to_one_more_person(pair: Office) -> None:
    pair.tasks(1)
    ada, bob, cyd, dan, lead = (
        pair.person(name, "reviewer" if name == "lea" else "annotator") for name in ("ada", "bob", "cyd", "dan", "lea")
    )
    task = say(pair, ada, 1, 2, 3, 4)
    say(pair, bob, 4, 3, 2, 1)
    assert isinstance(tasks.claim(pair.store, pair.project, cyd.id), tasks.Nothing)
    assert reviews.send_back(pair.store, pair.project, task, lead.id) == 3
    assert decided(pair) == {task}
    assert isinstance(tasks.claim(pair.store, pair.project, ada.id), tasks.Nothing)  # not to those who did it
    assert say(pair, cyd, 1, 2, 3, 4) == task
    assert decided(pair) == set()  # so it is looked at again
    assert isinstance(tasks.claim(pair.store, pair.project, dan.id), tasks.Nothing)
    with pair.store.read() as session:
        found = session.get_one(Task, task)
        assert (found.status, found.n_done, found.required) == ("done", 3, 3)
        (event,) = session.scalars(select(Event).where(Event.verb == reviews.SENT_BACK))
        assert (event.person_id, event.subject, event.data) == (lead.id, str(task), {"required": 3})


def test_a_task_that_waits_already_is_not_sent_back_twice(pair: Office) -> None:
    pair.tasks(1)
    ada, lead = pair.person("ada"), pair.person("lea", "reviewer")
    task = say(pair, ada, 1, 2, 3, 4)
    with pytest.raises(Refused, match="waits for 1 more already"):
        reviews.send_back(pair.store, pair.project, task, lead.id)
    tasks.close_task(pair.store, task)
    with pytest.raises(Refused, match="is closed"):
        reviews.send_back(pair.store, pair.project, task, lead.id)


def test_an_accepted_task_is_decided_until_it_changes(pair: Office, clock: Clock) -> None:
    pair.tasks(2)
    ada, bob, lead = pair.person("ada"), pair.person("bob"), pair.person("lea", "reviewer")
    task = say(pair, ada, 1, 2, 3, 4)
    say(pair, bob, 4, 3, 2, 1)
    reviews.accept_task(pair.store, pair.project, task, lead.id)
    assert decided(pair) == {task}
    say(pair, bob, 1, 2, 3, 4)  # another task
    assert decided(pair) == {task}
    past = work.history(pair.store, pair.project, bob.id)
    mine = next(one.id for one in past if one.task == row(pair, task).public_id)
    work.revise(pair.store, bob.id, mine, ranking(1, 2, 3, 4))
    assert decided(pair) == set()
    reviews.accept_task(pair.store, pair.project, task, lead.id)
    assert decided(pair) == {task}


def test_only_this_projects_tasks_to_rank_are_decided_on(pair: Office) -> None:
    pair.tasks(1, kind="gold", expected=(1, 2, 3, 4))
    pair.tasks(1)
    other = Office(pair.store)
    other.project += 1
    lead = pair.person("lea", "reviewer")
    with pair.store.read() as session:
        by_kind = dict(session.execute(select(Task.kind, Task.id)).tuples().all())
    for project, task in ((pair.project, by_kind["gold"]), (other.project, by_kind["rank"]), (pair.project, 999)):
        for decide in (reviews.accept_task, reviews.send_back):
            with pytest.raises(Refused, match="no task"):
                decide(pair.store, project, task, lead.id)
        with pair.store.read() as session:
            assert reading.judged_task(session, other.project, task) is None
    assert decided(pair) == set()


def test_one_task_is_read_as_all_are(pair: Office) -> None:
    pair.tasks(3)
    ada = pair.person("ada")
    ids = [say(pair, ada, 1, 2, 2, 4) for _ in range(2)]
    with pair.store.read() as session:
        found = {task.id: task for task in reading.judged(session, pair.project, unsaid=True)}
        for task_id in found:
            assert reading.judged_task(session, pair.project, task_id) == found[task_id]
    assert [len(found[task_id].judgments) for task_id in ids] == [1, 1]
