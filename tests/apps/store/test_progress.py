"""How far a project is, and what each person did."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from offices import Clock, Office, claim, new_id, rank, ranking
from sqlalchemy import event

from apps.store import people, progress, work
from apps.store.people import PersonInfo
from apps.store.progress import covered, people_csv


def n_queries(office: Office) -> int:
    counted = []

    def count(*given: Any) -> None:
        counted.append(given[2])

    event.listen(office.store.engine, "before_cursor_execute", count)
    progress.progress(office.store, office.project)
    event.remove(office.store.engine, "before_cursor_execute", count)
    return len(counted)


def test_more_people_need_no_more_queries(office: Office) -> None:
    office.tasks(9)
    ann = office.person("Ann")
    rank(office, ann, claim(office, ann))
    first = n_queries(office)
    for name in "cdefg":
        somebody = office.person(name)
        rank(office, somebody, claim(office, somebody))
    assert n_queries(office) == first


def test_each_persons_figures(office: Office, clock: Clock) -> None:
    office.tasks(4)
    ann, bob = office.person("Ann"), office.person("Bob")
    for seconds in (10, 20, 60):
        given = claim(office, ann)
        work.submit(office.store, ann.id, new_id(), given.id, given.lease, ranking(1, 2, 3, 4), seconds)
        clock.now += 60
    given = claim(office, bob)
    work.flag(office.store, bob.id, new_id(), given.id, given.lease, "odd")
    found = {one.name: one for one in progress.progress(office.store, office.project).people}
    assert (found["Ann"].n_submitted, found["Ann"].median_seconds, found["Ann"].last_at) == (3, 20, clock.now - 60)
    assert (found["Bob"].n_flagged, found["Bob"].median_seconds, found["Bob"].last_at) == (1, None, clock.now)


def say(office: Office, clock: Clock, somebody: PersonInfo, seconds: float, **best: str) -> None:
    """Ranks the next task in a longer time than was spent on it; answer 0 is best, but where another is named."""
    given = claim(office, somebody)
    clock.now += 2 * seconds
    first = best.get(given.messages[0]["content"].replace(" ", "_"), "0")
    ranks = ranking(*(1 if f"answer {first} " in text else 2 for text in given.answers))
    work.submit(office.store, somebody.id, new_id(), given.id, given.lease, ranks, seconds)


def rows(office: Office, **window: float) -> dict[str, dict[str, str]]:
    found = list(csv.DictReader(people_csv(office.store, office.project, 0.7, **window).splitlines()))
    return {row["person"]: row for row in found}


@pytest.fixture
def worked(store: Any, clock: Clock) -> Office:
    """Two people do the same two tasks and a gold one, on two days; they differ on one, and the second fails gold."""
    office = Office(store, overlap=2, gold={"share": 1 - 1e-12})
    office.tasks(2)
    office.tasks(1, kind="gold", expected=(1, 2, 2, 2))
    ann, bob = office.person("Ann"), office.person("Bob")
    for _ in range(3):
        say(office, clock, ann, 300)
    clock.now += 86400
    for _ in range(3):
        say(office, clock, bob, 36, rank_1="1", gold_0="1")
    return office


def test_hours_and_quality_of_each_person(worked: Office, clock: Clock) -> None:
    ann, bob = rows(worked).values()
    assert (ann["person"], ann["hours"], ann["rankings"], ann["median_seconds"]) == ("Ann", "0.25", "3", "300.0")
    assert (ann["agreement"], ann["gold_tasks"], ann["gold"], ann["practice"]) == ("0.75", "1", "1.0", "")
    assert (bob["hours"], bob["agreement"], bob["gold"], bob["skipped"]) == ("0.03", "0.75", "0.0", "0")
    assert (ann["first_day"], bob["first_day"], bob["last_day"]) == ("2027-01-15", "2027-01-16", "2027-01-16")
    assert list(rows(worked, since=clock.now)) == ["Bob"]
    assert list(rows(worked, until=clock.now - 3600)) == ["Ann"]


def test_no_more_is_paid_than_time_went_by(worked: Office, clock: Clock) -> None:
    """Whatever a page claims: less than an hour for one thing, and two windows at once are one."""
    ann = people.by_name(worked.store, "Ann").id
    before = float(rows(worked)["Ann"]["hours"])
    first = work.history(worked.store, worked.project, ann)[-1].id
    clock.now += 10 * 3600
    for n in range(3):
        work.revise(worked.store, ann, first, ranking(*([1, 2, 3, 4] if n % 2 else [2, 1, 3, 4])), 86400)
    assert float(rows(worked)["Ann"]["hours"]) == before + 1


def test_a_name_is_no_formula(office: Office, clock: Clock) -> None:
    office.tasks(1)
    cell = '=HYPERLINK("//evil","pay")'
    say(office, clock, office.person(cell), 5)
    assert list(rows(office)) == [f"'{cell}"]


@pytest.mark.parametrize(
    ("spans", "total"), [([], 0), ([(0, 2), (5, 6)], 3), ([(1, 9), (0, 3), (2, 4)], 9), ([(3, 3)], 0)]
)
def test_time_that_overlaps_counts_once(spans: list[tuple[float, float]], total: float) -> None:
    assert covered(spans) == total
