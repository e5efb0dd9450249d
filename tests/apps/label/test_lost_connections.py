"""Killed servers and lost networks: the draft stays, "Saved" is said only of what is in the database, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Server
from browsing import Desk, said
from processes import Served
from served import PASSWORD, Place, project_in

from apps.store import sessions, work
from apps.store.errors import Unavailable
from apps.store.project import Project
from apps.store.tables import Revision

pytestmark = pytest.mark.slow


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[tuple[Served, Place]]:
    """A project served by a process of its own, and a view of its database from here."""
    served = Served(tmp_path, str(tmp_path / "labels.db"), ["ada"], 3, 4, overlap=2)
    project = project_in(tmp_path, name="served", database=served.database, overlap=2)
    served.start()
    served.wait()
    yield served, Place(project, None)  # type: ignore[arg-type]
    served.kill()
    project.store.close()


def token(project: Project, name: str) -> str:
    return sessions.login(project.store, name, PASSWORD, "10.0.0.1")


def network_errors(desk: Desk) -> list[str]:
    """Chromium notes each request that failed; takes these notes away and returns them."""
    noted = [error for error in desk.errors if "net::ERR_" in error or "status of 503" in error]
    desk.errors = [error for error in desk.errors if error not in noted]
    return noted


def fill_in(desk: Desk) -> None:
    for slot in range(4):
        desk.rate(slot, 1 + slot)
        desk.drag(slot, 4 - slot)


def test_a_killed_server_loses_no_draft_and_no_ranking(browser: Any, killable: tuple[Served, Place]) -> None:
    process, view = killable
    desk = Desk(browser, process.url, token(view.project, "ada")).open()
    texts = desk.texts()
    desk.rate(0, 7)
    desk.page.locator(".status", has_text="Draft saved").wait_for()
    process.kill()
    fill_in(desk)
    desk.page.locator(".status", has_text="kept in this browser").wait_for()
    desk.page.get_by_role("button", name="Submit").dblclick()
    desk.page.locator(".problem", has_text="Not saved yet").wait_for()
    assert desk.page.locator(".toast", has_text="Saved").count() == 0
    assert said(view, "ada") == []
    process.start()
    process.wait()
    desk.page.get_by_role("button", name="Try now").click()
    desk.saved()
    ((status, payload),) = said(view, "ada")
    assert status == "submitted"
    assert [payload["ranks"][text] for text in texts] == [4, 3, 2, 1]
    desk.page.goto("about:blank")
    process.stop()
    assert network_errors(desk)
    assert desk.context.cookies()[0]["value"] not in process.log.read_text()
    desk.close()


def test_a_page_that_is_left_while_the_server_is_gone_finds_its_work_again(
    browser: Any, killable: tuple[Served, Place]
) -> None:
    process, view = killable
    desk = Desk(browser, process.url, token(view.project, "ada")).open()
    process.kill()
    fill_in(desk)
    desk.page.get_by_role("button", name="Submit").click()
    desk.page.locator(".problem", has_text="Not saved yet").wait_for()
    desk.page.goto("about:blank")
    process.start()
    process.wait()
    network_errors(desk)
    desk.page.goto(f"{process.url}/app/")
    desk.saved()
    assert len(said(view, "ada")) == 1
    desk.close()


def full(*_: Any) -> None:
    raise Unavailable("the database's disk is full; nothing was saved, make room and try again")


@pytest.fixture
def served(make_place: Callable[..., Place]) -> Iterator[tuple[Place, Server]]:
    place = make_place(overlap=9)
    place.tasks(3)
    place.member("bob")
    server = Server(place.app)
    yield place, server
    server.stop()


def test_without_a_network_the_page_goes_on(browser: Any, served: tuple[Place, Server]) -> None:
    place, server = served
    desk = Desk(browser, server.url, place.token("bob")).open()
    desk.context.set_offline(True)
    fill_in(desk)
    desk.page.locator(".status", has_text="kept in this browser").wait_for()
    desk.context.set_offline(False)
    desk.page.locator(".status", has_text="Draft saved").wait_for()
    desk.context.set_offline(True)
    desk.page.keyboard.press("Control+Enter")
    desk.page.keyboard.press("Control+Enter")
    desk.page.locator(".problem", has_text="Not saved yet").wait_for()
    desk.context.set_offline(False)  # the browser notices, and it is sent again
    desk.saved()
    assert [status for status, _ in said(place, "bob")] == ["submitted"]
    assert network_errors(desk)
    desk.close()


def test_what_the_server_has_not_seen_is_in_this_browser_for_its_person_alone(
    browser: Any, served: tuple[Place, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, server = served
    place.member("cleo")
    desk = Desk(browser, server.url, place.token("bob")).open()
    with monkeypatch.context() as patched:
        patched.setattr(work, "save_draft", full)
        fill_in(desk)
        desk.page.locator(".status", has_text="kept in this browser").wait_for()
        desk.open()
        assert desk.rows() == {4: [0], 3: [1], 2: [2], 1: [3]}
        bobs = desk.context.cookies()[0]
        desk.context.add_cookies([{**bobs, "value": place.token("cleo")}])
        assert desk.open().rows() == {0: [0, 1, 2, 3]}
        desk.context.add_cookies([bobs])
    assert desk.open().rows() == {4: [0], 3: [1], 2: [2], 1: [3]}
    desk.page.locator(".status", has_text="Draft saved").wait_for()
    network_errors(desk)
    desk.close()


def test_an_answer_that_is_lost_on_the_way_is_no_second_ranking(browser: Any, served: tuple[Place, Server]) -> None:
    place, server = served
    desk = Desk(browser, server.url, place.token("bob")).open()
    lost: list[int] = []

    def lose(route: Any) -> None:
        answer = route.fetch()  # it arrives at the server, and its answer does not arrive here
        lost.append(answer.status)
        route.abort() if len(lost) < 3 else route.fulfill(response=answer)

    desk.page.route("**/api/submit", lose)
    fill_in(desk)
    desk.page.get_by_role("button", name="Submit").click()
    desk.saved()
    assert lost == [200, 200, 200]
    assert len(said(place, "bob")) == 1
    with place.project.store.read() as session:
        assert session.query(Revision).count() == 1
    network_errors(desk)
    desk.close()


def test_a_full_disk_is_told_and_the_draft_kept(browser: Any, killable: tuple[Served, Place]) -> None:
    process, view = killable
    desk = Desk(browser, process.url, token(view.project, "ada")).open()
    process.limit_files(0)
    fill_in(desk)
    desk.page.locator(".status", has_text="disk is full or fails").wait_for()
    desk.page.get_by_role("button", name="Submit").click()
    desk.page.locator(".problem", has_text="Not saved yet: The database's disk is full or fails.").wait_for()
    assert said(view, "ada") == []
    process.limit_files(-1)
    desk.saved()  # it tries again by itself
    assert len(said(view, "ada")) == 1
    assert network_errors(desk)
    desk.close()
