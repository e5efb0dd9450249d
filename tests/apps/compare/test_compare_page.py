"""The comparison in a real browser: it streams, stops, colours, votes, and runs nothing that a model says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks import CORPUS
from browser import PHONE, Server, problems
from comparing import Pace, Page, Parrot, Place, of_side, question

from apps.label.__main__ import main as label

# Every token of the answers that is coloured, with the class of its colour.
SHADES = """() => [...document.getElementById("align-compare").shadowRoot.querySelectorAll(".t")]
  .map((token) => getComputedStyle(token).backgroundColor)"""


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Page]]:
    """Opens the page of a place, as somebody where it has accounts. At the end nothing may have gone wrong."""
    pages, servers = [], []

    def opening(place: Place, name: str = "", view: str = "", **context: Any) -> Page:
        server = Server(place.app)
        servers.append(server)
        token = None
        if place.project is not None:
            place.member(name or "ada")
            token = place.token(name or "ada")
        page = Page(browser, server.url, token, **context)
        pages.append(page)
        page.context.expose_function("pwned", lambda *_: page.errors.append("a text was run"))
        page.page.on("dialog", lambda dialog: page.errors.append(dialog.message))
        return page.open(view)

    yield opening
    for page in pages:
        page.close()
    for server in servers:
        server.stop()


def parrots(place: Place, *texts: str) -> None:
    """Models that say these, one after the other."""
    names = list(place.loaded.by_name)
    for name, text in zip(names, texts, strict=True):
        place.loaded.by_name[name] = Parrot(name, text, place.loaded.by_name["sft"])  # type: ignore[assignment]


def test_answers_appear_token_by_token_side_by_side(
    make_place: Callable[..., Place], open_page: Any, pace: Pace
) -> None:
    page = open_page(make_place(seed=9))
    page.ask("say red blue")
    cards = page.page.locator(".answer")
    page.page.get_by_text("Answering …").wait_for()
    for n in range(1, 4):
        pace.let(3)  # one for each model
        for index in range(3):
            cards.nth(index).locator(".t").nth(n - 1).wait_for(state="attached")
        counts = [cards.nth(index).locator(".t").count() for index in range(3)]
        assert counts == [n] * 3  # and no more than were let
        assert page.page.locator(".answer footer li").count() == 0 or n > 1
    boxes = [cards.nth(index).bounding_box() for index in range(3)]
    assert len({box["y"] for box in boxes}) == 1
    assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    pace.free()
    page.done()
    assert [h2.strip() for h2 in page.page.locator(".answer h2").all_inner_texts()] == ["base", "sft", "ppo"]
    for index in range(3):
        facts = cards.nth(index).locator("footer").inner_text()
        assert "reward" in facts
        assert "tokens" in facts
        assert ("KL" in facts) == (index != 1)  # sft is the reference


def test_thoughts_are_folded_above_the_answer(make_place: Callable[..., Place], open_page: Any) -> None:
    place = make_place()
    attack = "one <img src=x onerror=pwned(1)>"
    for name in list(place.loaded.by_name):
        parrot = Parrot(name, "red blue", place.loaded.by_name["sft"], attack)
        place.loaded.by_name[name] = parrot  # type: ignore[assignment]
    page = open_page(place)
    page.ask("say red")
    page.done()
    tokens, fold = page.page.locator(".answer .tokens").first, page.page.locator(".answer .thoughts").first
    assert tokens.inner_text().split() == ["Thoughts", "red", "blue"]
    fold.locator("summary").click()
    assert fold.inner_text().splitlines()[-1] == attack


def test_stop_stops_and_the_next_question_works(make_place: Callable[..., Place], open_page: Any, pace: Pace) -> None:
    page = open_page(make_place(seed=9))
    page.ask("say red blue")
    pace.let(3)
    page.page.locator(".answer").nth(2).locator(".t").first.wait_for(state="attached")
    drawn = pace.n_drawn
    with page.page.expect_response("**/stop"):  # only then may it go on: a stop is heeded between two tokens
        page.page.keyboard.press("Escape")
    page.page.get_by_text("Stopping …").wait_for()
    pace.let(3)
    page.done("Stopped.")
    assert pace.n_drawn <= drawn + 3
    assert page.page.locator(".answer .state", has_text="stopped").count() > 0
    pace.free()
    page.ask("say sun")
    page.done()
    assert page.page.locator(".turn").count() == 2
    assert page.page.locator(".turn").nth(1).locator("footer li").count() > 3


def test_a_question_that_waits_says_so_and_can_be_taken_back(
    make_place: Callable[..., Place], open_page: Any, pace: Pace
) -> None:
    place = make_place()
    first = open_page(place)
    first.ask("say red")
    first.page.get_by_text("Answering …").wait_for()
    second = first.context.new_page()
    second.goto(f"{first.url}/app/")
    second.get_by_label("Question", exact=True).fill("say blue")
    second.keyboard.press("Control+Enter")
    second.get_by_text("Waiting: 1 ahead of you …").wait_for()
    second.get_by_role("button", name="Stop").click()
    second.get_by_text("Withdrawn.").wait_for()
    assert second.get_by_label("Question", exact=True).input_value() == "say blue"  # to be asked again
    assert second.locator(".turn").count() == 0
    pace.free()
    first.done()
    second.get_by_role("button", name="Ask").click()
    second.locator(".status", has_text="Done.").wait_for()


def test_a_full_line_is_told_and_nothing_is_lost(make_place: Callable[..., Place], open_page: Any, pace: Pace) -> None:
    page = open_page(make_place(queue={"waiting": 0}))
    other = page.context.new_page()
    other.goto(f"{page.url}/app/")
    other.get_by_label("Question", exact=True).fill("say red")
    other.get_by_role("button", name="Ask").click()
    other.get_by_text("Answering …").wait_for()
    page.ask("say blue")
    page.page.get_by_text("The queue is full: 1 questions ahead of you. Try again in a moment.").wait_for()
    assert page.page.get_by_label("Question", exact=True).input_value() == "say blue"
    page.errors.clear()  # Chromium's own line about the answer 409
    pace.free()
    other.locator(".status", has_text="Done.").wait_for()
    page.page.get_by_role("button", name="Ask").click()
    page.done()


def test_colours_come_with_a_legend_and_numbers(place: Place, open_page: Any) -> None:
    page = open_page(place)
    page.ask("say red blue")
    page.done()
    page.page.locator(".answer footer .reward").nth(2).wait_for()
    legend, choice = page.page.locator(".legend"), page.page.get_by_label("Colour tokens by")
    seen = {}
    for shade, words in (
        ("KL to the reference", "KL(model ‖ reference)"),
        ("Log probability", "Darker is less likely"),
        ("Log ratio to the reference", "Blue: more likely under the model"),
    ):
        choice.select_option(label=shade)
        assert words in legend.inner_text()
        assert legend.locator(".swatch").count() in (6, 7)
        seen[shade] = page.page.evaluate(SHADES)
    assert len({tuple(colours) for colours in seen.values()}) == 3
    assert all(len(set(colours)) >= 2 for colours in seen.values())
    choice.select_option(label="No colours")
    assert set(page.page.evaluate(SHADES)) == {"rgba(0, 0, 0, 0)"}
    assert legend.inner_text() == ""
    tokens = page.page.locator(".answer").nth(2).locator(".tokens")
    tokens.focus()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("ArrowLeft")
    told = page.page.locator(".answer").nth(2).locator(".readout").inner_text()
    assert told.startswith("1 of ")
    for part in ("log p −", "reference −", "KL "):
        assert part in told


def test_the_colours_of_tokens_are_those_of_their_figures(place: Place, open_page: Any) -> None:
    page = open_page(place)
    page.ask("say red blue")
    page.done()
    again = place.member().events("ask", question("say red blue", "base", "sft", "ppo"))  # of the same seed
    (figures,) = of_side(again, 2, "figures")
    page.page.get_by_label("Colour tokens by").select_option(label="Log probability")
    classes = [token.get_attribute("class") for token in page.page.locator(".answer").nth(2).locator(".t").all()]
    bounds = [0.1, 0.5, 1, 2, 4]
    expected = [f"s{sum(-value >= bound for bound in bounds)}" for value in figures["logprobs"]]
    assert [name.split()[-1] for name in classes] == expected


def test_a_conversation_and_settings(place: Place, open_page: Any) -> None:
    page = open_page(place)
    page.page.get_by_label("ppo").uncheck()
    page.page.get_by_label("Max tokens").fill("5")
    page.page.get_by_label("Temperature").fill("0")
    sent = []
    page.page.on("request", lambda one: sent.append(one.post_data_json) if one.url.endswith("/api/ask") else None)
    page.ask("say red")
    page.done()
    page.page.get_by_label("Seed").fill("77")
    page.ask("say blue")
    page.done()
    first, second = sent
    assert first["models"] == second["models"] == ["base", "sft"]
    assert first["sampling"] == {"max_tokens": 5, "temperature": 0, "top_k": 0, "top_p": 1}
    assert (first["seed"], second["seed"]) == (1, 77)
    for thread in second["threads"]:
        assert [turn["role"] for turn in thread] == ["user", "assistant", "user"]
    assert len({thread[1]["content"] for thread in second["threads"]}) == 2  # each model goes on with its own answer
    page.page.get_by_role("button", name="New conversation").click()
    assert page.page.locator(".turn").count() == 0
    page.ask("say sun")
    page.done()
    assert [len(thread) for thread in sent[2]["threads"]] == [1, 1]


def test_what_cannot_be_asked_is_said_before_it_is_sent(place: Place, open_page: Any) -> None:
    page = open_page(place)
    problem = page.page.locator(".problem")
    page.page.get_by_role("button", name="Ask").click()
    assert "The question is empty. Write one." in problem.inner_text()
    for name in ("base", "sft", "ppo"):
        page.page.get_by_label(name).uncheck()
    page.ask("say red")
    assert "No model is chosen" in problem.inner_text()
    page.page.get_by_label("base").check()
    page.page.get_by_label("Max tokens").fill("33")
    page.ask("say red")
    assert problem.inner_text().startswith("Max tokens")
    page.page.get_by_label("Max tokens").fill("32")
    page.ask("say red")
    page.done()
    assert problem.is_hidden()


def test_a_long_question_is_told_in_its_column(place: Place, open_page: Any) -> None:
    page = open_page(place)
    page.ask("red " * 80)
    page.done()
    complaints = page.page.locator(".answer .complaint").all_inner_texts()
    assert len(complaints) == 3
    assert all("the limit with the answer is" in words for words in complaints)
    page.ask("say red")  # no model's thread has the long one
    page.done()
    assert page.page.locator(".turn").nth(1).locator(".complaint").count() == 0


@pytest.mark.slow
def test_no_attack_runs_or_loads_anything(make_place: Callable[..., Place], open_page: Any) -> None:
    place = make_place(arena=True)
    page = open_page(place, "${pwned()}<img src=x onerror=pwned()>")
    texts = [text.replace("\0", "") for text in CORPUS]
    threes = [[*texts[n : n + 3], "last", "last"][:3] for n in range(0, len(texts), 3)]
    for clean in threes:
        parrots(place, *clean)
        page.ask(clean[0])
        page.done()
        turn = page.page.locator(".turn").last
        assert turn.locator(".question p").evaluate("(p) => p.textContent") == clean[0].strip()
        shown = turn.locator(".tokens").evaluate_all("(all) => all.map((one) => one.textContent)")
        assert shown == clean
        assert turn.locator(".tokens *:not(.t)").count() == 0
        page.page.get_by_role("button", name="New conversation").click()
    page.page.goto(f"{page.url}/app/#arena")
    for clean in threes[:-1]:
        parrots(place, *clean)
        page.ask(clean[0], "Ask two models")
        page.page.locator(".status", has_text="Which is better?").wait_for()
        shown = page.page.locator(".tokens").evaluate_all("(all) => all.map((one) => one.textContent)")
        assert set(clean) >= set(shown)


def test_names_of_models_are_text(make_place: Callable[..., Place], models: Any, open_page: Any) -> None:
    sft = models["models"]["sft"]
    names = ["<img src=x onerror=pwned()>", "${pwned()}"]
    place = make_place(arena=True, models=dict.fromkeys(names, sft), name="<b>{{7*7}}", reference=names[0])
    for name, text in zip(names, ("x", "y"), strict=True):
        place.loaded.by_name[name] = Parrot(name, text, place.loaded.by_name["sft"])  # type: ignore[assignment]
    for name in ("base", "sft", "ppo"):
        del place.loaded.by_name[name]
    page = open_page(place)
    assert page.page.locator(".top h1").inner_text() == "<b>{{7*7}}"
    page.ask("say red")
    page.done()
    assert page.page.locator(".answer h2").all_inner_texts() == names
    page.page.goto(f"{page.url}/app/#arena")
    page.ask("say red", "Ask two models")
    page.page.get_by_role("button", name="A is better").click()
    page.done("Saved.")
    assert sorted(page.page.locator(".answer h2 bdi").all_inner_texts()) == sorted(names)
    page.page.goto(f"{page.url}/app/#board")
    page.page.get_by_text("Not ranked").wait_for()
    assert names[0] in page.page.locator(".board").inner_text()


# --------------------------------------------------------------------------------------------------------------- arena


def test_a_blind_battle_by_keyboard_is_stored_and_exported(
    arena: Place, open_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parrots(arena, "by the first", "by the second", "by the third")
    makers = dict(zip(("by the first", "by the second", "by the third"), arena.recipe.models, strict=True))
    page = open_page(arena, view="#arena")
    told: dict[str, list[str]] = {}

    def listen(route: Any) -> None:
        answer = route.fetch()
        told.setdefault(route.request.url.rpartition("/")[2], []).append(answer.text())
        route.fulfill(response=answer)

    page.page.route("**/api/**", listen)
    page.page.keyboard.type("say red blue")
    page.page.keyboard.press("Control+Enter")
    page.done("Which is better?")
    assert list(told) == ["battle"]
    assert not any(name in told["battle"][0] for name in arena.recipe.models)
    assert page.page.locator(".answer h2").all_inner_texts() == ["A", "B"]
    assert page.page.locator(".answer footer li").count() == 0
    texts = page.answers()
    page.page.wait_for_timeout(200)  # seconds are kept to a tenth
    page.page.keyboard.press("Enter")  # which is no vote
    page.page.keyboard.press("2")
    page.done("Saved.")
    names = json.loads(told["vote"][0])["names"]
    assert names == [makers[text] for text in texts]
    assert page.page.locator(".answer h2").all_inner_texts() == [f"A: {names[0]}", f"B: {names[1]}"]
    assert page.page.locator(".answer.is-winner h2").all_inner_texts() == [f"B: {names[1]}"]
    page.page.get_by_label("Your vote").focus()
    page.page.keyboard.press("1")  # decided: nothing happens
    assert (list(told), len(told["vote"])) == (["battle", "vote"], 1)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["label", "export", str(arena.recipe.arena), "--out", str(out)])
    label()
    (row,) = [json.loads(line) for line in (out / "rankings.jsonl").read_text().splitlines()]
    assert dict(zip(row["models"], row["ranks"], strict=True)) == {names[0]: 2, names[1]: 1}
    assert row["annotator"] == "ada"
    assert row["seconds"] > 0


def test_a_vote_whose_answer_is_lost_is_sent_again_and_saved_once(arena: Place, open_page: Any) -> None:
    parrots(arena, "x", "y", "z")
    page = open_page(arena, view="#arena")
    page.ask("say red", "Ask two models")
    page.done("Which is better?")

    def lose(route: Any) -> None:
        route.fetch()  # it reaches the server
        route.abort()  # and its answer is lost

    page.page.route("**/api/vote", lose, times=1)
    page.page.get_by_role("button", name="Tie").click()
    page.page.get_by_text("Not saved: The server cannot be reached.").wait_for()
    assert page.page.locator(".answer h2").all_inner_texts() == ["A", "B"]
    page.errors.clear()  # Chromium's own line about the lost answer
    page.page.get_by_role("button", name="Tie").click()
    page.done("Saved.")
    page.page.goto(f"{page.url}/app/#board")
    page.page.get_by_text("1 votes by 1 person.").wait_for()


def test_the_leaderboard_shows_places_intervals_and_a_figure(arena: Place, open_page: Any) -> None:
    from offices import new_id

    parrots(arena, "x", "y", "z")
    voter = arena.member("voter")
    for n in range(70):
        events = voter.events("battle", {"prompt": f"question {n}"})
        texts = [event["text"] for event in events if "end" in event]
        good = max(texts) if n % 5 else min(texts)
        voter.vote(events[-1]["battle"], "ab"[texts.index(good)], new_id())
    page = open_page(arena, view="#board")
    table = page.page.locator("table")
    table.wait_for()
    assert [row.locator("td").nth(1).inner_text() for row in table.locator("tbody tr").all()] == ["ppo", "sft", "base"]
    assert " to " in table.locator("tbody td").nth(3).inner_text()
    assert page.page.locator(".board img").evaluate("(img) => img.complete && img.naturalWidth > 100")


def test_stop_ends_a_battle_without_a_vote(arena: Place, open_page: Any, pace: Pace) -> None:
    page = open_page(arena, view="#arena")
    page.ask("say red", "Ask two models")
    page.page.get_by_text("Answering …").wait_for()
    pace.let(2)
    page.page.locator(".answer").nth(1).locator(".t").first.wait_for(state="attached")
    with page.page.expect_response("**/stop"):  # only then may it go on: a stop is heeded between two tokens
        page.page.get_by_role("button", name="Stop").click()
    pace.let(2)
    page.done("Stopped.")
    assert all(button.is_disabled() for button in page.page.locator(".verdicts button").all())
    pace.free()


def test_a_session_that_ended_is_told_with_a_way_back(arena: Place, open_page: Any) -> None:
    page = open_page(arena)
    page.context.clear_cookies()
    page.ask("say red")
    page.page.get_by_role("link", name="Log in again").wait_for()
    assert page.page.get_by_label("Question", exact=True).input_value() == "say red"
    page.errors.clear()  # Chromium's own line about the answer 401


# --------------------------------------------------------------------------------------------------- phone, dark, focus


@pytest.mark.parametrize("view", ["", "#arena", "#board"])
def test_it_fits_a_phone(arena: Place, open_page: Any, view: str) -> None:
    parrots(arena, "a word " * 30, "unbroken" * 30, "x")
    page = open_page(arena, view=view, viewport=PHONE, has_touch=True)
    if view != "#board":
        page.ask("say red " * 20, "Ask two models" if view else "Ask")
        page.done("Which is better?" if view else "Done.")
        boxes = [one.bounding_box() for one in page.page.locator(".answer").all()]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] for box in boxes)
        assert len({box["x"] for box in boxes}) == 1  # one below the other
    assert page.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious(arena: Place, open_page: Any, scheme: str) -> None:
    for name, view in (("ada", ""), ("bob", "#arena"), ("cyd", "#board")):
        page = open_page(arena, name, view=view, color_scheme=scheme, reduced_motion="reduce")
        if view != "#board":
            page.ask("say red", "Ask two models" if view else "Ask")
            page.done("Which is better?" if view else "Done.")
        assert problems(page.page) == [], view


def test_every_control_has_a_name_and_is_reached_by_the_keyboard(place: Place, open_page: Any) -> None:
    page = open_page(place)
    page.ask("say red")
    page.done()
    for control in page.page.locator("button, input, select, textarea").all():
        name = control.evaluate("(e) => (e.labels?.[0]?.textContent ?? '') + (e.ariaLabel ?? '') + e.textContent")
        assert name.strip()
    page.page.locator(".choice input").first.focus()
    reached = set()
    for _ in range(30):
        focused = "document.getElementById('align-compare').shadowRoot.activeElement"
        tag = page.page.evaluate(f"{focused} && ({focused}.tagName + '.' + {focused}.className)")
        reached.add(tag)
        page.page.keyboard.press("Tab")
    assert {"TEXTAREA.", "BUTTON.primary", "SELECT.", "DIV.tokens", "INPUT."} <= reached


CONTRAST = """() => {
  const root = document.getElementById("align-compare").shadowRoot;
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((part, index) => (index < 3 ? part : part / 255));
  };
  const over = (above, below) => below.map((part, index) => above[index] * above[3] + part * (1 - above[3]));
  const light = (color) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return [0.2126, 0.7152, 0.0722].reduce((sum, share, n) => sum + share * linear(color[n] / 255), 0);
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, above) => over(above, below), [255, 255, 255]);
  };
  const found = [];
  for (const element of root.querySelectorAll(".compare *")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || element.matches(":disabled, :disabled *") || !element.checkVisibility()) continue;
    const ground = behind(element);
    const [a, b] = [light(over(rgba(getComputedStyle(element).color), ground)), light(ground)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([contrast, element.className, element.textContent.slice(0, 30)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_every_text_can_be_read_on_every_colour(place: Place, open_page: Any, scheme: str) -> None:
    page = open_page(place, color_scheme=scheme)
    page.ask("say red blue")
    page.done()
    tokens = page.page.locator(".t").all()
    assert len(tokens) > 13
    shades = [f"s{n}" for n in range(6)] + [f"d{n}" for n in range(7)]
    for token, shade in zip(tokens, shades, strict=False):
        token.evaluate("(e, shade) => { e.className = `t ${shade}`; e.textContent = 'word'; }", shade)
    found = page.page.evaluate(CONTRAST)
    assert len(found) > 40
    assert [row for row in found if row[0] < 4.5] == []
