"""The labelling page in a real browser: by mouse, keyboard and touch; drafts, undo, revisions; what it must not do."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks import CORPUS
from browser import PHONE, Server
from browsing import GONE_ON, Desk, said
from offices import prompt
from served import Place, project_in

from apps.label.exporting import export
from apps.label.rankings import Filters
from apps.store import adding, invitations, sessions

N_TASKS = 10


@pytest.fixture(scope="module")
def office(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Server]]:
    """Ten tasks, for as many people as come."""
    from apps.label.server import ranking_app

    project = project_in(tmp_path_factory.mktemp("office"), overlap=100)
    place = Place(project, ranking_app([project]))
    place.tasks(N_TASKS)
    server = Server(place.app)
    yield place, server
    server.stop()
    project.store.close()


def draw(chance: random.Random, n: int) -> list[int]:
    """Ranks with ties, some ranks left out."""
    return [chance.randint(1, n) for _ in range(n)]


def standard(ranks: list[int]) -> list[int]:
    return [1 + sum(other < rank for other in ranks) for rank in ranks]


@pytest.mark.slow
def test_ten_tasks_by_mouse(sit_down: Callable[..., Desk], office: tuple[Place, Server], tmp_path: Path) -> None:
    desk, chance, wanted = sit_down("mouse"), random.Random(1), []
    for _ in range(N_TASKS):
        texts, ranks = desk.texts(), draw(chance, 4)
        assert desk.rows() == {0: [0, 1, 2, 3]}
        for slot in chance.sample(range(4), 4):
            desk.drag(slot, ranks[slot])
            desk.rate(slot, 1 + slot)
        desk.page.locator("#answer-2 summary").click()
        desk.page.locator("#answer-2 .flag", has_text="Hallucination").click()
        wanted.append({text: (standard(ranks)[slot], 1 + slot) for slot, text in enumerate(texts)})
        before = texts[0]
        desk.submit()
        desk.page.wait_for_function(GONE_ON, arg=before)
        assert "Saving …" not in desk.page.locator(".status").all_inner_texts()
    assert "all tasks that are open to you" in desk.page.locator(".notice").inner_text()
    found = said(office[0], "mouse")
    assert [status for status, _ in found] == ["submitted"] * N_TASKS
    for (_, payload), expected in zip(found, wanted, strict=True):
        assert {text: (payload["ranks"][text], payload["answers"][text]["rating"]) for text in expected} == expected
        assert sum(answer["flags"] == ["hallucination"] for answer in payload["answers"].values()) == 1
    (exported,) = export(office[0].project, tmp_path / "out", ("rankings",), Filters(annotators=("mouse",)))
    rows = [json.loads(line) for line in exported.path.read_text().splitlines()]
    rankings = [dict(zip(row["responses"], row["ranks"], strict=True)) for row in rows]
    for expected in wanted:
        levels = sorted({rank for rank, _ in expected.values()})
        rankings.remove({text: 1 + levels.index(rank) for text, (rank, _) in expected.items()})
    assert rankings == []


def test_ten_tasks_by_keyboard_alone(sit_down: Callable[..., Desk], office: tuple[Place, Server]) -> None:
    desk, chance, wanted = sit_down("keys"), random.Random(2), []
    press = desk.page.keyboard.press
    for _ in range(N_TASKS):
        texts, ranks = desk.texts(), draw(chance, 4)
        for slot in range(4):
            press("j" if slot % 2 else "ArrowRight")
            press(str(7 - slot))
            press(f"Shift+Digit{ranks[slot]}")
        press("c")
        desk.page.keyboard.type("so so 1")
        press("Escape")
        wanted.append({text: (standard(ranks)[slot], 7 - slot) for slot, text in enumerate(texts)})
        press("Control+Enter")
        desk.saved()
        desk.page.wait_for_function(GONE_ON, arg=texts[0])
    found = said(office[0], "keys")
    assert len(found) == N_TASKS
    for (status, payload), expected in zip(found, wanted, strict=True):
        assert status == "submitted"
        assert {text: (payload["ranks"][text], payload["answers"][text]["rating"]) for text in expected} == expected
        assert [answer["comment"] for answer in payload["answers"].values()].count("so so 1") == 1


def test_the_board_by_keyboard(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("board keys")
    press = desk.page.keyboard.press
    desk.chip(0).focus()
    press("ArrowUp")  # from below the last row
    assert desk.rows() == {4: [0], 0: [1, 2, 3]}
    press("2")
    desk.chip(1).focus()
    press("Digit2")
    assert desk.rows()[2] == [0, 1]
    assert desk.chip(1).get_attribute("aria-label") == "Answer B, Rank 1, tied with A"
    press("ArrowUp")
    assert desk.rows() == {1: [1], 2: [0], 0: [2, 3]}
    press("Shift+ArrowDown")  # past the neighbour
    assert desk.rows() == {1: [0], 2: [1], 0: [2, 3]}
    assert "A > B …" in desk.page.locator(".order").inner_text()
    press("Delete")
    assert desk.rows() == {1: [0], 0: [2, 3, 1]}
    assert desk.page.evaluate("document.getElementById('align-label').shadowRoot.activeElement.textContent") == "B"


RANKS = """async () => {
  const { groups, insert, place, standard, step, swap } = await import("/static/label/ranks.js");
  let seed = 1;
  const draw = (n) => (seed = (seed * 48271) % 2147483647) % n;
  const wrong = [];
  const order = (ranks, slot) => JSON.stringify(groups(ranks.map((rank, index) => (index === slot ? null : rank))));
  for (let round = 0; round < 3000; round++) {
    const n = 2 + draw(8);
    const ranks = Array.from({ length: n }, () => [null, 1 + draw(n)][draw(4) && 1]);
    const slot = draw(n);
    const to = 1 + draw(n + 1);
    const put = insert(ranks, slot, to);
    const better = (all, rank) => all.filter((other, index) => index !== slot && other !== null && other < rank).length;
    const isAlone = put.filter((rank) => rank === put[slot]).length === 1;
    const isThere = better(put, put[slot]) === better(ranks, to);
    if (order(put, slot) !== order(ranks, slot) || !isAlone || !isThere) wrong.push(["insert", ranks, slot, to, put]);
    const without = place(ranks, slot, Math.min(to, n), false);
    const ties = (all) => all.filter((rank, index) => rank !== null && all.indexOf(rank) !== index).length;
    if (ties(ranks) === 0 && ties(without) > 0) wrong.push(["place without ties", ranks, slot, to, without]);
    for (const by of [-1, 1]) {
      for (const moved of [step(ranks, slot, by), swap(ranks, slot, by), step(ranks, slot, by, false)]) {
        const isFine = (rank) => rank === null || (rank >= 1 && rank <= n);
        if (moved.length !== n || !moved.every(isFine)) wrong.push(["step", ranks, slot, by, moved]);
      }
    }
    const dense = standard(ranks);
    if (JSON.stringify(groups(dense)) !== JSON.stringify(groups(ranks))) wrong.push(["standard", ranks, dense]);
  }
  return wrong.slice(0, 3);
}"""


def test_moving_one_answer_leaves_the_others_in_their_order(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("mover")
    assert desk.page.evaluate(RANKS) == []
    standard = "async (ranks) => (await import('/static/label/ranks.js')).standard(ranks)"
    assert desk.page.evaluate(standard, [2, 2, 4, None]) == [1, 1, 3, None]


def test_an_answer_can_be_dropped_between_two_others(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("between")
    for slot in range(3):
        desk.drag(slot, slot + 1)
    desk.drag_to(3, desk.row(2), 0.1)
    assert desk.rows() == {1: [0], 2: [3], 3: [1], 4: [2]}
    desk.drag_to(2, desk.row(1), 0.1)
    assert desk.rows() == {1: [2], 2: [0], 3: [3], 4: [1]}
    desk.drag_to(2, desk.page.locator(".tray"), 0.5)
    assert desk.rows()[0] == [2]
    desk.chip(0).hover()
    desk.page.mouse.down()
    desk.page.mouse.move(10, 10, steps=3)
    desk.page.keyboard.press("Escape")
    desk.page.mouse.up()
    assert desk.rows()[2] == [0]


def test_nothing_counts_until_it_is_touched(sit_down: Callable[..., Desk], office: tuple[Place, Server]) -> None:
    desk = sit_down("hasty")
    desk.page.keyboard.press("Control+Enter")
    problem = desk.page.locator(".problem")
    assert "Still to do: rate A, B, C, D; rank A, B, C, D." in problem.inner_text()
    for slot in range(4):
        desk.rate(slot, 4)
    desk.drag(0, 1)
    desk.page.get_by_role("button", name="Submit").click()
    assert "Still to do: rank B, C, D." in problem.inner_text()
    assert said(office[0], "hasty") == []
    desk.page.get_by_label("All answers are bad").check()
    desk.chip(0).focus()
    desk.page.keyboard.press("0")
    desk.submit()
    ((_, payload),) = said(office[0], "hasty")
    assert (payload["ranks"], payload["all_bad"]) == (None, True)


def test_a_draft_survives_a_reload(sit_down: Callable[..., Desk], office: tuple[Place, Server]) -> None:
    desk = sit_down("reloader")
    desk.rate(1, 6)
    desk.drag(1, 2)
    desk.page.locator("#answer-1 textarea").fill("good")
    desk.page.locator(".status", has_text="Draft saved").wait_for()
    desk.open()
    assert desk.rows() == {2: [1], 0: [0, 2, 3]}
    assert desk.page.locator("#answer-1 .rating input").nth(5).is_checked()
    desk.rate(2, 1)
    desk.open()  # at once: it is sent while the page is left
    assert desk.page.locator("#answer-2 .rating input").nth(0).is_checked()
    assert desk.page.locator("#answer-1 textarea").input_value() == "good"
    elsewhere = sit_down("reloader")  # another machine has what the server knows
    assert elsewhere.rows() == {2: [1], 0: [0, 2, 3]}
    assert said(office[0], "reloader") == []


def finish(desk: Desk) -> None:
    """Fills in the whole task: A is best."""
    for slot in range(4):
        desk.rate(slot, 5)
        desk.page.locator(f"#answer-{slot} .rank label").nth(slot).click()


def test_undo_and_revise(sit_down: Callable[..., Desk], office: tuple[Place, Server]) -> None:
    desk = sit_down("second thoughts")
    first = desk.texts()
    finish(desk)
    desk.submit()
    desk.page.wait_for_function(GONE_ON, arg=first[0])
    desk.page.keyboard.press("u")
    desk.page.locator(".toast", has_text="Undone").wait_for()
    assert desk.texts() == first
    assert desk.rows() == {1: [0], 2: [1], 3: [2], 4: [3]}
    assert [status for status, _ in said(office[0], "second thoughts")] == ["undone"]
    desk.drag(3, 3)
    desk.submit()
    desk.page.wait_for_function(GONE_ON, arg=first[0])

    desk.page.keyboard.press("h")
    desk.page.get_by_role("dialog").get_by_role("button", name=re.compile("^Open")).click()
    desk.page.locator(".banner", has_text="You are changing").wait_for()
    assert desk.rows() == {1: [0], 2: [1], 3: [2, 3]}
    desk.drag(0, 4)
    desk.page.reload()
    desk.page.locator(".banner", has_text="You are changing").wait_for()
    assert desk.rows() == {2: [1], 3: [2, 3], 4: [0]}
    desk.page.get_by_role("button", name="Save the change").click()
    desk.saved()
    ((status, payload),) = said(office[0], "second thoughts")
    assert status == "submitted"
    assert payload["ranks"] == {first[0]: 4, first[1]: 1, first[2]: 2, first[3]: 2}
    desk.page.keyboard.press("h")
    desk.page.get_by_role("dialog").locator(".history", has_text="4 versions").wait_for()


def test_skip_with_a_reason_and_report(sit_down: Callable[..., Desk], office: tuple[Place, Server]) -> None:
    desk = sit_down("skipper")
    first = desk.texts()[0]
    desk.rate(0, 3)
    desk.page.keyboard.press("s")
    dialog = desk.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Skip this task").click()
    assert "Choose a reason" in dialog.inner_text()
    dialog.get_by_label("I cannot decide").check()
    dialog.get_by_role("button", name="Skip this task").click()
    desk.page.locator(".toast", has_text="Skipped").wait_for()
    desk.page.wait_for_function(GONE_ON, arg=first)
    second = desk.texts()[0]
    desk.rate(1, 2)  # reported at once: before the draft was sent by itself
    desk.page.keyboard.press("p")
    desk.page.keyboard.press("Space")
    dialog.get_by_label("Another reason").fill("a telephone number")
    dialog.get_by_role("button", name="Report the prompt").click()
    desk.page.wait_for_function(GONE_ON, arg=second)
    (skipped, flagged) = said(office[0], "skipper")
    assert skipped == ("skipped", {"reason": "I cannot decide", "comment": ""})
    assert flagged == ("flagged", {"reason": "It makes no sense", "comment": "a telephone number"})
    desk.page.locator(".toast").wait_for()
    desk.page.keyboard.press("u")
    desk.page.keyboard.press("u")  # while the first is under way: takes nothing more back
    desk.page.locator(".toast", has_text="Undone").wait_for()
    assert desk.texts()[0] == second
    assert desk.page.locator("#answer-1 .rating input").nth(1).is_checked()
    assert [status for status, _ in said(office[0], "skipper")] == ["skipped", "undone"]


def test_keys_are_silent_while_somebody_types(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("writer")
    field = desk.page.locator("#answer-0 textarea")
    field.click()
    desk.page.keyboard.type("s p u g h t b 1 2 ? j k")
    assert field.input_value() == "s p u g h t b 1 2 ? j k"
    desk.page.keyboard.press("Control+Enter")
    assert desk.page.get_by_role("dialog").count() == 0
    assert not desk.page.locator(".problem").is_visible()
    assert desk.page.locator(".rating input:checked").count() == 0
    assert not desk.page.get_by_label("All answers are bad").is_checked()


def test_keys_are_silent_while_characters_are_composed(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("composer")
    desk.page.keyboard.press("j")
    for event in ("{key: '5', code: 'Digit5', isComposing: true}", "{key: 'Process', code: 'KeyS', keyCode: 229}"):
        desk.page.evaluate(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{bubbles: true, ...{event}}}))")
    assert desk.page.locator(".rating input:checked").count() == 0
    assert desk.page.get_by_role("dialog").count() == 0
    desk.page.locator("#answer-0 textarea").click()
    ime = desk.context.new_cdp_session(desk.page)
    ime.send("Input.imeSetComposition", {"text": "ㄋㄧ", "selectionStart": 2, "selectionEnd": 2})
    ime.send("Input.insertText", {"text": "你好"})
    assert desk.page.locator("#answer-0 textarea").input_value() == "你好"


def test_shortcuts_are_shown_and_can_be_switched_off(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("reader")
    desk.page.keyboard.press("?")
    dialog = desk.page.get_by_role("dialog")
    assert "Shift + 1 … 9" in dialog.inner_text()
    desk.page.keyboard.press("s")  # silent behind a dialog
    assert desk.page.get_by_role("dialog").count() == 1
    dialog.get_by_label("Shortcuts are on").uncheck()
    desk.page.keyboard.press("Escape")
    for key in ("s", "g", "h", "b", "j", "5"):
        desk.page.keyboard.press(key)
    assert desk.page.get_by_role("dialog").count() == 0
    assert desk.page.locator(".is-chosen").count() == 0
    desk.page.keyboard.press("?")
    desk.page.get_by_role("dialog").get_by_label("Shortcuts are on").check()
    desk.page.keyboard.press("Escape")
    desk.page.keyboard.press("g")
    desk.page.get_by_role("dialog").get_by_text("Read everything first.").wait_for()


def test_letters_work_on_keyboards_without_latin_letters(sit_down: Callable[..., Desk]) -> None:
    desk = sit_down("cyrillic")
    desk.page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {bubbles: true, key: 'п', code: 'KeyG'}))"
    )
    assert desk.page.get_by_role("dialog", name="Guidelines").is_visible()


def test_a_task_on_a_phone(sit_down: Callable[..., Desk], office: tuple[Place, Server]) -> None:
    desk = sit_down("phone", viewport=PHONE, has_touch=True, is_mobile=True)
    assert desk.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert desk.page.get_by_role("button", name="Submit").is_visible()
    texts = desk.texts()
    for slot in range(4):
        desk.page.locator(f"#answer-{slot} .rating label").nth(2).tap()
    touch = desk.context.new_cdp_session(desk.page)
    for slot in range(4):
        desk.page.locator("aside").evaluate("(ranking) => ranking.scrollIntoView()")  # above the bar with the buttons
        start, end = desk.chip(slot).bounding_box(), desk.row(1 + slot % 3).bounding_box()
        at = [{"x": start["x"] + 12, "y": start["y"] + 12}]
        to = [{"x": end["x"] + end["width"] / 2, "y": end["y"] + end["height"] / 2}]
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at})
        for _ in range(3):  # a finger that comes to rest: after a fling Chromium takes the next tap for its end
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": to})
            desk.page.wait_for_timeout(100)
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        desk.page.locator(f".rows .chip[data-slot='{slot}']").wait_for()
    assert desk.rows() == {1: [0, 3], 2: [1], 3: [2]}
    desk.page.get_by_role("button", name="Submit").tap()
    desk.saved()
    ((_, payload),) = said(office[0], "phone")
    assert [payload["ranks"][text] for text in texts] == [1, 3, 4, 1]


def test_two_people_see_their_own_order_and_no_model(sit_down: Callable[..., Desk]) -> None:
    seen: list[str] = []
    orders = []
    for name in ("blind 1", "blind 2", "blind 3", "blind 4"):
        desk = sit_down(name)
        desk.page.on("response", lambda answer: seen.append(answer.text()) if "/api/" in answer.url else None)
        desk.open()
        orders.append(desk.texts())
        seen.append(desk.page.content() + desk.page.locator("div.label").inner_html())
    assert len({tuple(order) for order in orders}) > 1
    assert len({frozenset(order) for order in orders}) == 1
    assert not [text for text in seen if "model 1" in text or '"model"' in text]


@pytest.mark.slow
def test_no_attack_runs_or_loads_anything(browser: Any, make_place: Callable[..., Place]) -> None:
    name = "<img src=x onerror=pwned()>${pwned()}{{7}}"
    place = make_place(name="{{pwned()}}<script>pwned()</script>${pwned()}", overlap=3)
    turns = [{"role": "user" if index % 2 == 0 else "assistant", "content": text} for index, text in enumerate(CORPUS)]
    turns.append({"role": "user", "content": "last"})
    for first in range(0, len(CORPUS), 9):
        some = CORPUS[first : first + 9]
        answers = tuple(adding.NewAnswer(text, {}) for text in (some if len(some) > 1 else [*some, "another"]))
        place.add([adding.NewPrompt(turns if first == 0 else [{"role": "user", "content": some[0]}], "", answers)])
    place.member(name)
    server = Server(place.app)
    desk = Desk(browser, server.url, place.token(name))
    ran: list[str] = []
    desk.page.expose_function("pwned", lambda: ran.append("pwned"))
    desk.page.on("dialog", lambda dialog: ran.append(dialog.message))
    desk.open()
    n_seen = 0
    while desk.page.locator(".answer").count():
        texts = desk.texts()
        n_seen += len(texts)
        desk.page.keyboard.press("t")
        raw = desk.page.locator(".answer .text").evaluate_all("(all) => all.map((one) => one.textContent)")
        assert all(text in [*CORPUS, "another"] for text in raw)  # shown as they are written
        desk.page.keyboard.press("t")
        comment = desk.page.locator("#answer-0 textarea")
        comment.fill(CORPUS[n_seen % len(CORPUS)])
        desk.page.get_by_label("All answers are bad").check()
        for slot in range(len(texts)):
            desk.rate(slot, 1)
        desk.submit()
        desk.page.wait_for_function(GONE_ON, arg=texts[0])
    assert n_seen >= len(CORPUS)
    desk.page.keyboard.press("h")
    desk.page.get_by_role("dialog").get_by_role("button", name=re.compile("^Open")).last.click()
    desk.page.wait_for_selector(".banner")
    desk.page.goto(f"{server.url}/account")
    desk.page.wait_for_timeout(300)
    assert ran == []
    desk.close()
    server.stop()


def test_practice_tells_how_it_went(browser: Any, make_place: Callable[..., Place]) -> None:
    place = make_place(practice={"required": 1, "pass_share": 0})
    place.add([prompt("practice", 4, expected=(1, 2, 3, 4), explanation="<b>the first</b> is true")], "practice")
    place.tasks(1)
    place.member("pupil")
    server = Server(place.app)
    desk = Desk(browser, server.url, place.token("pupil")).open()
    assert "Practice" in desk.page.locator(".banner").inner_text()
    first = desk.texts()
    finish(desk)
    desk.page.get_by_role("button", name="Submit").click()
    told = desk.page.get_by_role("dialog", name="Practice result")
    told.wait_for()
    assert desk.page.locator(".toast").inner_text() == "Saved."  # without Undo
    order = sorted(range(4), key=lambda slot: int(first[slot].split()[1]))
    assert " > ".join("ABCD"[slot] for slot in order) in told.inner_text()
    assert "<b>the first</b> is true" in told.inner_text()
    desk.page.keyboard.press("Escape")
    desk.page.wait_for_function(GONE_ON, arg=first[0])
    assert desk.page.locator(".banner").count() == 0
    desk.close()
    server.stop()


def test_a_session_that_ends_keeps_what_was_submitted(
    sit_down: Callable[..., Desk], office: tuple[Place, Server]
) -> None:
    desk = sit_down("sleeper")
    finish(desk)
    invitations.revoke(office[0].project.store, "sleeper")
    desk.page.get_by_role("button", name="Submit").click()
    desk.page.locator(".problem", has_text="logged out").wait_for()
    assert said(office[0], "sleeper") == []
    again = sessions.login(office[0].project.store, "sleeper", "four words or more", "10.0.0.1")
    desk.context.add_cookies(
        [{"name": "align_label", "value": again, "url": desk.url, "httpOnly": True, "sameSite": "Strict"}]
    )
    desk.page.reload()
    desk.saved()
    assert len(said(office[0], "sleeper")) == 1
    desk.errors = [error for error in desk.errors if "401" not in error]  # Chromium's own note of the refusal
