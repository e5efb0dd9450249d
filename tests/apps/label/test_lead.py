"""The lead's figures: what is kept and for how long, what a decision changes, what the tables say."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from offices import Office, new_id, ranking

from apps.label import lead as lead_module
from apps.label import tables
from apps.label.lead import Lead
from apps.store import people, reviews, tasks, work
from apps.store.engine import Store
from apps.store.project import Project, Recipe
from apps.store.reading import annotated_task


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
    assert isinstance(given, tasks.TaskView)
    payload = ranking(*(order[int(text.split()[1])] for text in given.answers))
    work.submit(office.store, who.id, new_id(), given.id, given.lease, payload, 60.0)
    return given.id


def differ(office: Office) -> int:
    """A task that bob and cyd rank in opposite orders."""
    task = say(office, "bob", (1, 2, 3, 4))
    assert say(office, "cyd", (4, 3, 2, 1)) == task
    return task


def test_figures_are_kept_for_ten_seconds_and_ten_times_as_long_as_they_took(
    office: Office, lead: Lead, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.tasks(3)
    first = lead.view()
    assert first.summary.n_rankings == 0
    say(office, "bob", (1, 2, 3, 4))
    watch.now = 9.9
    assert lead.view() == first
    real = lead_module.summarise

    def slow(*arguments: Any) -> Any:
        watch.now += 30
        return real(*arguments)

    monkeypatch.setattr(lead_module, "summarise", slow)
    watch.now = 10
    second = lead.view()
    assert (second.summary.n_rankings, second.took_s, watch.now) == (1, 30, 40)
    say(office, "cyd", (1, 2, 3, 4))
    watch.now = 40 + 299
    assert lead.view() == second
    watch.now = 40 + 300
    assert lead.view().summary.n_rankings == 2


def test_who_asks_meanwhile_waits_and_nothing_is_computed_twice(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    real, times, go_on = lead_module.summarise, [], threading.Event()

    def slow(*arguments: Any) -> Any:
        times.append(1)
        go_on.wait(30)
        return real(*arguments)

    monkeypatch.setattr(lead_module, "summarise", slow)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(lead.view())) for _ in range(3)]
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
    rita = people.by_name(office.store, "rita").id
    first, second = sorted([differ(office), differ(office)])
    assert [one.task for one in lead.view().summary.disputes] == [first, second]
    reviews.accept_task(office.store, office.project, first, rita)
    assert [one.task for one in lead.view().summary.disputes] == [second]
    assert reviews.send_back(office.store, office.project, second, rita) == 3
    assert lead.view().summary.disputes == ()
    watch.now = 1000
    assert lead.view().summary.disputes == ()
    assert say(office, "dan", (1, 2, 3, 4)) == second
    watch.now = 2000
    (again,) = lead.view().summary.disputes
    assert (again.task, again.n_people) == (second, 3)


def test_a_task_is_shown_with_everybodys_ranks_by_answer(office: Office) -> None:
    office.tasks(1)
    with office.store.read() as session:
        task = annotated_task(session, office.project, differ(office))
    assert task is not None
    headings, rows = tables.rankings(task)
    assert headings == ["person", "", "answer 1", "answer 2", "answer 3", "answer 4", "time"]
    assert rows == [["bob", "ranked", "1", "2", "3", "4", "60 s"], ["cyd", "ranked", "4", "3", "2", "1", "60 s"]]
    remarks = tables.remarks(task)
    assert [row[:3] for row in remarks] == [[name, f"answer {n}", "4"] for name in ("bob", "cyd") for n in range(1, 5)]
    assert {len(row) for row in remarks} == {len(tables.REMARKS)}


def test_every_table_has_a_cell_for_each_column_and_every_figure_is_an_image(office: Office, lead: Lead) -> None:
    office.tasks(4)
    for _ in range(3):
        differ(office)
    sections = tables.sections(lead.view())
    assert set(sections) == {"progress", "agreement", "habits", "gold", "models"}
    parts = [part for section in sections.values() for part in section]
    made = [part for part in parts if "columns" in part]
    for one in made:
        assert all(len(row) == len(one["columns"]) for row in one["rows"]), one["title"]
        assert all(isinstance(cell, str) for row in one["rows"] for cell in row), one["title"]
    empty = ["Flags", "Gold tasks, hardest first", "Leaderboard"]
    assert sorted(one["title"] for one in made if not one["rows"]) == empty
    sources = [part["src"] for part in parts if "src" in part]
    assert len(sources) == 6
    assert all(source == "" or source.startswith("data:image/svg+xml;base64,") for source in sources)
