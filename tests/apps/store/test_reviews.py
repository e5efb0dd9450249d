"""What a reviewer decides about a task holds until somebody says something else about it."""

from __future__ import annotations

import pytest
from offices import Clock, Office, assert_counts, at_once, claim, new_id, queue_of, rank, ranking, row
from sqlalchemy import select

from apps.store import adding, events, projects, reading, reviews, tasks, work
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.people import PersonInfo
from apps.store.settings import Settings
from apps.store.tables import Event, Task


def say(office: Office, person: PersonInfo, *ranks: int) -> int:
    """The person ranks the next task. Returns its id."""
    given = tasks.claim(office.store, office.project, person.id)
    assert isinstance(given, tasks.TaskView)
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
    assert isinstance(tasks.claim(pair.store, pair.project, cyd.id), tasks.NoTask)
    assert reviews.send_back(pair.store, pair.project, task, lead.id) == 3
    assert decided(pair) == {task}
    assert isinstance(tasks.claim(pair.store, pair.project, ada.id), tasks.NoTask)  # not to those who did it
    assert say(pair, cyd, 1, 2, 3, 4) == task
    assert decided(pair) == set()  # so it is looked at again
    assert isinstance(tasks.claim(pair.store, pair.project, dan.id), tasks.NoTask)
    with pair.store.read() as session:
        found = session.get_one(Task, task)
        assert (found.status, found.n_done, found.required) == ("done", 3, 3)
        (event,) = session.scalars(select(Event).where(Event.verb == reviews.SENT_BACK))
        assert (event.person_id, event.subject, event.data) == (lead.id, str(task), {"required": 3})


def test_other_settings_leave_what_was_sent_back_as_it_is(pair: Office) -> None:
    task = disputed(pair)
    reviews.send_back(pair.store, pair.project, task, pair.person("lea", "reviewer").id)
    projects.sync(pair.store, "office", Settings(overlap=2, lease_minutes=5))
    assert (row(pair, task).required, row(pair, task).status) == (3, "open")


def test_a_task_that_waits_already_is_not_sent_back_twice(pair: Office) -> None:
    pair.tasks(1)
    ada, lead = pair.person("ada"), pair.person("lea", "reviewer")
    task = say(pair, ada, 1, 2, 3, 4)
    with pytest.raises(Refused, match="already waits for 1 more rankings"):
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
            with pytest.raises(Refused, match="no ranking task"):
                decide(pair.store, project, task, lead.id)
        with pair.store.read() as session:
            assert reading.annotated_task(session, other.project, task) is None
    assert decided(pair) == set()


def test_one_task_is_read_as_all_are(pair: Office) -> None:
    pair.tasks(3)
    ada = pair.person("ada")
    ids = [say(pair, ada, 1, 2, 2, 4) for _ in range(2)]
    with pair.store.read() as session:
        found = {task.id: task for task in reading.annotated_tasks(session, pair.project, with_unannotated=True)}
        for task_id in found:
            assert reading.annotated_task(session, pair.project, task_id) == found[task_id]
    assert [len(found[task_id].annotations) for task_id in ids] == [1, 1]


# -------------------------------------------------------------------------------------------------------------- reports


def report(office: Office, person: PersonInfo, reason: str = "private data", note: str = "a number") -> tuple[int, str]:
    """The person flags their next task: its id, and the annotation's."""
    given = claim(office, person)
    saved = work.flag(office.store, person.id, new_id(), given.id, given.lease, reason, note)
    return given.id, saved.id


def handled(office: Office) -> list[tuple[str, str]]:
    return [(one.person, one.handled) for one in reviews.reports(office.store, office.project)]


def test_a_report_reaches_the_lead_with_its_words_and_its_task(pair: Office, clock: Clock) -> None:
    pair.tasks(2)
    ada, bob, lead = pair.person("ada"), pair.person("bob"), pair.person("lea", "reviewer")
    assert reviews.reports(pair.store, pair.project) == ()
    task, id = report(pair, ada)
    clock.now += 1
    assert report(pair, bob, "broken", "")[0] == task  # it stays in the queue until the lead closes it
    second, first = reviews.reports(pair.store, pair.project)
    assert (second.person, second.reason, second.at) == ("bob", "broken", clock.now)
    assert first == reviews.Report(
        id, task, "ada", "private data", "a number", clock.now - 1, first.beginning, "open", ""
    )
    assert first.beginning.startswith("rank ")
    work.undo(pair.store, pair.project, bob.id)
    assert handled(pair) == [("ada", "")]
    reviews.keep_report(pair.store, pair.project, id, lead.id)
    assert handled(pair) == [("ada", "kept")]
    work.undo(pair.store, pair.project, ada.id)
    assert report(pair, ada)[0] == task
    assert handled(pair) == [("ada", "")]  # said again, so it is looked at again
    tasks.close_task(pair.store, task, lead.id)
    assert handled(pair) == [("ada", "closed")]
    with pytest.raises(Refused, match="no such report"):
        reviews.keep_report(pair.store, pair.project, new_id(), lead.id)


