"""The lead's page in a real browser: it shows what is there, runs nothing that it shows, and obeys the right people."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from attacks import CORPUS
from browser import Server
from browsing import Desk
from markdown_it import MarkdownIt
from offices import new_id, person, ranking
from served import Place

from apps.label.dashboard import literal
from apps.store import adding, people, queue, reviews, tasks, work
from apps.store.engine import Store
from apps.store.people import Somebody
from apps.store.tables import Task

NAMES = ("<img src=x onerror=pwned()>", "${pwned()}", "[x](javascript:pwned())")
SECONDS = 60_000  # for what a busy machine computes


class Live(NamedTuple):
    """A project that is served."""

    place: Place
    url: str

    @property
    def store(self) -> Store:
        return self.place.project.store

    def client(self, name: str) -> httpx.Client:
        cookies = {"align_label": self.place.token(name)}
        return httpx.Client(base_url=self.url, cookies=cookies, headers={"X-Align": "1"}, timeout=60)


@pytest.fixture
def live(make_place: Callable[..., Place]) -> Iterator[Live]:
    """Six tasks on which people with nasty names differ; every text is a nasty one."""
    place = make_place(overlap=2)
    store = place.project.store
    for name, role in (("ada", "admin"), ("rita", "reviewer"), ("bob", "annotator")):
        person(store, name, role)
    fill(store, place.project.id, [person(store, name) for name in NAMES])
    server = Server(place.app)
    yield Live(place, server.url)
    server.stop()


def fill(store: Store, project: int, by: list[Somebody]) -> None:
    texts = iter(CORPUS)
    prompts = []
    for n in range(6):
        answers = tuple(adding.NewAnswer(f"{next(texts)} answer {n} {k}", {"model": NAMES[k % 3]}) for k in range(4))
        prompts.append(adding.NewPrompt([{"role": "user", "content": f"prompt {n} {next(texts)}"}], "", answers))
    adding.add_tasks(store, project, prompts, "rank")
    queue.draw(store, project)
    for who, up in ((by[0], True), (by[1], False)):
        while isinstance(given := tasks.claim(store, project, who.id), tasks.Given):
            order = [int(text[-1]) + 1 for text in given.answers]
            payload = ranking(*(rank if up else 5 - rank for rank in order)) | {"comment": CORPUS[given.id]}
            payload["answers"]["0"] |= {"flags": ["violent"], "comment": CORPUS[-given.id]}
            work.submit(store, who.id, new_id(), given.id, given.lease, payload, 60.0)


@pytest.fixture
def open_page(live: Live, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the lead's page as somebody. At the end nothing may have run, been asked of another host, or gone wrong."""
    desks = []

    def opening(name: str, **settings: Any) -> Any:
        desk = Desk(browser, live.url, live.place.token(name), **settings)
        desks.append(desk)
        desk.context.expose_function("pwned", lambda *_: desk.errors.append("a text was run"))
        desk.page.on("dialog", lambda dialog: desk.errors.append(dialog.message))
        desk.page.goto(f"{live.url}/lead/")
        desk.page.get_by_text("computed in").wait_for(timeout=SECONDS)
        return desk.page

    yield opening
    for desk in desks:
        desk.close()


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def open_first_dispute(page: Any) -> None:
    tab(page, "Review")
    page.get_by_label("Tasks on which people differ").click()
    page.get_by_role("option").first.click()
    page.get_by_label("Answer 1").wait_for(timeout=SECONDS)


def shown(page: Any, label: str) -> str:
    return page.get_by_label(label, exact=True).input_value()


@pytest.mark.parametrize(
    "name", ["first round", "a_b *c* [x](y) <b>&amp;", "# 1. `x` ![i](//e.example/i)", "\\- ~a~ $x$"]
)
def test_the_projects_name_is_a_heading_of_plain_text(name: str) -> None:
    page = MarkdownIt("commonmark").render(f"# {literal(name)}")
    assert page == f"<h1>{html.escape(name)}</h1>\n"


