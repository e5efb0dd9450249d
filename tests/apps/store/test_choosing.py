"""To whom a task is given and to whom not: assignment, pauses, caps, the time for a task, practice done again."""

from __future__ import annotations

from typing import Any

import pytest
from offices import Clock, Office, assert_counts, claim, new_id, nothing, queue_of, rank, ranking, row
from sqlalchemy import select

from apps.store import feedback, people, projects, tasks, work
from apps.store.engine import Store
from apps.store.errors import LeaseLost, Refused
from apps.store.people import PersonInfo
from apps.store.settings import Settings
from apps.store.tables import Annotation, Desk, Event, Revision

# ---------------------------------------------------------------------------------------------------------- assignment


def everything(office: Office, person: PersonInfo) -> list[int]:
    """What the person gets until there is nothing, each ranked."""
    found = []
    while isinstance(given := tasks.claim(office.store, office.project, person.id), tasks.TaskView):
        found.append(given.id)
        rank(office, person, given)
    return found


def test_an_assigned_task_is_given_to_whom_it_is_for_first_and_to_nobody_else(office: Office) -> None:
    office.tasks(6)
    ann, bob = office.person("Ann"), office.person("Bob")
    order = queue_of(office)
    assert tasks.assign(office.store, office.project, [order[4], order[2]], ["Bob"]) == 2
    assert everything(office, ann) == [order[0], order[1], order[3], order[5]]
    assert everything(office, bob) == [order[2], order[4]]
    assert_counts(office)


def test_a_task_for_two_people_goes_to_as_many_as_it_needs(office: Office) -> None:
    office.tasks(2)
    ann, bob, cy = (office.person(name) for name in ("Ann", "Bob", "Cy"))
    order = queue_of(office)
    tasks.assign(office.store, office.project, order, ["Ann", "Bob"])
    first = claim(office, ann)
    assert (first.id, claim(office, bob).id) == (order[0], order[1])
    assert nothing(office, cy).reason == "done"
    rank(office, ann, first)
    assert nothing(office, ann).reason == "done"


def test_what_is_taken_from_somebody_is_everybodys_again(office: Office) -> None:
    office.tasks(3)
    ann, bob = office.person("Ann"), office.person("Bob")
    order = queue_of(office)
    tasks.assign(office.store, office.project, order[:2], ["Bob"])
    assert everything(office, ann) == order[2:]
    assert tasks.unassign(office.store, office.project, order) == 2
    assert everything(office, ann) == order[:2]
    assert nothing(office, bob).reason == "done"


def test_an_assigned_task_comes_again_after_undo_reopening_and_a_larger_overlap(office: Office) -> None:
    office.tasks(2)
    ann, bob = office.person("Ann"), office.person("Bob")
    first, second = queue_of(office)
    tasks.assign(office.store, office.project, [first, second], ["Ann", "Bob"])
    assert everything(office, ann) == [first, second]
    assert nothing(office, bob).reason == "done"  # so Bob has passed by both
    work.undo(office.store, office.project, ann.id)
    work.skip(office.store, ann.id, new_id(), second, claim(office, ann).lease, "no idea")
    assert everything(office, bob) == [second]
    projects.sync(office.store, "office", Settings(overlap=2))
    assert everything(office, bob) == [first]
    assert row(office, second).status == "open"  # Ann's turn, who has skipped it


def test_who_had_a_task_before_it_is_assigned_anew_is_not_given_it(office: Office) -> None:
    office.tasks(1)
    ann, bob = office.person("Ann"), office.person("Bob")
    (task,) = queue_of(office)
    tasks.assign(office.store, office.project, [task], ["Ann"])
    tasks.assign(office.store, office.project, [task], ["Bob"])
    assert nothing(office, ann).reason == "done"
    assert claim(office, bob).id == task


def test_only_tasks_to_rank_and_people_who_are_there_can_be_named(office: Office) -> None:
    office.tasks(1)
    office.tasks(1, kind="gold", expected=(1, 2, 3, 4))
    office.person("Ann")
    rank_task = queue_of(office)[0]
    for ids, names in (([rank_task + 1], ["Ann"]), ([rank_task, 999], ["Ann"]), ([rank_task], ["Zoe"])):
        with pytest.raises(Refused, match=r"no ranking task|nobody has this name"):
            tasks.assign(office.store, office.project, ids, names)
    people.set_active(office.store, "Ann", False)
    with pytest.raises(Refused, match="Ann is deactivated"):
        tasks.assign(office.store, office.project, [rank_task], ["Ann"])
    with pytest.raises(Refused, match="nobody is chosen"):
        tasks.assign(office.store, office.project, [rank_task], [])
    assert not row(office, rank_task).assigned


# ------------------------------------------------------------------------------------------------------ pauses and caps