def test_a_prompt_that_is_put_right_is_a_new_task_with_the_same_answers(pair: Office) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    turns.append({"role": "user", "content": "call 0123"})
    answers = (adding.NewAnswer("yes", {"model": "a"}), adding.NewAnswer("yes", {"model": "b"}))
    whole = adding.NewPrompt(turns, "calls", (*answers, adding.NewAnswer("no", {"model": "c"})), priority=0.75)
    adding.add_tasks(pair.store, pair.project, [whole])
    ada, bob, lead = pair.person("ada"), pair.person("bob"), pair.person("lea", "reviewer")
    old, _ = report(pair, ada)
    new = reviews.edit_prompt(pair.store, pair.project, old, "call them", lead.id)
    assert handled(pair) == [("ada", "edited")]
    given = claim(pair, ada)
    assert (given.id, [turn["content"] for turn in given.messages]) == (new, ["hi", "yes?", "call them"])
    assert sorted(given.answers) == ["no", "yes"]
    assert claim(pair, bob).id == new
    with pair.store.read() as session:
        was, now = (reading.annotated_task(session, pair.project, task) for task in (old, new))
        assert was is not None
        assert now is not None
        assert (was.status, len(was.annotations)) == ("closed", 1)
        assert (now.source, now.required, now.priority) == ("calls", 2, 0.75)
        assert [answer.makers for answer in now.answers] == [answer.makers for answer in was.answers]
        event = session.scalars(select(Event).where(Event.verb == reviews.EDITED)).one()
        assert (event.person_id, event.subject, event.data) == (lead.id, str(old), {"task": new})
    assert reviews.edit_prompt(pair.store, pair.project, old, "call them", lead.id) == new  # a double click
    for text in ("", " \n", "call 0123"):
        with pytest.raises(Refused, match="text"):
            reviews.edit_prompt(pair.store, pair.project, old, text, lead.id)
    with pytest.raises(Refused, match="no ranking task"):
        reviews.edit_prompt(pair.store, pair.project + 1, old, "x", lead.id)
    assert reviews.edit_prompt(pair.store, pair.project, new, "call 0123", lead.id) == old  # it was right at first
    assert [row(pair, task).status for task in (old, new)] == ["open", "closed"]


def test_a_prompt_that_becomes_that_of_another_task_leaves_its_rankings_enough(pair: Office) -> None:
    pair.tasks(1)
    ada, bob, lead = pair.person("ada"), pair.person("bob"), pair.person("lea", "reviewer")
    old, _ = report(pair, ada)
    new = reviews.edit_prompt(pair.store, pair.project, old, "better", lead.id)
    for one in (ada, bob):
        rank(pair, one, claim(pair, one))
    tasks.reopen_task(pair.store, old, lead.id)
    reviews.send_back(pair.store, pair.project, new, lead.id)
    assert reviews.edit_prompt(pair.store, pair.project, old, "better", lead.id) == new
    assert (row(pair, new).required, row(pair, new).status) == (3, "open")
    assert_counts(pair)


def test_the_beginnings_of_many_prompts(pair: Office) -> None:
    pair.tasks(3)
    ids = queue_of(pair)
    with pair.store.read() as session:
        found = reviews.beginnings(session, ids)
        assert reviews.beginnings(session, []) == {}
    assert set(found) == set(ids)
    assert set(found.values()) == {"rank 0", "rank 1", "rank 2"}


# --------------------------------------------------------------------------------------------------------- adjudication


def final_of(office: Office, task: int) -> list[str]:
    with office.store.read() as session:
        found = reading.annotated_task(session, office.project, task)
        assert found is not None
        return [annotation.person for annotation in found.annotations if annotation.final]


def disputed(office: Office) -> int:
    office.tasks(1)
    say(office, office.person("ada"), 1, 2, 3, 4)
    return say(office, office.person("bob"), 4, 3, 2, 1)


