"""Formulas and code as a browser draws them: with a font of ours, in columns, in colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from browser import PHONE, Server
from browsing import Desk
from served import Place
from test_accessible import CONTRAST

from apps.store import adding

ANSWERS = (
    r"$$x = \frac{-b \pm \sqrt{b^2-4ac}}{2a} \left(\sum_{i=1}^n \frac{1}{i}\right) \textcolor{red}{\text{red}}$$",
    r"$$\begin{aligned} long + a &= b + c \\ &= d \end{aligned}$$",
    f"so $\\frac{{1}}{{2$ and\n\n```python\ndef f(x):\n    return x  # so\n```\n\nas ${' + '.join(['wide'] * 40)}$",
)
# What is drawn of each answer, by the text that it is known by.
MEASURED = """() => {
  const root = document.getElementById("align-label").shadowRoot;
  const box = (css) => root.querySelector(css).getBoundingClientRect();
  const seconds = [...root.querySelectorAll("mtd:nth-child(2) > *")];
  const color = (css) => getComputedStyle(root.querySelector(css)).color;
  return {
    root: box("msqrt").width - box("msqrt > *").width,
    bracket: box("mo[form=prefix][fence]").height / box("mfrac mi").height,
    equals: seconds.map((row) => Math.round(row.getBoundingClientRect().left)),
    written: root.querySelector(".as-written").textContent,
    colours: ["pre", "pre .k", "pre .f", "pre .c"].map(color),
    wide: document.documentElement.scrollWidth > innerWidth,
  };
}"""


def added(place: Place, *answers: str) -> None:
    texts = tuple(adding.NewAnswer(text, {}) for text in answers)
    place.add([adding.NewPrompt([{"role": "user", "content": "solve"}], "", texts)])


@pytest.mark.slow
def test_formulas_and_code_are_drawn(browser: Any, make_place: Callable[..., Place]) -> None:
    place = make_place(overlap=1)
    server = Server(place.app)
    asked: list[str] = []

    def sits_down(name: str, **context: Any) -> Desk:
        place.member(name)
        desk = Desk(browser, server.url, place.token(name), **context)
        desk.page.on("request", lambda request: asked.append(request.url) if "math.ttf" in request.url else None)
        return desk.open()

    added(place, "one", "`two`")
    plain = sits_down("ada")
    added(place, *ANSWERS)
    desk = sits_down("bob", viewport=PHONE, color_scheme="dark")
    desk.page.wait_for_function("() => [...document.fonts].some((font) => font.status === 'loaded')")
    assert asked == [f"{server.url}/static/math.ttf"]  # and not for the task without a formula
    drawn = desk.page.evaluate(MEASURED)
    assert drawn["root"] > 5  # the sign has a width; without a font for it there is none
    assert drawn["bracket"] > 2
    assert len(drawn["equals"]) == 2
    assert len(set(drawn["equals"])) == 1  # one below the other
    assert drawn["written"] == r"\frac{1}{2"
    assert len(set(drawn["colours"])) == 4
    assert not drawn["wide"]
    for scheme in ("dark", "light"):
        desk.page.emulate_media(color_scheme=scheme)
        desk.open()
        contrasts = desk.page.evaluate(CONTRAST)
        assert {"def", "# so", "red"} <= {text for text, _, _ in contrasts}
        assert not [found for found in contrasts if found[1] < found[2]]
    desk.page.keyboard.press("t")
    raw = desk.page.locator(".answer .text").evaluate_all("(all) => all.map((one) => one.textContent)")
    assert sorted(raw) == sorted(ANSWERS)
    plain.close()
    desk.close()
    server.stop()