def test_a_paused_project_gives_nothing_and_loses_nothing(office: Office) -> None:
    office.tasks(3)
    ann = office.person("Ann")
    first = rank(office, ann, claim(office, ann))
    given = claim(office, ann)
    tasks.pause(office.store, office.project, True)
    assert claim(office, ann).id == given.id  # what was begun can be finished
    work.save_draft(office.store, ann.id, given.id, {"comment": "half"}, 1)
    assert work.revise(office.store, ann.id, first.id, ranking(4, 3, 2, 1)).revision == 2
    rank(office, ann, given)
    found = nothing(office, ann)
    assert (found.reason, found.retry_at) == ("paused", None)
    assert work.undo(office.store, office.project, ann.id) is not None
    assert claim(office, ann).id == given.id
    tasks.pause(office.store, office.project, False)
    assert claim(office, ann).id == given.id


def test_one_person_is_paused_alone(office: Office) -> None:
    office.tasks(2)
    ann, bob = office.person("Ann"), office.person("Bob")
    tasks.pause_person(office.store, office.project, "Ann", True, by=bob.id)
    assert nothing(office, ann).reason == "paused"
    claim(office, bob)
    tasks.pause_person(office.store, office.project, "Ann", False, by=bob.id)
    claim(office, ann)
    with office.store.read() as session:
        verbs = session.scalars(select(Event.verb).where(Event.person_id == bob.id).order_by(Event.seq)).all()
    assert verbs[-2:] == ["pause", "resume"]


def test_nobody_ranks_more_than_the_cap_and_the_lead_sets_another_for_one(store: Store) -> None:
    office = Office(store, limits={"rankings": 2})
    office.tasks(9)
    ann, bob = office.person("Ann"), office.person("Bob")
    assert len(everything(office, ann)) == 2
    found = nothing(office, ann)
    assert (found.reason, found.retry_at) == ("enough", None)
    assert "reached the limit of 2 rankings per person" in found.message
    work.undo(store, office.project, ann.id)  # leaves one
    assert len(everything(office, ann)) == 1
    tasks.limit_person(store, office.project, "Ann", 3)
    tasks.limit_person(store, office.project, "Bob", 0)
    assert len(everything(office, ann)) == 1
    assert nothing(office, bob).reason == "enough"
    tasks.limit_person(store, office.project, "Bob", None)
    assert len(everything(office, bob)) == 2
    with pytest.raises(Refused, match="most"):
        tasks.limit_person(store, office.project, "Bob", -1)


def test_a_days_hours_are_full_until_midnight(store: Store, clock: Clock) -> None:
    office = Office(store, limits={"hours": 1})
    office.tasks(20)
    ann = office.person("Ann")
    clock.now -= clock.now % 86400 + 3600  # an hour before midnight
    before = office_day(office, ann, clock, [1700])
    clock.now += 7200
    office_day(office, ann, clock, [1800, 1790])
    work.revise(store, ann.id, before[0], ranking(1, 1, 2, 2), 5)  # of yesterday's, in today's time
    given = claim(office, ann)
    work.skip(store, ann.id, new_id(), given.id, given.lease, "no idea")
    work.revise(store, ann.id, before[0], ranking(1, 1, 2, 3), 5)
    found = nothing(office, ann)
    midnight = clock.now - clock.now % 86400 + 86400
    assert (found.reason, found.retry_at) == ("enough", midnight)
    assert "limit of 1 hours per day. New tasks are available at midnight UTC" in found.message
    clock.now = midnight
    claim(office, ann)


def office_day(office: Office, person: PersonInfo, clock: Clock, seconds: list[int]) -> list[str]:
    """Rankings that took so many seconds."""
    said = []
    for spent in seconds:
        given = claim(office, person)
        clock.now += 60
        saved = work.submit(office.store, person.id, new_id(), given.id, given.lease, ranking(1, 2, 3, 4), spent)
        said.append(saved.id)
    return said


# ------------------------------------------------------------------------------------------------- the time for a task


def test_a_task_is_kept_no_longer_than_the_project_gives_for_it(store: Store, clock: Clock) -> None:
    office = Office(store, limits={"minutes": 20})
    office.tasks(2)
    ann, bob = office.person("Ann"), office.person("Bob")
    given, start = claim(office, ann), clock.now
    assert (given.expires_at, given.ends_at) == (start + 900, start + 1200)
    clock.now = start + 600
    assert tasks.heartbeat(store, ann.id, given.id, given.lease) == start + 1200
    assert claim(office, ann).ends_at == start + 1200  # a reload gives no more time
    clock.now = start + 1199
    work.save_draft(store, ann.id, given.id, {"comment": "half"}, 1)
    assert claim(office, bob).id != given.id
    clock.now = start + 1200
    assert work.save_draft(store, ann.id, given.id, {"comment": "more"}, 2).saved
    with pytest.raises(LeaseLost, match=r"time for this task is over \(20 minutes\); your draft is kept"):
        tasks.heartbeat(store, ann.id, given.id, given.lease)
    again = claim(office, ann)  # behind the queue, where nothing else is left
    assert (again.id, again.draft, again.ends_at) == (given.id, {"comment": "more"}, clock.now + 1200)