def adjudicated(office: Office, task: int, by: PersonInfo, *ranks: int) -> work.Saved:
    given = reviews.adjudicate(office.store, office.project, task, by.id)
    return work.submit(office.store, by.id, new_id(), given.id, given.lease, ranking(*ranks))


def test_a_reviewer_decides_a_task_by_their_own_ranking(pair: Office, clock: Clock) -> None:
    task = disputed(pair)
    lead = pair.person("lea", "reviewer")
    given = reviews.adjudicate(pair.store, pair.project, task, lead.id)
    assert reviews.adjudicate(pair.store, pair.project, task, lead.id).lease == given.lease  # a reload
    assert (given.id, given.status, len(given.answers)) == (task, None, 4)
    clock.now += 3600
    assert tasks.heartbeat(pair.store, lead.id, task, given.lease) == clock.now + 900  # though all places are taken
    work.submit(pair.store, lead.id, new_id(), task, given.lease, ranking(1, 1, 2, 2))
    assert final_of(pair, task) == ["lea"]
    assert (row(pair, task).n_done, row(pair, task).required, row(pair, task).status) == (2, 2, "done")
    assert decided(pair) == {task}
    undone = work.undo(pair.store, pair.project, lead.id)
    assert undone is not None
    assert undone.expires_at > clock.now
    assert (final_of(pair, task), decided(pair)) == ([], set())
    work.submit(pair.store, lead.id, new_id(), task, undone.lease, ranking(2, 2, 1, 1))
    assert final_of(pair, task) == ["lea"]
    assert_counts(pair)
    assert events.verify(pair.store).problems == ()


def test_the_last_reviewer_decides(pair: Office) -> None:
    task = disputed(pair)
    lea, max_ = pair.person("lea", "reviewer"), pair.person("max", "admin")
    first = adjudicated(pair, task, lea, 1, 2, 3, 4)
    second = adjudicated(pair, task, max_, 4, 3, 2, 1)
    assert final_of(pair, task) == ["max"]
    work.revise(pair.store, lea.id, first.id, ranking(1, 1, 1, 2))  # decides nothing any more
    assert final_of(pair, task) == ["max"]
    with pair.store.read() as session:
        said = session.execute(select(Event.subject, Event.data).where(Event.verb == "final").order_by(Event.seq))
        assert said.all() == [(str(task), {"annotation": id}) for id in (first.id, second.id)]
    work.undo(pair.store, pair.project, max_.id, second.id)
    assert final_of(pair, task) == []


def test_a_reviewer_who_ranked_the_task_before_keeps_their_place_and_decides(store: Store) -> None:
    office = Office(store, overlap=2)
    office.tasks(1)
    lea = office.person("lea", "reviewer")
    task = say(office, lea, 1, 2, 3, 4)
    say(office, office.person("ada"), 4, 3, 2, 1)
    assert final_of(office, task) == []
    adjudicated(office, task, lea, 1, 2, 3, 4)  # the same again
    assert final_of(office, task) == ["lea"]
    assert row(office, task).n_done == 2
    assert_counts(office)


def test_deciding_takes_no_place_from_others(pair: Office) -> None:
    pair.tasks(1)
    ada, bob, lead = pair.person("ada"), pair.person("bob"), pair.person("lea", "reviewer")
    task = say(pair, ada, 1, 2, 3, 4)
    adjudicated(pair, task, lead, 4, 3, 2, 1)
    given = reviews.adjudicate(pair.store, pair.project, task, lead.id)
    assert given.payload == ranking(4, 3, 2, 1)
    assert say(pair, bob, 1, 2, 3, 4) == task
    assert row(pair, task).n_done == 2
    tasks.close_task(pair.store, task)
    with pytest.raises(Refused, match="closed"):
        reviews.adjudicate(pair.store, pair.project, task, lead.id)
    assert_counts(pair)


def test_of_reviewers_who_decide_at_once_one_does(pair: Office) -> None:
    task = disputed(pair)
    crew = [pair.person(f"reviewer {index}", "reviewer") for index in range(6)]
    at_once(6, lambda index: adjudicated(pair, task, crew[index], 1, 2, 3, 4))
    (name,) = final_of(pair, task)
    with pair.store.read() as session:
        last = session.scalars(select(Event).where(Event.verb == "final").order_by(Event.seq.desc())).first()
        assert last is not None
        assert last.person_id == next(one.id for one in crew if one.name == name)
    assert_counts(pair)
    assert events.verify(pair.store).problems == ()
