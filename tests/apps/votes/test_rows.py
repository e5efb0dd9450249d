"""What people said, read back as rows: by answer and not by slot, the latest version, nothing that was taken back."""

from __future__ import annotations

import tracemalloc

import pytest
from offices import Office, claim, new_id, prompt, ranking

from apps.label.summary import summarise
from apps.store import adding, queue, reviews, tasks, work
from apps.store.engine import Store
from apps.store.people import PersonInfo
from apps.votes import rows
from apps.votes.labels import Label


def read(office: Office) -> list[Label]:
    with office.store.read() as session:
        return list(rows.labels(session, office.project))


def say(
    office: Office, person: PersonInfo, order: dict[str, int], seconds: float = 30.0, **more: object
) -> tasks.TaskView:
    """Ranks the next task by a rank for each answer's text."""
    given = claim(office, person)
    payload = ranking(*(order[text[:8]] for text in given.answers)) | more
    work.submit(office.store, person.id, new_id(), given.id, given.lease, payload, seconds)
    return given


ORDER = {"answer 0": 3, "answer 1": 1, "answer 2": 1, "answer 3": 4}


@pytest.fixture
def busy(store: Store) -> Office:
    return Office(store, overlap=3)


def test_ranks_are_the_answers_and_places_are_where_they_stood(busy: Office) -> None:
    busy.tasks(1)
    people = [busy.person(name) for name in ("ada", "bob", "cyd")]
    given = [say(busy, person, ORDER) for person in people]
    found = read(busy)
    assert [label.person for label in found] == ["ada", "bob", "cyd"]
    assert {label.ranks for label in found} == {(2, 1, 1, 3)}  # without gaps
    assert {label.models for label in found} == {tuple((f"model {n}",) for n in range(4))}
    for label, own in zip(found, given, strict=True):
        shown = [own.answers[place] for place in label.places]
        assert [text[:8] for text in shown] == [f"answer {n}" for n in range(4)]
    assert len({label.places for label in found}) > 1
    assert {(label.kind, label.status, label.seconds, label.all_bad) for label in found} == {
        ("rank", "submitted", 30.0, False)
    }


def test_whether_the_task_is_closed_and_who_decided_it(busy: Office) -> None:
    busy.tasks(2)
    ada, lea = busy.person("ada"), busy.person("lea", "reviewer")
    first, second = (say(busy, ada, ORDER) for _ in range(2))
    given = reviews.adjudicate(busy.store, busy.project, first.id, lea.id)
    work.submit(busy.store, lea.id, new_id(), given.id, given.lease, ranking(1, 2, 3, 4))
    tasks.close_task(busy.store, second.id)
    found = {(label.task, label.person): (label.closed, label.final) for label in read(busy)}
    assert found == {
        (first.id, "ada"): (False, False),
        (first.id, "lea"): (False, True),
        (second.id, "ada"): (True, False),
    }


def test_the_latest_version_counts_and_the_longest_time(busy: Office) -> None:
    busy.tasks(1)
    ada = busy.person("ada")
    say(busy, ada, ORDER, seconds=60)
    (past,) = work.history(busy.store, busy.project, ada.id)
    work.revise(busy.store, ada.id, past.id, ranking(1, 1, 1, 1, rating=7), seconds=2)
    (label,) = read(busy)
    assert (label.ranks, label.ratings, label.seconds) == ((1, 1, 1, 1), (7, 7, 7, 7), 60)


def test_what_was_passed_by_has_a_status_and_what_was_taken_back_is_not_there(busy: Office) -> None:
    busy.tasks(3)
    ada = busy.person("ada")
    first, second = claim(busy, ada), None
    work.skip(busy.store, ada.id, new_id(), first.id, first.lease, "too long")
    second = claim(busy, ada)
    work.flag(busy.store, ada.id, new_id(), second.id, second.lease, "no sense")
    say(busy, ada, ORDER)
    work.undo(busy.store, busy.project, ada.id)
    found = read(busy)
    assert [(label.task, label.status, label.ranks, label.ratings) for label in found] == [
        (first.id, "skipped", None, ()),
        (second.id, "flagged", None, ()),
    ]


def test_all_bad_may_have_no_ranks_and_flags_are_by_answer(busy: Office) -> None:
    busy.tasks(1)
    ada = busy.person("ada")
    given = claim(busy, ada)
    payload = ranking(1, 2, 3, 4) | {"ranks": None, "all_bad": True}
    bad = next(slot for slot, text in enumerate(given.answers) if text.startswith("answer 2"))
    payload["answers"][str(bad)]["flags"] = ["violent", "sexual"]
    work.submit(busy.store, ada.id, new_id(), given.id, given.lease, payload)
    (label,) = read(busy)
    assert (label.ranks, label.all_bad) == (None, True)
    assert [set(flags) for flags in label.flags] == [set(), set(), {"violent", "sexual"}, set()]


def test_gold_tasks_have_what_is_expected(busy: Office) -> None:
    gold = Office(busy.store, gold={"share": 0.999_999})
    gold.tasks(1, kind="gold", expected=(1, 2, 3, 4))
    ada = gold.person("ada")
    say(gold, ada, {"answer 0": 1, "answer 1": 2, "answer 2": 3, "answer 3": 4})
    (label,) = read(gold)
    assert (label.kind, label.expected, label.ranks) == ("gold", (1, 2, 3, 4), (1, 2, 3, 4))
    assert summarise([label]).gold.mean == 1


def test_an_answer_has_all_models_that_gave_it_each_once(busy: Office) -> None:
    answers = [("x", "a"), ("x", "b"), ("x", "a"), ("y", "a"), ("z", "")]
    made = tuple(adding.NewAnswer(text, {"model": model, "seed": n}) for n, (text, model) in enumerate(answers))
    adding.add_tasks(busy.store, busy.project, [adding.NewPrompt([{"role": "user", "content": "p"}], "", made)], "rank")
    queue.draw(busy.store, busy.project)
    ada = busy.person("ada")
    given = claim(busy, ada)
    work.submit(busy.store, ada.id, new_id(), given.id, given.lease, ranking(1, 2, 3))
    (label,) = read(busy)
    assert sorted(label.models) == [(), ("a",), ("a", "b")]


def test_portions_leave_nothing_out_and_another_project_stays_out(
    busy: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy.tasks(7)
    ada, bob = busy.person("ada"), busy.person("bob")
    for person in (ada, bob):
        for _ in range(7):
            say(busy, person, ORDER)
    whole = read(busy)
    monkeypatch.setattr(rows, "N_AT_ONCE", 5)
    assert read(busy) == whole
    assert len(whole) == 14
    other = Office(busy.store)
    other.project += 1
    assert read(other) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_tasks(busy: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "N_AT_ONCE", 5)
    many = [prompt(f"question {n}" + "x" * 10_000, 4) for n in range(100)]
    adding.add_tasks(busy.store, busy.project, many, "rank")
    queue.draw(busy.store, busy.project)
    ada = busy.person("ada")
    for _ in range(100):
        say(busy, ada, ORDER, comment="y" * 10_000)
    with busy.store.read() as session:
        for _ in rows.labels(session, busy.project):  # once, so that what is cached is there
            pass
        tracemalloc.start()
        for _ in rows.labels(session, busy.project):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000  # the prompts are a million characters, and so are the comments