def test_what_comes_after_its_time_counts_if_a_place_is_free(store: Store, clock: Clock) -> None:
    office = Office(store, limits={"minutes": 20})
    office.tasks(2)
    ann, bob = office.person("Ann"), office.person("Bob")
    first = claim(office, ann)
    clock.now += 1201
    assert not rank(office, ann, first).extra
    second = claim(office, ann)
    clock.now += 1201
    assert claim(office, bob).id == second.id
    assert rank(office, ann, second).extra


def test_a_task_whose_time_is_over_lets_others_come_first(store: Store, clock: Clock) -> None:
    office = Office(store, limits={"minutes": 20})
    office.tasks(2)
    ann = office.person("Ann")
    given = claim(office, ann)
    clock.now += 1200
    other = claim(office, ann)
    assert other.id != given.id
    rank(office, ann, other)
    assert claim(office, ann).id == given.id


# ------------------------------------------------------------------------------------------------------------ practice


def fail_practice(office: Office, person: PersonInfo) -> None:
    given = claim(office, person)
    assert given.kind == "practice"
    order = [int(text.split()[1]) for text in given.answers]
    payload = ranking(*(4 - place for place in order))
    work.submit(office.store, person.id, new_id(), given.id, given.lease, payload)


def failed(office: Office) -> list[str]:
    with office.store.read() as session:
        return feedback.failed_practice(session, office.project)


def practising(store: Store) -> Office:
    office = Office(store, practice={"required": 1, "pass_share": 1.0})
    office.tasks(3)
    office.tasks(2, kind="practice", expected=(1, 2, 3, 4))
    return office


def test_who_fails_practice_is_shown_to_the_lead_who_lets_them_do_it_again(store: Store) -> None:
    office = practising(store)
    ann, bob, lead = office.person("Ann"), office.person("Bob"), office.person("Lea", "admin")
    fail_practice(office, ann)
    assert failed(office) == []  # there is another one to do
    fail_practice(office, ann)
    fail_practice(office, bob)
    claim(office, lead)
    assert failed(office) == ["Ann"]
    assert "The lead can see this" in nothing(office, ann).message
    assert tasks.reset_practice(store, office.project, "Ann", by=lead.id) == 2
    assert failed(office) == []
    given = claim(office, ann)
    assert (given.kind, given.status, given.draft) == ("practice", "undone", None)
    order = [int(text.split()[1]) for text in given.answers]
    right = ranking(*(place + 1 for place in order))
    saved = work.submit(store, ann.id, new_id(), given.id, given.lease, right)
    assert saved.feedback is not None
    assert (saved.revision, saved.feedback.agreement) == (3, 1.0)
    assert failed(office) == []
    assert claim(office, ann).kind == "rank"


def test_nothing_of_practice_is_deleted_and_who_passed_can_be_asked_again(store: Store) -> None:
    office = practising(store)
    ann = office.person("Ann")
    fail_practice(office, ann)
    fail_practice(office, ann)
    tasks.reset_practice(store, office.project, "Ann")
    assert tasks.reset_practice(store, office.project, "Ann") == 0
    with store.read() as session:
        said = session.scalars(select(Revision.status).order_by(Revision.annotation_id, Revision.n)).all()
        assert list(said) == ["submitted", "undone"] * 2
        assert session.scalars(select(Annotation.status)).all() == ["undone", "undone"]
        events: list[Any] = list(session.execute(select(Event.data).where(Event.verb == "reset_practice")).scalars())
        assert events[0] == {"person": ann.id, "tasks": 2}
    with store.write() as session:
        session.get_one(Desk, (office.project, ann.id)).qualified = True
    tasks.reset_practice(store, office.project, "Ann")
    assert claim(office, ann).kind == "practice"


# ---------------------------------------------------------------------------------------------------------------- gold


def test_which_claims_give_gold_cannot_be_told_from_the_seed(store: Store) -> None:
    office, found = Office(store, gold={"share": 0.5}), []
    ann = office.person("Ann")
    for name in ("office", "another"):
        office.project = projects.sync(store, name, Settings(gold={"share": 0.5}))
        office.tasks(20, k=2)
        office.tasks(20, k=2, kind="gold", expected=(1, 2))
        given = [claim(office, ann)]
        for _ in range(15):
            rank(office, ann, given[-1])
            given.append(claim(office, ann))
        found.append([row(office, one.id).kind for one in given])
    assert found[0] != found[1]  # by chance in one of 65,536
