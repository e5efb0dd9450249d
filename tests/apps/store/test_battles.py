"""A task made for one person, with the answers in the order in which they saw them."""

from __future__ import annotations

from typing import Any

from offices import Office, assert_counts, at_once, new_id, row
from sqlalchemy import func, select

from apps.store import adding, events, tasks, work
from apps.store.adding import NewAnswer, NewPrompt
from apps.store.battles import task_for_battle
from apps.store.tables import Output, Task
from apps.store.tasks import NoTask


def pair(question: str, *answers: tuple[str, str]) -> NewPrompt:
    made = tuple(NewAnswer(text, {"model": model}) for text, model in answers)
    return NewPrompt([{"role": "user", "content": question}], "arena", made)


def vote(office: Office, person: int, given: tasks.TaskView, winner: str, vote_id: str = "") -> work.Saved:
    ranks = {str(slot): 1 if text == winner else 2 for slot, text in enumerate(given.answers)}
    payload = {"answers": {}, "ranks": ranks, "all_bad": False}
    return work.submit(office.store, person, vote_id or new_id(), given.id, given.lease, payload)


def arena(office: Office) -> Office:
    return Office(office.store, questions={"rating": {"ask": False}, "flags": ()})


def test_the_answers_come_in_the_order_that_was_seen(office: Office) -> None:
    office = arena(office)
    ada, bob = office.person("ada").id, office.person("bob").id
    one, other = ("x", "sft"), ("y", "ppo")
    first = task_for_battle(office.store, office.project, ada, pair("q", one, other))
    second = task_for_battle(office.store, office.project, bob, pair("q", other, one))
    assert (first.answers, second.answers) == (["x", "y"], ["y", "x"])
    assert first.id == second.id
    again = task_for_battle(office.store, office.project, ada, pair("q", other, one))
    assert again.answers == ["x", "y"]  # as they were given it before


def test_a_vote_counts_once_and_is_in_the_chain_of_events(office: Office) -> None:
    office = arena(office)
    ada = office.person("ada").id
    given = task_for_battle(office.store, office.project, ada, pair("q", ("x", "sft"), ("y", "ppo")))
    vote_id = new_id()
    saved = at_once(6, lambda _: vote(office, ada, given, "y", vote_id))
    assert [one.revision for one in saved] == [1] * 6
    assert row(office, given.id).status == "done"
    assert isinstance(tasks.claim(office.store, office.project, ada), NoTask)
    assert_counts(office)
    assert not events.verify(office.store).problems


def test_a_task_has_exactly_these_answers_whatever_waits_at_its_prompt(office: Office) -> None:
    office = arena(office)
    ada = office.person("ada").id
    adding.add_tasks(office.store, office.project, [pair("q", ("alone", "base"))])
    first = task_for_battle(office.store, office.project, ada, pair("q", ("x", "sft"), ("y", "ppo")))
    second = task_for_battle(office.store, office.project, ada, pair("q", ("x", "base"), ("z", "ppo")))
    assert (first.answers, second.answers) == (["x", "y"], ["x", "z"])
    with office.store.read() as session:
        makers: dict[str, Any] = dict(session.execute(select(Output.text, Output.makers)).tuples().all())
    assert makers["x"] == [{"model": "sft"}, {"model": "base"}]  # one text, however many gave it


def test_people_who_meet_make_one_task(office: Office) -> None:
    office = arena(office)
    members = [office.person(f"person {n}").id for n in range(6)]
    prompt = pair("q", ("x", "sft"), ("y", "ppo"))
    given = at_once(6, lambda n: task_for_battle(office.store, office.project, members[n], prompt))
    assert len({one.id for one in given}) == 1
    with office.store.read() as session:
        assert session.scalar(select(func.count()).select_from(Task)) == 1
    for person, one in zip(members, given, strict=True):
        vote(office, person, one, "x")
    assert row(office, given[0].id).n_done == 1  # overlap 1: the others are kept beside it
    assert_counts(office)
