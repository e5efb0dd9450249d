"""What the lead's page may ask for: who is asked for a role each time, what is kept, what a decision changes."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any

import pytest
from offices import Office, new_id, ranking

from apps.label import lead as lead_module
from apps.label import tables
from apps.label.lead import Lead, NotAllowed
from apps.store import people, tasks, work
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.project import Project, Recipe


class Watch:
    """A clock of seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def office(tmp_path: Path) -> Any:
    store = Store.open(str(tmp_path / "labels.db"))
    made = Office(store, overlap=2)
    made.person("ada", "admin")
    made.person("rita", "reviewer")
    for name in ("bob", "cyd", "dan"):
        made.person(name)
    yield made
    store.close()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def lead(office: Office, watch: Watch) -> Lead:
    recipe = Recipe(name="office", database="labels.db", overlap=2)
    return Lead(Project(recipe, office.store, office.project), watch)


def say(office: Office, name: str, order: tuple[int, ...]) -> int:
    """Ranks the next task: `order` has a rank for each answer of the task. Returns the task's id."""
    who = people.by_name(office.store, name)
    given = tasks.claim(office.store, office.project, who.id)
    assert isinstance(given, tasks.Given)
    payload = ranking(*(order[int(text.split()[1])] for text in given.answers))
    work.submit(office.store, who.id, new_id(), given.id, given.lease, payload, 60.0)
    return given.id


def differ(office: Office) -> int:
    """A task that bob and cyd rank in opposite orders."""
    task = say(office, "bob", (1, 2, 3, 4))
    assert say(office, "cyd", (4, 3, 2, 1)) == task
    return task


ARGUMENTS = {"task_id": 1, "role": "annotator", "name": "bob", "days": 7, "active": False}
ADMINS = {"invite", "reset", "set_active", "revoke", "set_role"}


def questions() -> list[str]:
    """Every function that takes who asks."""
    members = inspect.getmembers(Lead, inspect.isfunction)
    return [name for name, member in members if "asks" in inspect.signature(member).parameters]


def ask(lead: Lead, question: str, asks: str | None) -> Any:
    function = getattr(lead, question)
    arguments = ARGUMENTS | ({"name": "eve"} if question == "invite" else {})
    return function(asks, *(arguments[name] for name in inspect.signature(function).parameters if name in arguments))


def test_every_function_that_can_be_reached_asks_who_asks() -> None:
    public = {name for name, _ in inspect.getmembers(Lead, inspect.isfunction) if not name.startswith("_")}
    assert public == set(questions())
    assert public > ADMINS


@pytest.mark.parametrize("question", questions())
@pytest.mark.parametrize("asks", [None, "", "nobody", "bob", "gone"])
def test_nobody_else_gets_an_answer(office: Office, lead: Lead, question: str, asks: str | None) -> None:
    office.person("gone", "admin")
    people.set_active(office.store, "gone", False)
    before = people.listed(office.store), people.waiting(office.store)
    with pytest.raises(NotAllowed):
        ask(lead, question, asks)
    assert (people.listed(office.store), people.waiting(office.store)) == before


@pytest.mark.parametrize("question", sorted(ADMINS))
def test_reviewers_manage_nobody(office: Office, lead: Lead, question: str) -> None:
    with pytest.raises(NotAllowed, match="admin only"):
        ask(lead, question, "rita")
    assert people.by_name(office.store, "bob").active
    ask(lead, question, "ada")


def test_a_role_that_was_taken_away_counts_at_once(office: Office, lead: Lead) -> None:
    lead.page("rita")
    people.set_role(office.store, "rita", "annotator")
    with pytest.raises(NotAllowed):
        lead.page("rita")