def test_every_tab_shows_its_figures_and_no_text_is_more_than_text(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("ada")
    page.get_by_text("12 of 12 (100%)").last.wait_for()
    for name, words in (("Agreement", "pairwise agreement"), ("Habits", "Page's test"), ("Models", "Not ranked"),
                        ("People", "reviewer")):  # fmt: skip
        tab(page, name)
        page.get_by_text(words).first.wait_for(timeout=SECONDS)
    for name in NAMES[:2]:
        assert page.get_by_text(name, exact=True).count() > 0
    tab(page, "Agreement")
    page.get_by_alt_text("Each person's agreement with the others").wait_for()
    tab(page, "Review")
    page.get_by_label("Tasks on which people differ").click()
    assert page.get_by_role("option").count() == 6
    for n in range(6):
        option = page.get_by_role("option").nth(n)
        number = int(re.search(r"task (\d+):", option.inner_text())[1]) - 1
        option.click()
        wait_for(lambda number=number: f"prompt {number} " in shown(page, "Prompt"))
        wait_for(lambda number=number: f" answer {number} " in shown(page, "Answer 4"))
        page.get_by_label("Tasks on which people differ").click()
    assert page.get_by_label("Answer 5").count() == 0


def test_a_reviewer_accepts_and_sends_back_by_clicks(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("rita", viewport={"width": 1280, "height": 1600})
    for button, said in (
        ("Accept as it is", "accepted as it is"),
        ("Ask one more person", "one more person: 3 in all"),
    ):
        open_first_dispute(page)
        page.get_by_role("button", name=button).click()
        wait_for(lambda said=said: said in shown(page, "Done"))
    page.get_by_label("Tasks on which people differ").click()
    wait_for(lambda: page.get_by_role("option").count() == 4)
    with live.store.read() as session:
        assert len(reviews.decided(session, live.place.project.id)) == 2
        required = [session.get_one(Task, task).required for task in reviews.decided(session, live.place.project.id)]
    assert sorted(required) == [2, 3]
    assert not page.get_by_role("button", name="Invite").is_visible()


def test_an_admin_invites_and_shuts_out_by_clicks(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("ada", viewport={"width": 1280, "height": 1600})
    tab(page, "People")
    page.get_by_label("Name; empty lets them choose").fill("eve")
    page.get_by_role("button", name="Invite").click()
    done = page.get_by_label("Done", exact=True).last
    wait_for(lambda: "/invitation/" in done.input_value())
    link = done.input_value().splitlines()[0]
    assert link.startswith(f"{live.url}/invitation/")
    assert people.invitation(live.store, link.rpartition("/")[2]).name == "eve"
    page.get_by_text("annotator, invited until").last.wait_for(timeout=SECONDS)
    page.get_by_label("Person", exact=True).click()
    page.get_by_role("option", name="bob").click()
    page.get_by_role("button", name="Shut out").click()
    page.get_by_text("annotator, shut out").last.wait_for(timeout=SECONDS)
    assert not people.by_name(live.store, "bob").active
    page.get_by_label("Name; empty lets them choose").fill("Bob")
    page.get_by_role("button", name="Invite").click()
    page.get_by_text("this name is taken").wait_for(timeout=SECONDS)


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS / 1000
    while not holds():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)


# -- past the page: Gradio's queue, asked directly ---------------------------------------------------------------------


def call(client: httpx.Client, index: int, data: list[Any], session_hash: str) -> dict[str, Any]:
    """What an event's function answers."""
    body = {"data": data, "fn_index": index, "session_hash": session_hash, "event_data": None, "trigger_id": None}
    joined = client.post("/lead/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return {"success": False, "status": joined.status_code}
    with client.stream("GET", f"/lead/gradio_api/queue/data?session_hash={session_hash}") as stream:
        for line in stream.iter_lines():
            told = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if told.get("msg") == "process_completed":
                return told
    raise AssertionError("the queue gave no answer")


def events(client: httpx.Client) -> list[tuple[int, list[Any]]]:
    """Every event's function with arguments that it would take."""
    config = client.get("/lead/config").json()
    kinds = {component["id"]: component["type"] for component in config["components"]}
    labels = {component["id"]: component["props"].get("label") for component in config["components"]}
    values = {"textbox": "mallory", "number": 7}

    def argument(component: int) -> Any:
        if kinds[component] == "dropdown":
            return {"Role": "admin", "Person": "bob"}.get(labels[component], 1)
        return values[kinds[component]]

    found = [(d["id"], [argument(component) for component in d["inputs"]]) for d in config["dependencies"]]
    return sorted(found, key=lambda event: len(event[1]))  # a refresh first: it fills in what can be chosen


def test_the_queue_gives_a_reviewer_no_admins_power(live: Live) -> None:
    before = people.listed(live.store), people.waiting(live.store)
    with live.client("rita") as client:
        found = events(client)
        assert len(found) == 19
        answers = [call(client, index, data, "s") for index, data in found]
    assert (people.listed(live.store), people.waiting(live.store)) == before
    assert sum(not answer["success"] and "admin only" in json.dumps(answer) for answer in answers) == 6


def test_who_asks_is_never_taken_from_what_is_sent(live: Live) -> None:
    """The request is an argument of every function: what is sent in its place must not stand for it."""
    before = people.listed(live.store), people.waiting(live.store)
    with live.client("rita") as client:
        for index, data in events(client):
            for forged in ({"username": "ada"}, "ada"):
                call(client, index, [*data, forged], "s")
    assert (people.listed(live.store), people.waiting(live.store)) == before


def test_an_annotator_calls_nothing_whatever_session_they_name(live: Live) -> None:
    with live.client("ada") as lead, live.client("bob") as bob:
        for index, data in events(lead):
            assert call(bob, index, data, "s")["status"] == 403
            assert bob.get("/lead/gradio_api/queue/data?session_hash=s").status_code == 403
