"""The lead's page in a real browser: it shows what is there, runs nothing that it shows, and does what is clicked."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from attacks import CORPUS
from browser import PATIENCE_MS, Server, problems
from browsing import Desk
from offices import new_id, person, ranking
from served import PASSWORD, Place, project_in
from sqlalchemy import select

from apps.store import adding, invitations, people, projects, queue, reviews, tasks, tokens, work
from apps.store.choosing import NoTask
from apps.store.engine import Store
from apps.store.people import PersonInfo
from apps.store.tables import Annotation, Task

NAMES = ("<img src=x onerror=pwned()>", "${pwned()}", "[x](javascript:pwned())")
SECTIONS = ["progress", "agreement", "habits", "gold", "review", "reports", "models", "people", "guidelines", "export"]


class Live(NamedTuple):
    """A project that is served."""

    place: Place
    url: str

    @property
    def store(self) -> Store:
        return self.place.project.store


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Tasks on which people with nasty names differ; every text is a nasty one. Tests leave two disputes to others."""
    from apps.label.server import ranking_app

    project = project_in(tmp_path_factory.mktemp("lead"), overlap=2)
    place = Place(project, ranking_app([project]))
    for name, role in (("ada", "admin"), ("rita", "reviewer"), ("bob", "annotator"), ("cyd", "annotator")):
        person(project.store, name, role)
    fill(project.store, project.id, [person(project.store, name) for name in NAMES])
    server = Server(place.app)
    yield Live(place, server.url)
    server.stop()
    project.store.close()


def fill(store: Store, project: int, by: list[PersonInfo]) -> None:
    texts = iter(CORPUS)
    prompts = []
    for n in range(7):
        answers = tuple(adding.NewAnswer(f"{next(texts)} answer {n} {k}", {"model": NAMES[k % 3]}) for k in range(4))
        prompts.append(adding.NewPrompt([{"role": "user", "content": f"prompt {n} {next(texts)}"}], "", answers))
    adding.add_tasks(store, project, prompts, "rank")
    queue.draw(store, project)
    for who, up in ((by[0], True), (by[1], False)):
        while isinstance(given := tasks.claim(store, project, who.id), tasks.TaskView):
            order = [int(text[-1]) + 1 for text in given.answers]
            payload = ranking(*(rank if up else 5 - rank for rank in order)) | {"comment": CORPUS[given.id]}
            payload["answers"]["0"] |= {"flags": ["violent"], "comment": CORPUS[-given.id]}
            work.submit(store, who.id, new_id(), given.id, given.lease, payload, 60.0)