def test_figures_are_kept_for_ten_seconds_and_ten_times_as_long_as_they_took(
    office: Office, lead: Lead, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.tasks(3)
    first = lead.view("rita")
    assert first.summary.n_rankings == 0
    say(office, "bob", (1, 2, 3, 4))
    watch.now = 9.9
    assert lead.view("ada") == first
    real = lead_module.summarise

    def slow(*arguments: Any) -> Any:
        watch.now += 30
        return real(*arguments)

    monkeypatch.setattr(lead_module, "summarise", slow)
    watch.now = 10
    second = lead.view("rita")
    assert (second.summary.n_rankings, second.took_s, watch.now) == (1, 30, 40)
    say(office, "cyd", (1, 2, 3, 4))
    watch.now = 40 + 299
    assert lead.view("rita") == second
    watch.now = 40 + 300
    assert lead.view("rita").summary.n_rankings == 2


def test_who_asks_meanwhile_waits_and_nothing_is_computed_twice(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    real, times, go_on = lead_module.summarise, [], threading.Event()

    def slow(*arguments: Any) -> Any:
        times.append(1)
        go_on.wait(30)
        return real(*arguments)

    monkeypatch.setattr(lead_module, "summarise", slow)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(lead.view("ada"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert len(times) == 1
    assert len(found) == 3
    assert found[0] == found[1] == found[2]


def test_a_dispute_is_gone_as_soon_as_it_is_decided(office: Office, lead: Lead, watch: Watch) -> None:
    office.tasks(2)
    first, second = sorted([differ(office), differ(office)])
    assert [one.task for one in lead.view("rita").summary.disputes] == [first, second]
    assert f"Task {first} is accepted" in lead.accept("rita", first)
    assert [one.task for one in lead.view("ada").summary.disputes] == [second]
    assert "one more person: 3 in all" in lead.send_back("rita", second)
    assert lead.view("rita").summary.disputes == ()
    watch.now = 1000
    assert lead.view("rita").summary.disputes == ()  # the database knows too
    assert say(office, "dan", (1, 2, 3, 4)) == second
    watch.now = 2000
    (again,) = lead.view("rita").summary.disputes
    assert (again.task, again.n_people) == (second, 3)


def test_what_cannot_be_decided_is_refused(office: Office, lead: Lead) -> None:
    office.tasks(1)
    task = say(office, "bob", (1, 2, 3, 4))
    with pytest.raises(Refused, match="waits for 1 more already"):
        lead.send_back("rita", task)
    with pytest.raises(Refused, match="no task 99"):
        lead.accept("rita", 99)
    with pytest.raises(Refused, match="no task 99"):
        lead.task("rita", 99)


def test_a_task_is_shown_with_everybodys_ranks_by_answer(office: Office, lead: Lead) -> None:
    office.tasks(1)
    task = lead.task("rita", differ(office))
    headings, rows = tables.rankings(task)
    assert headings == ["person", "", "answer 1", "answer 2", "answer 3", "answer 4", "time"]
    assert rows == [["bob", "ranked", "1", "2", "3", "4", "60 s"], ["cyd", "ranked", "4", "3", "2", "1", "60 s"]]
    assert [row[:3] for row in tables.remarks(task)] == [
        [name, f"answer {n}", "4"] for name in ("bob", "cyd") for n in range(1, 5)
    ]


def test_the_page_lists_everybody_and_who_is_invited(office: Office, lead: Lead) -> None:
    office.tasks(1)
    differ(office)
    lead.invite("ada", "annotator", "eve", 7)
    lead.invite("ada", "reviewer", None, 7)
    lead.set_active("ada", "dan", False)
    page = lead.page("rita")
    rows = {row[0]: row[1:] for row in tables.people(page)}
    assert rows["bob"][:4] == ["annotator", "1", "0", "0"]
    assert rows["dan"][0] == "annotator, shut out"
    assert rows["eve"][0].startswith("annotator, invited until ")
    unnamed = page.invited[1].id
    assert rows[f"{unnamed} (they choose)"][0].startswith("reviewer, invited until ")
    assert tables.names(page) == ["ada", "bob", "cyd", "dan", "rita", "eve", unnamed]
    assert lead.revoke("ada", unnamed) == f"{unnamed}: 1 sessions and invitations ended."
    assert unnamed not in tables.names(lead.page("rita"))
    assert page.asks.name == "rita"
    assert lead.revoke("ada", "eve") == "eve: 1 sessions and invitations ended."
    assert "eve" not in tables.names(lead.page("rita"))


def test_every_table_has_a_width_and_a_cell_for_each_column(office: Office, lead: Lead) -> None:
    office.tasks(4)
    for _ in range(3):
        differ(office)
    page = lead.page("ada")
    view, summary = page.view, page.view.summary
    made = {
        "PROGRESS": tables.progress(view.progress),
        "FIGURES": tables.agreement(summary) + tables.habits(summary),
        "PEOPLE": tables.people(page),
        "QUALITY": tables.quality(summary),
        "COUPLES": tables.couples(summary),
        "FLAGS": tables.flags(summary),
        "MODELS": tables.models(summary),
        "UNRANKED": tables.unranked(summary),
        "GOLDS": tables.golds(summary),
        "REMARKS": tables.remarks(lead.task("ada", summary.disputes[0].task)),
    }
    for name, rows in made.items():
        columns = getattr(tables, name)
        assert sum(int(width.rstrip("%")) for width in columns.values()) == 100, name
        assert all(len(row) == len(columns) and all(isinstance(cell, str) for cell in row) for row in rows), name
    assert [name for name, rows in made.items() if not rows] == ["FLAGS", "MODELS", "GOLDS"]
