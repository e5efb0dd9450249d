"""What spares annotators trouble: long texts, the prompt in view, one ranking by hand, folded flags, differences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Server
from browsing import DRAWN, GONE_ON, Desk, said
from offices import prompt
from served import Place, project_in

from apps.store import adding, invitations, projects, sessions
from apps.store.tables import Project

LAPTOP = {"width": 1280, "height": 800}
WINDOW = {"viewport": LAPTOP}  # for `sit_down`
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
WORD = "w" * 2000  # as in a prompt of one long URL
STORY = "\n\n".join(f"Paragraph {index} says what plants do with light and water, day by day." for index in range(40))
FLAGS = "#answer-{} .flags .flag"


@pytest.fixture(scope="module")
def office(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Server]]:
    """A task with four long answers to a long prompt, then a short one."""
    from apps.label.server import ranking_app

    project = project_in(tmp_path_factory.mktemp("ease"), overlap=100)
    place = Place(project, ranking_app([project]))
    answers = tuple(adding.NewAnswer(f"Answer {index}.\n\n{STORY}\n\nThe needle.", {}) for index in range(4))
    turns = [{"role": "user", "content": f"{WORD} {STORY}"}]
    place.add([adding.NewPrompt(turns, "", answers, priority=1.0)])
    place.tasks(2)
    server = Server(place.app)
    yield place, server
    server.stop()
    project.store.close()


def top(desk: Desk, selector: str) -> float:
    return float(desk.page.locator(selector).bounding_box()["y"])


def height(desk: Desk, selector: str = "") -> float:
    if not selector:
        return float(desk.page.evaluate("document.documentElement.scrollHeight"))
    return float(desk.page.locator(selector).bounding_box()["height"])


def focused(desk: Desk) -> str:
    """The id, name or text of what has the focus."""
    at = "document.getElementById('align-label').shadowRoot.activeElement"
    return str(desk.page.evaluate(f"{at}.id || {at}.name || {at}.value || {at}.textContent"))


# -------------------------------------------------------------------------------------------------------- long texts


@pytest.mark.parametrize("context", [{}, PHONE], ids=["laptop", "phone"])
def test_my_work_shows_a_prompt_of_one_long_word(
    sit_down: Callable[..., Desk], office: tuple[Place, Server], context: dict[str, Any]
) -> None:
    desk = sit_down(f"reader {len(context)}", **context)
    desk.page.get_by_role("button", name="Skip").click()
    desk.page.get_by_label("I cannot decide").check()
    desk.page.get_by_role("button", name="Skip this task").click()
    desk.page.locator(".toast", has_text="Skipped").wait_for()
    desk.page.get_by_role("button", name="My work").click()
    dialog = desk.page.get_by_role("dialog")
    dialog.get_by_role("button", name=re.compile("^Open")).wait_for()
    assert dialog.evaluate("(one) => one.scrollWidth <= one.clientWidth")
    assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_prompt_stays_in_view(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("scroller")
    desk.page.evaluate("scrollTo(0, 500)")
    assert top(desk, ".prompt") == 0
    assert height(desk, ".prompt") <= LAPTOP["height"] / 3 + 1
    assert desk.page.locator(".turns").evaluate("(one) => one.scrollHeight > one.clientHeight && one.tabIndex === 0")
    desk.page.keyboard.press("j")  # the answer stands below the prompt, not behind it
    desk.page.wait_for_timeout(600)
    assert top(desk, "#answer-0 > header") >= height(desk, ".prompt") - 1
    desk.page.keyboard.press("o")
    assert height(desk, ".prompt") < 60
    assert WORD[:50] in desk.page.locator(".prompt .excerpt").inner_text()
    desk.page.keyboard.press("o")
    desk.page.locator(".prompt").get_by_role("button", name="Show all").click()
    assert height(desk, ".prompt") > LAPTOP["height"]
    desk.page.locator("#answer-0").evaluate("(one) => scrollBy(0, one.getBoundingClientRect().y + 200)")
    assert top(desk, ".prompt") < -1000
    assert abs(top(desk, "#answer-0 > header")) <= 1


def test_long_answers_are_shown_whole_on_demand(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("unfolder")
    body, before = "#answer-{} .body", height(desk)
    assert height(desk, body.format(1)) < LAPTOP["height"] / 2
    desk.page.keyboard.press("j")
    desk.page.keyboard.press("e")
    assert height(desk, body.format(0)) > 1000
    assert desk.page.locator("#answer-0 .more").get_attribute("aria-expanded") == "true"
    desk.page.keyboard.press("t")
    desk.page.keyboard.press("t")
    assert height(desk, body.format(0)) > 1000  # while the task is open
    desk.page.keyboard.press("Shift+E")
    assert height(desk, body.format(3)) > 1000
    desk.page.keyboard.press("Shift+E")
    assert height(desk) == pytest.approx(before, abs=40)
    needle = desk.page.locator("#answer-2 .body p", has_text="The needle")
    needle.evaluate("(one) => one.scrollIntoView({ block: 'center' })")  # as the browser's search does
    desk.page.locator("#answer-2 .more[aria-expanded=true]").wait_for()
    desk.page.evaluate(DRAWN)
    assert 0 < needle.bounding_box()["y"] < LAPTOP["height"]


def test_four_long_answers_on_a_phone(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("walker", **PHONE)
    assert height(desk) < 4200  # 15,200 while all texts and flags were open
    assert desk.page.evaluate("document.documentElement.scrollWidth") <= 360
    desk.page.locator("#answer-1 .more").tap()
    assert height(desk, "#answer-1 .body") > 1000


# ------------------------------------------------------------------------------------------------ ranking and flags


def test_ratings_make_the_ranking_and_it_can_be_put_back(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("rater")
    press = desk.page.keyboard.press
    press("r")
    assert "Rate the answers first" in desk.page.locator(".problem").inner_text()
    desk.chip(1).focus()
    press("1")
    for slot, rating in enumerate((6, 3, 6, 2)):
        desk.rate(slot, rating)
    press("r")
    assert desk.rows() == {1: [0, 2], 3: [1], 4: [3]}
    assert "A = C > B > D" in desk.page.locator(".toast").inner_text()
    press("r")
    assert desk.rows() == {1: [1], 0: [0, 2, 3]}
    press("r")
    desk.rate(3, 7)
    desk.page.get_by_role("button", name="Rank by ratings").click()
    assert desk.rows() == {1: [3], 2: [0, 2], 4: [1]}
    desk.page.locator(".toast").get_by_role("button", name="Restore my ranking").click()
    assert desk.rows() == {1: [1], 0: [0, 2, 3]}  # what was made by hand, though the ratings changed in between
    made = "async ([ratings, ties]) => (await import('/static/label/ranks.js')).byRatings(ratings, ties)"
    assert desk.page.evaluate(made, [[6, 3, 6, None], True]) == [1, 3, 1, None]
    assert desk.page.evaluate(made, [[6, 3, 6, None], False]) == [None, 3, None, None]


def test_flags_are_folded_until_all_are_wanted(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("flagger")
    assert desk.page.locator(".flags[open]").count() == 0
    for key in ("j", "f", "Space"):
        desk.page.keyboard.press(key)
    assert (focused(desk), desk.page.locator(".flags[open]").count()) == ("fails_instruction", 1)
    desk.page.keyboard.press("f")
    assert (focused(desk), desk.page.locator(".flags[open]").count()) == ("answer-0", 0)
    tag = desk.page.locator("#answer-0 .tag")
    assert tag.inner_text() == "Fails to follow the correct instruction or task"
    desk.page.keyboard.press("ArrowRight")
    tag.click()  # on the label itself, while the focus comes here
    assert desk.page.locator("#answer-0 .flags[open]").count() == 1
    desk.open()
    assert desk.page.locator(".flags[open]").count() == 0  # one answer's were unfolded, once
    for slot in range(4):
        desk.page.locator(f"#answer-{slot} summary").click()
    desk.open()
    assert desk.page.locator(".flags[open]").count() == 4


# ------------------------------------------------------------------------------------------------------- differences

DIFFERENCES = """async () => {
  const { differences, inBoth } = await import("/static/label/differences.js");
  let seed = 1;
  const draw = (n) => (seed = (seed * 48271) % 2147483647) % n;
  const most = (a, b) => {
    const best = a.map(() => []).concat([[]]);
    const at = (i, j) => best[i][j] ?? 0;
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        best[i][j] = a[i] === b[j] ? 1 + at(i + 1, j + 1) : Math.max(at(i + 1, j), at(i, j + 1));
    return at(0, 0);
  };
  const wrong = [];
  for (let round = 0; round < 2000; round++) {
    const [a, b] = [0, 0].map(() => Array.from({ length: draw(12) }, () => "abc"[draw(3)]));
    const pairs = inBoth(a, b);
    const rises = pairs.every(([i, j], n) => a[i] === b[j] && (!n || (i > pairs[n - 1][0] && j > pairs[n - 1][1])));
    if (pairs.length !== most(a, b) || !rises) wrong.push([a, b, pairs]);
  }
  const alone = Array.from({ length: 2000 }, (_, index) => `x${index}`).join(" ");
  const some = differences("one two three.\\nfour", "one 2 big three. four 你好");
  return [wrong.slice(0, 3), some, differences(alone, alone.replaceAll("x", "y"))];
}"""


@pytest.mark.parametrize("context", [{}, PHONE], ids=["laptop", "phone"])
def test_two_answers_are_compared(sit_down: Callable[..., Desk], context: dict[str, Any]) -> None:
    desk = sit_down(f"comparer {len(context)}", **context)
    wrong, (left, right), nothing = desk.page.evaluate(DIFFERENCES)
    assert wrong == []  # always the fewest
    assert left == [["one ", False], ["two", True], [" three.\nfour", False]]
    assert right == [["one ", False], ["2 big", True], [" three. four ", False], ["你好", True]]
    assert nothing is None  # too much to look for
    names = [text.split(".")[0].removeprefix("Answer ") for text in desk.texts()]  # by slot
    desk.page.get_by_role("button", name="Compare Answer B with another").click()
    dialog = desk.page.get_by_role("dialog")
    marks = dialog.locator("mark")
    assert marks.all_inner_texts() == [names[1], names[2]]
    assert "underline" in marks.first.evaluate("(mark) => getComputedStyle(mark).textDecorationLine")
    dialog.get_by_label("Answer on the right").select_option("D")
    assert marks.all_inner_texts() == [names[1], names[3]]
    one, other = (marks.nth(index).bounding_box() for index in range(2))
    assert (one["x"] < other["x"] - 200, one["y"] < other["y"] - 100) == (not context, bool(context))
    assert dialog.evaluate("(one) => one.scrollWidth <= one.clientWidth")
    desk.page.keyboard.press("Escape")
    desk.page.keyboard.press("k")
    desk.page.keyboard.press("d")
    assert dialog.get_by_label("Answer on the left").input_value() == "0"


# -------------------------------------------------------------------------------------- one's own work, and the rules


def test_a_task_from_claim_to_submit_without_a_mouse(
    sit_down: Callable[..., Desk], office: tuple[Place, Server]
) -> None:
    place, desk = office[0], sit_down("typist")
    press, texts = desk.page.keyboard.press, desk.texts()
    bar = desk.page.locator(".top")
    bar.get_by_text("0 today, 0 min").wait_for()
    assert bar.get_by_text("new", exact=True).is_visible()
    press("g")
    desk.page.get_by_role("dialog").get_by_text("Read everything first.").wait_for()
    press("Escape")
    assert bar.get_by_text("new", exact=True).count() == 0
    for key in (
        "Shift+E",
        "o",
        "d",
        "Escape",
        "j",
        "7",
        "f",
        "Tab",
        "Space",
        "f",
        "j",
        "3",
        "j",
        "5",
        "j",
        "3",
        "r",
        "c",
    ):
        press(key)
    desk.page.keyboard.type("needs a source")
    press("Escape")
    with place.project.store.write() as session:
        projects.new_guidelines(session, session.get_one(Project, place.project.id), "Look twice.", 1.0)
    press("Control+Enter")
    desk.saved()
    desk.page.wait_for_function(GONE_ON, arg=texts[0])
    bar.get_by_text("1 today").wait_for()
    bar.get_by_text("new", exact=True).wait_for()  # while the page stayed open
    assert "1 in total" in bar.inner_text()
    assert re.search(r"project: \d of 3", bar.inner_text())
    ((_, payload),) = said(place, "typist")
    assert [payload["ranks"][text] for text in texts] == [1, 3, 2, 3]
    assert payload["answers"][texts[0]]["flags"] == ["inappropriate"]
    assert payload["answers"][texts[3]]["comment"] == "needs a source"
    press("u")
    desk.page.locator(".toast", has_text="Undone").wait_for()
    assert desk.rows() == {1: [0], 2: [2], 3: [1, 3]}


def test_who_failed_practice_is_told_what_to_do(browser: Any, make_place: Callable[..., Place]) -> None:
    place = make_place(practice={"required": 1, "pass_share": 1})
    place.add([prompt("practice", 2, expected=(1, 2))], "practice")
    place.member("pupil")
    server = Server(place.app)
    desk = Desk(browser, server.url, place.token("pupil")).open()
    ranks = ("1", "2") if desk.texts()[0].startswith("answer 1") else ("2", "1")
    for rank in ranks:
        for key in ("j", "4", f"Shift+Digit{rank}"):
            desk.page.keyboard.press(key)
    desk.page.keyboard.press("Control+Enter")
    desk.page.get_by_role("dialog", name="Practice result").wait_for()
    desk.page.keyboard.press("Escape")
    notice = desk.page.locator(".notice", has_text="too few pairs were in the expected order")
    notice.get_by_role("button", name="Read the guidelines").click()
    desk.page.get_by_role("dialog").get_by_text("Read everything first.").wait_for()
    desk.close()
    server.stop()


# --------------------------------------------------------------------------------------------------------- other doors


def test_a_session_that_ends_while_somebody_types_loses_nothing(
    sit_down: Callable[..., Desk], office: tuple[Place, Server]
) -> None:
    desk, store = sit_down("sleeper"), office[0].project.store
    invitations.revoke(store, "sleeper")
    desk.page.locator("#answer-1 textarea").fill("half a thou")
    problem = desk.page.locator(".problem", has_text="logged out")
    assert problem.get_by_role("link", name="Log in again").get_attribute("href") == "/login?next=%2Fapp%2F"
    office[0].member("guest")
    cookie = {"name": "align_label", "url": desk.url, "httpOnly": True, "sameSite": "Strict"}
    desk.context.add_cookies([{**cookie, "value": office[0].token("guest")}])
    desk.page.locator("#answer-1 textarea").fill("half a thought")
    desk.page.locator(".problem", has_text="guest is now logged in in this browser").wait_for()
    desk.open()
    assert desk.page.locator("#answer-1 textarea").input_value() == ""  # the guest's own
    desk.context.add_cookies([{**cookie, "value": sessions.login(store, "sleeper", "four words or more", "10.0.0.1")}])
    desk.open()
    assert desk.page.locator("#answer-1 textarea").input_value() == "half a thought"
    desk.errors = [error for error in desk.errors if "401" not in error]  # Chromium's own note of the refusal


def test_what_one_project_was_about_is_not_asked_of_another(browser: Any, tmp_path: Path) -> None:
    from apps.label.server import ranking_app

    both = [project_in(tmp_path, name=name) for name in ("first", "second")]
    place = Place(both[0], ranking_app(both))
    for project in both:
        Place(project, place.app).tasks(2, k=2)
    place.member("ada", "reviewer")
    server = Server(place.app)
    desk = Desk(browser, server.url, place.token("ada"))
    desk.page.goto(f"{server.url}/app/?project=1")
    desk.page.locator(".answer").first.wait_for()
    desk.page.keyboard.press("b")
    for key in ("j", "4", "j", "4", "Control+Enter"):
        desk.page.keyboard.press(key)
    desk.saved()
    desk.page.keyboard.press("h")
    desk.page.get_by_role("dialog").get_by_role("button", name=re.compile("^Open")).click()
    desk.page.locator(".banner").wait_for()
    assert desk.page.get_by_role("link", name="Lead").get_attribute("href") == "/lead/?project=1"
    desk.page.goto(f"{server.url}/app/?project=2")
    desk.page.locator(".answer").first.wait_for()
    assert desk.page.locator(".banner").count() == 0
    assert "second" in desk.page.locator(".top").inner_text()
    desk.page.goto(f"{server.url}/app/?project=1")
    desk.page.locator(".banner").wait_for()
    for path in ("/app/", "/lead/"):
        desk.page.goto(f"{server.url}{path}")
        desk.page.wait_for_url("**/projects")
    desk.errors = [error for error in desk.errors if "404" not in error]  # which project?
    desk.close()
    server.stop()
    for project in both:
        project.store.close()
