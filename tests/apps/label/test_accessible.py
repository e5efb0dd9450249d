"""What WCAG 2.2 AA asks of the labelling page and can be measured: names, contrast, focus, the size of targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from browser import PHONE, Server, problems
from browsing import GONE_ON, Desk
from offices import prompt
from served import Place, project_in

from apps.store import invitations

# Every text that is seen, with its contrast to what lies behind it. Opacity counts.
CONTRAST = """() => {
  const root = document.getElementById("align-label").shadowRoot;
  const top = root.querySelector("dialog[open]") ?? root;
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((part, index) => (index < 3 ? part : part / 255));
  };
  const over = (above, below) => below.map((part, index) => above[index] * above[3] + part * (1 - above[3]));
  const luminance = (color) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = color.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, above) => over(above, below), [255, 255, 255]);
  };
  const found = [];
  for (const element of top.querySelectorAll("*")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
    if (!text || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
    const ground = behind(element);
    const ink = rgba(style.color);
    const [a, b] = [luminance(over([...ink.slice(0, 3), ink[3] * opacity], ground)), luminance(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    found.push([text.slice(0, 40), ratio, size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5]);
  }
  return found;
}"""

TARGETS = """() => {
  const root = document.getElementById("align-label").shadowRoot;
  const all = [...root.querySelectorAll("button, a, summary, select, textarea, .steps label, label.flag")];
  return all.filter((one) => one.checkVisibility()).map((one) => {
    const { width, height } = one.getBoundingClientRect();
    return [one.textContent.slice(0, 30), width, height];
  });
}"""

FOCUSED = """() => {
  let at = document.activeElement;
  while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
  if (!at || at === document.body) return null;
  const shown = at.matches(".steps input") ? at.nextElementSibling : at;
  const style = getComputedStyle(shown);
  const name = at.getAttribute("aria-label") ?? at.textContent.slice(0, 30);
  return [at.tagName, name, style.outlineStyle, parseFloat(style.outlineWidth)];
}"""


@pytest.fixture(scope="module")
def office(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Server]]:
    from apps.label.server import ranking_app

    project = project_in(tmp_path_factory.mktemp("accessible"), overlap=9)
    place = Place(project, ranking_app([project]))
    place.add([prompt("# A heading\n\n> quoted [link](http://a.example) `code`\n\n![picture](http://b.example)", 3)])
    place.member("ada")
    server = Server(place.app)
    yield place, server
    server.stop()
    project.store.close()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_every_text_can_be_read(browser: Any, office: tuple[Place, Server], scheme: str) -> None:
    place, server = office
    desk = Desk(browser, server.url, place.token("ada"), color_scheme=scheme, reduced_motion="reduce").open()
    for key in ("j", "5", "Shift+Digit1", "Control+Enter"):
        desk.page.keyboard.press(key)
    measured = desk.page.evaluate(CONTRAST)
    for key in "?ghsd":
        desk.page.keyboard.press(key)
        desk.page.get_by_role("dialog").wait_for()
        desk.page.wait_for_timeout(300)
        measured += desk.page.evaluate(CONTRAST)
        desk.page.keyboard.press("Escape")
    assert len(measured) > 150
    assert [text for text in measured if text[1] < text[2]] == []
    desk.close()


def test_every_control_has_a_name(browser: Any, office: tuple[Place, Server]) -> None:
    place, server = office
    desk = Desk(browser, server.url, place.token("ada")).open()
    tree = desk.page.locator("div.label").aria_snapshot()
    controls = re.findall(r"- (button|link|textbox|radio|checkbox|group|dialog|progressbar|complementary)\b(.*)", tree)
    assert len(controls) > 60
    assert [control for control in controls if not control[1].startswith(' "') and control[0] != "group"] == []
    assert '- textbox "Comment on Answer A"' in tree
    assert '- radio "Overall quality 7"' in tree
    assert '- button "Answer B, not ranked"' in tree
    desk.page.keyboard.press("j")
    desk.page.keyboard.press("Shift+Digit2")
    assert desk.page.locator("p.unseen").inner_text() == "Answer A: Rank 1"
    desk.close()


def test_the_focus_is_always_seen(browser: Any, office: tuple[Place, Server]) -> None:
    place, server = office
    desk = Desk(browser, server.url, place.token("ada")).open()
    seen = []
    for _ in range(25):
        desk.page.keyboard.press("Tab")
        focused = desk.page.evaluate(FOCUSED)
        assert focused is not None
        assert (focused[2], focused[3] >= 2) == ("solid", True), focused
        seen.append(focused[1])
    assert "Overall quality 1" in seen
    desk.close()


@pytest.mark.parametrize("window", ["laptop", "phone"])
def test_targets_are_large_enough(browser: Any, office: tuple[Place, Server], window: str) -> None:
    place, server = office
    shape = {"viewport": PHONE, "has_touch": True, "is_mobile": True} if window == "phone" else {}
    desk = Desk(browser, server.url, place.token("ada"), **shape).open()
    desk.page.keyboard.press("j")
    desk.page.keyboard.press("5")
    measured = desk.page.evaluate(TARGETS)
    assert len(measured) > 40
    assert [target for target in measured if min(target[1:]) < 24] == []  # WCAG 2.5.8
    desk.close()


def test_it_fits_into_a_window_of_320_pixels(browser: Any, office: tuple[Place, Server]) -> None:
    place, server = office
    desk = Desk(browser, server.url, place.token("ada"), viewport={"width": 320, "height": 640}).open()
    assert desk.page.evaluate("document.documentElement.scrollWidth") <= 320  # WCAG 1.4.10
    desk.close()


def test_right_to_left_and_chinese(browser: Any, office: tuple[Place, Server]) -> None:
    place, server = office
    place.add([prompt("مرحبا بالعالم\n\nhello world\n\n- שלום\n\n你好,世界。", 2)])
    place.member("bob")
    desk = Desk(browser, server.url, place.token("bob")).open()
    while "hello world" not in desk.page.locator(".prompt").inner_text():
        before = desk.texts()[0]
        desk.page.keyboard.press("s")
        desk.page.keyboard.press("Space")
        desk.page.keyboard.press("Enter")
        desk.page.wait_for_function(GONE_ON, arg=before)
        desk.page.wait_for_selector(".answer")
    blocks = desk.page.locator(".prompt .rendered > *")
    directions = [block.evaluate("(block) => getComputedStyle(block).direction") for block in blocks.all()]
    assert directions == ["rtl", "ltr", "rtl", "ltr"]
    edges = [block.evaluate(EDGE) for block in blocks.all()]
    assert edges == ["right", "left", "right", "left"]
    assert desk.page.evaluate("document.documentElement.lang") == "en"
    desk.close()


EDGE = """(block) => {
  const texts = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  while (texts.nextNode() && !texts.currentNode.data.trim());
  const range = document.createRange();
  range.selectNodeContents(texts.currentNode);
  const [text, box] = [range.getClientRects()[0], block.getBoundingClientRect()];
  return text.left - box.left > box.right - text.right ? "right" : "left";
}"""


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious(browser: Any, office: tuple[Place, Server], scheme: str) -> None:
    """On every page of ours; the lead's is looked at in test_lead_page.py, the comparison in test_compare_page.py."""
    place, server = office
    desk = Desk(browser, server.url, place.token("ada"), color_scheme=scheme, reduced_motion="reduce").open()
    for key in ("j", "5", "Shift+Digit1", "Control+Enter"):
        desk.page.keyboard.press(key)
    assert problems(desk.page) == []
    for key in "?ghsp":
        desk.page.keyboard.press(key)
        desk.page.get_by_role("dialog").wait_for()
        assert problems(desk.page) == [], key
        desk.page.keyboard.press("Escape")
    invitation = invitations.invite(place.project.store, "annotator").token
    for path in ("/account", "/projects", "/lead/", f"/invitation/{invitation}", "/invitation/none", "/login"):
        desk.page.goto(f"{server.url}{path}")
        assert problems(desk.page) == [], path
    desk.errors = [error for error in desk.errors if "status of 40" not in error]  # of what ada may not see
    desk.close()