@pytest.fixture
def open_page(live: Live, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the lead's page as somebody. At the end nothing may have run, been asked of another host, or gone wrong."""
    desks = []

    def opening(name: str, section: str = "", **settings: Any) -> Any:
        desk = Desk(browser, live.url, live.place.token(name), **settings)
        desks.append(desk)
        desk.context.expose_function("pwned", lambda *_: desk.errors.append("a text was run"))
        desk.page.on("dialog", lambda dialog: desk.errors.append(dialog.message))
        desk.page.goto(f"{live.url}/lead/{section and '#'}{section}")
        desk.page.get_by_text("computed in").wait_for()
        return desk.page

    yield opening
    for desk in desks:
        desk.errors = [error for error in desk.errors if not re.search("status of 4(01|04|09|22)", error)]  # Chromium's
        desk.close()


def tab(page: Any, name: str) -> None:
    page.get_by_role("navigation", name="Sections").get_by_role("link", name=name).click()


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def told(page: Any, words: str) -> None:
    page.locator(".toast", has_text=words).wait_for()


def disputes(page: Any) -> Any:
    return page.locator(".entries a")


def said_no(live: Live, name: str, n: int) -> int:
    """Somebody reports a new task; returns its id."""
    project = live.place.project
    answers = tuple(adding.NewAnswer(f"answer {k}", {"model": "m"}) for k in range(2))
    turns = [{"role": "user", "content": f"What does {CORPUS[n]} in picture {n} show?"}]
    adding.add_tasks(live.store, project.id, [adding.NewPrompt(turns, "", answers)], "rank")
    queue.draw(live.store, project.id)
    who = people.by_name(live.store, name)
    while isinstance(given := tasks.claim(live.store, project.id, who.id), tasks.TaskView) and given.messages != turns:
        work.skip(live.store, who.id, new_id(), given.id, given.lease, "another test's")
    assert isinstance(given, tasks.TaskView)
    work.flag(live.store, who.id, new_id(), given.id, given.lease, "It makes no sense", f"no picture {CORPUS[1]}")
    return given.id


def test_every_section_shows_its_figures_and_no_text_is_more_than_text(
    live: Live, open_page: Callable[..., Any]
) -> None:
    page = open_page("ada")
    page.get_by_text("14 of 14 (100%)").wait_for()
    for name, words in (("Agreement", "pairwise agreement"), ("Habits", "Page's test"), ("Models", "Not ranked"),
                        ("People", "reviewer")):  # fmt: skip
        tab(page, name)
        page.get_by_text(words).first.wait_for()
    for name in NAMES:
        page.get_by_role("rowheader", name=name, exact=True).wait_for()
    tab(page, "Agreement")
    figure = page.get_by_alt_text("Each person's agreement with the others")
    assert figure.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 100
    tab(page, "Review")
    disputes(page).first.wait_for()
    for n, beginning in enumerate(disputes(page).all_inner_texts()):
        disputes(page).nth(n).click()
        number = shown_task(page) - 1
        assert beginning.startswith(f"prompt {number} ")
        assert f" answer {number} 3" in page.locator(".pair .box").nth(3).inner_text()
        assert page.get_by_role("rowheader", name=NAMES[0]).count() > 0
        page.get_by_text("All disputes").click()


def shown_task(page: Any) -> int:
    """The number of the task that is open."""
    page.get_by_role("heading", name="Answer 4").wait_for()
    return int(page.get_by_role("heading", name=re.compile(r"^Task \d")).inner_text().split()[1])


@pytest.mark.parametrize(
    ("button", "said", "required"),
    [("Accept as it is", "accepted as it is", 2), ("Ask one more person", "one more person (3 in total)", 3)],
)
def test_a_reviewer_decides_by_a_click(
    live: Live, open_page: Callable[..., Any], button: str, said: str, required: int
) -> None:
    page = open_page("rita", "review")
    disputes(page).first.click()
    task = shown_task(page)
    press(page, button)
    told(page, said)
    page.get_by_role("heading", name="Disputed tasks").wait_for()
    wait_for(lambda: page.locator(".about", has_text=f"Task {task} ").count() == 0)
    with live.store.read() as session:
        assert task in reviews.decided(session, live.place.project.id)
        assert session.get_one(Task, task).required == required


def test_a_reviewer_manages_nobody(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("rita", "people")
    page.get_by_role("rowheader", name="bob").wait_for()
    for words in ("Invite", "Manage bob", "Make a token"):
        assert page.get_by_role("button", name=words, exact=True).count() == 0


def rank_the_answers(page: Any) -> None:
    page.wait_for_selector(".answer")
    for slot in range(4):
        page.keyboard.press("j")
        page.keyboard.press("5")
        page.keyboard.press(f"Shift+Digit{slot + 1}")
    page.keyboard.press("Control+Enter")


def test_a_reviewer_whom_another_one_forestalled_is_told(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("rita", "review")
    disputes(page).last.click()
    task, ada = shown_task(page), people.by_name(live.store, "ada").id
    page.get_by_role("link", name="Rank it myself").click()
    page.wait_for_selector(".answer")
    given = reviews.adjudicate(live.store, live.place.project.id, task, ada)
    assert work.submit(live.store, ada, new_id(), task, given.lease, ranking(1, 2, 3, 4)).final
    rank_the_answers(page)
    page.get_by_text("Another reviewer decided this task").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Disputed tasks").wait_for()
    work.undo(live.store, live.place.project.id, ada)


def test_a_reviewers_own_ranking_decides(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("rita", "review")
    disputes(page).first.click()
    task = shown_task(page)
    page.get_by_role("link", name="Rank it myself").click()
    rank_the_answers(page)
    page.get_by_text("computed in").wait_for()
    page.get_by_role("heading", name="Disputed tasks").wait_for()
    assert page.locator(".about", has_text=f"Task {task} ").count() == 0
    with live.store.read() as session:
        assert session.scalars(select(Annotation.task_id).where(Annotation.final)).all() == [task]
    page.evaluate(f"location.hash = 'review/{task}'")
    page.get_by_role("cell", name="decides").wait_for()
    page.evaluate("location.hash = 'review/1000000'")
    page.get_by_role("alert").get_by_text("no task 1000000").wait_for()
    page.get_by_role("heading", name="Disputed tasks").wait_for()


def test_reports_are_read_and_dealt_with(live: Live, open_page: Callable[..., Any]) -> None:
    reported = [said_no(live, "bob", n) for n in range(3)]
    page = open_page("rita", "reports")
    left = page.locator("section > .entries > li")
    for n, (what, said) in enumerate((("Close the task", "is closed"), ("Keep as it is", "is kept as it is"))):
        page.get_by_role("link", name=f"Reports {3 - n}").wait_for()
        wait_for(lambda n=n: left.count() == 3 - n)
        assert left.first.locator(".said").inner_text() == f"It makes no sense: no picture {CORPUS[1]}"
        left.first.get_by_role("button", name=what).click()
        told(page, said)
    wait_for(lambda: left.count() == 1)
    left.first.get_by_role("link", name="Edit the prompt").click()
    page.get_by_label("New text").fill("What is a picture?")
    press(page, "Save as a new task")
    told(page, "has the edited prompt")
    handled = {report.task: report.handled for report in reviews.reports(live.store, live.place.project.id)}
    assert handled == dict(zip(reported, ("edited", "kept", "closed"), strict=True))
    given = tasks.claim(live.store, live.place.project.id, people.by_name(live.store, "bob").id)
    assert isinstance(given, tasks.TaskView)
    assert given.messages[0]["content"] == "What is a picture?"


def test_an_admin_manages_people_by_clicks(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("ada", "people")
    page.get_by_label("Names, one per line").fill("eve\n\n fay ")
    page.get_by_role("button", name="Invite", exact=True).dblclick()
    page.get_by_text("Copy all").wait_for()
    links = page.locator("code.link").all_inner_texts()
    assert [invitations.invitation(live.store, link.rpartition("/")[2]).name for link in links] == ["eve", "fay"]
    assert all(link.startswith(f"{live.url}/invitation/") for link in links)
    press(page, "Revoke the invitation of eve")
    told(page, "is revoked")
    assert [one.name for one in invitations.pending_invitations(live.store)] == ["fay"]
    manage(page, "cyd", "Deactivate")
    press(page, "Cancel")
    assert people.by_name(live.store, "cyd").active
    manage(page, "cyd", "Deactivate")
    page.get_by_role("dialog", name="Deactivate cyd?").get_by_role("button", name="Deactivate").click()
    page.get_by_text("annotator, deactivated").wait_for()
    assert not people.by_name(live.store, "cyd").active
    manage(page, "cyd", "Pause")
    told(page, "gets no tasks now")
    page.get_by_role("button", name="Manage rita").click()
    page.get_by_label("Most rankings").fill("40")
    press(page, "Set the limit")
    page.get_by_role("cell", name="at most 40").wait_for()
    page.get_by_label("Names, one per line").fill("Bob")
    press(page, "Invite")
    page.get_by_role("alert").get_by_text("taken").wait_for()
    assert page.get_by_label("Names, one per line").input_value() == "Bob"
    invitations.revoke(live.store, "fay")


def test_a_person_is_erased_once_their_name_is_typed(live: Live, open_page: Callable[..., Any]) -> None:
    name = f"{NAMES[0]} erased"
    person(live.store, name)
    page = open_page("ada", "people")
    manage(page, name, "Erase")
    press(page, "Cancel")
    button = page.get_by_role("button", name=f"Manage {name}", exact=True)
    assert button.evaluate("button => button.getRootNode().activeElement === button")
    manage(page, name, "Erase")
    erase = page.get_by_role("button", name="Erase for good")
    page.get_by_label("To confirm type").fill(NAMES[0])
    assert erase.is_disabled()
    page.get_by_label("To confirm type").fill(name)
    erase.click()
    told(page, "are erased")
    assert name not in [one.name for one in people.all_people(live.store)]


def test_a_token_is_made_shown_once_and_revoked(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("ada", "people")
    page.get_by_label("Acts as").select_option("bob")
    page.get_by_label("Purpose").fill("nightly import")
    press(page, "Make a token")
    token = page.locator("code.link").inner_text()
    found = tokens.person_of(live.store, token)
    assert found is not None
    assert found.name == "bob"
    page.reload()
    page.get_by_role("rowheader", name="nightly import").wait_for()
    assert page.locator("code.link").count() == 0
    press(page, "Revoke nightly import")
    told(page, "is revoked")
    assert tokens.person_of(live.store, token) is None


def test_guidelines_are_edited_and_nothing_typed_is_lost(live: Live, open_page: Callable[..., Any]) -> None:
    project = live.place.project.id
    person(live.store, "rosa", "reviewer")
    page = open_page("rosa", "guidelines")
    text = page.get_by_label("Markdown")
    text.fill("x" * 200_001)
    press(page, "Save")
    page.get_by_role("alert").get_by_text("at most 200000").wait_for()
    page.wait_for_timeout(300)
    assert page.get_by_role("alert").get_by_text("at most 200000").is_visible()
    text.fill("# Rules\n\nAsk for $x^2$.")
    page.locator(".box.preview math").wait_for()
    press(page, "Save")
    told(page, "version 2")
    assert projects.guidelines_of(live.store, project).text == "# Rules\n\nAsk for $x^2$."
    ada = people.by_name(live.store, "ada").id
    projects.edit_guidelines(live.store, project, "ada's", 2, ada)
    text.fill("rosa's")
    press(page, "Save")
    page.get_by_text("ada saved version 3").wait_for()
    invitations.revoke(live.store, "rosa")
    press(page, "Save mine anyway")
    page.get_by_role("alert").get_by_text("You are logged out.").wait_for()
    assert text.input_value() == "rosa's"
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Log in again").click()
    login = opened.value
    login.get_by_label("Name").fill("rosa")
    login.get_by_label("Password").fill(PASSWORD)
    login.get_by_role("button", name="Log in").click()
    login.get_by_text("computed in").wait_for()
    press(page, "Save mine anyway")
    told(page, "version 4")
    now = projects.guidelines_of(live.store, project)
    assert (now.text, now.by) == ("rosa's", "rosa")
    assert [one.text for one in projects.versions(live.store, project)][1] == "ada's"


def test_files_are_downloaded_and_the_project_is_paused(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("rita", "export")
    with page.expect_download() as loading:
        press(page, "Download rankings.jsonl")
    assert loading.value.suggested_filename == "rankings.jsonl"
    rows = [json.loads(line) for line in loading.value.path().read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 8
    assert set(NAMES[:2]) <= {row["annotator"] for row in rows}
    press(page, "Pause the project")
    page.get_by_text("paused: no tasks are handed out", exact=True).wait_for()
    new = person(live.store, "new")  # who has begun something could go on with it
    assert isinstance(tasks.claim(live.store, live.place.project.id, new.id), NoTask)
    press(page, "Resume the project")
    told(page, "handed out again")


def test_tasks_are_assigned(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("rita", "review")
    page.get_by_text("Assign tasks to people").click()
    page.get_by_label("Tasks", exact=False).last.fill("1-2, 4")
    page.get_by_label("bob").check()
    press(page, "Assign")
    told(page, "3 tasks are assigned to bob only")
    with live.store.read() as session:
        assert session.scalars(select(Task.id).where(Task.assigned).order_by(Task.id)).all() == [1, 2, 4]
    press(page, "Give back to everybody")
    told(page, "3 tasks are open to everybody again")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_it_fits_a_phone_and_can_be_read(live: Live, open_page: Callable[..., Any], scheme: str) -> None:
    page = open_page("ada", viewport={"width": 360, "height": 740}, color_scheme=scheme, reduced_motion="reduce")
    for section in [*SECTIONS, "review/7/edit"]:
        page.evaluate("(section) => { location.hash = section; }", section)
        page.locator(f".tabs [aria-current][href$='#{section.partition('/')[0]}']").wait_for()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, section
        assert problems(page) == [], section


def test_the_keyboard_alone_gets_everywhere(live: Live, open_page: Callable[..., Any]) -> None:
    page = open_page("ada")
    for _ in range(3 + SECTIONS.index("people")):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Manage bob").wait_for()
    assert focus(page) == ["A", "People", "solid"]
    for _ in range(40):
        page.keyboard.press("Tab")
        tag, name, outline = focus(page)
        assert outline == "solid", (tag, name)
        if name == "Manage bob":
            break
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="bob").wait_for()
    page.keyboard.press("Escape")
    assert focus(page)[1] == "Manage bob"


def focus(page: Any) -> Any:
    return page.evaluate("""() => {
      const at = document.getElementById("align-lead").shadowRoot.activeElement;
      return [at.tagName, at.getAttribute("aria-label") ?? at.textContent, getComputedStyle(at).outlineStyle];
    }""")


def manage(page: Any, name: str, what: str) -> None:
    page.get_by_role("button", name=f"Manage {name}", exact=True).click()
    page.get_by_role("dialog", name=name, exact=True).get_by_role("button", name=what, exact=True).click()


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_MS / 1000
    while not holds():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)
