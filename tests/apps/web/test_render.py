"""Untrusted text as HTML: what is written is shown, and nothing of it can act."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from typing import Any

import pytest
from attacks import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it.ruler import Ruler
from pygments.lexers import get_all_lexers

from apps.web import code, render
from apps.web.render import ATTRIBUTES, CLASSES, MAX_CHARACTERS, TITLE, rendered


class Tags(HTMLParser):
    """Collects the elements and the text of a page, as a browser would read it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def is_harmless(html: str) -> bool:
    return all(
        tag in ATTRIBUTES
        and set(attrs) - {"class", "title"} <= ATTRIBUTES[tag]
        and set((attrs.get("class") or "").split()) <= CLASSES.get(tag, set())
        and attrs.get("title") in (None, TITLE)
        for tag, attrs in Tags(html).elements
    )


AROUND = [
    *("{}", "[{}](http://a.example)", "![{}]({})", "`{}`", "|a|\n|-|\n|{}|"),
    *("$${}$$", "$\\text{{{}}}$", "$\\begin{{array}}{{{}}}{}\\end{{array}}$", "$\\color{{{}}}{{x}}$"),
    *("```html\n{}\n```", "```{}\n{}\n```", "~~~js {}\n{}\n~~~"),
]


@pytest.mark.parametrize("text", CORPUS)
def test_no_attack_becomes_an_element(text: str) -> None:
    for around in AROUND:
        assert is_harmless(rendered(around.format(text, text))), around


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="<>&\"'`$\\{}[]()!*_#-|= \nab:/^", max_size=60))
def test_no_text_becomes_more_than_the_listed_elements(text: str) -> None:
    html = rendered(text)
    assert is_harmless(html)
    assert rendered(text) == html


def test_raw_html_is_shown_as_it_is_written() -> None:
    text = '<b onclick="x()">bold</b> &lt; <script>alert(1)</script>'
    assert Tags(rendered(text)).text.strip() == text.replace("&lt;", "<")
    assert [tag for tag, _ in Tags(rendered(text)).elements] == ["p"]


def test_images_and_links_become_words_with_their_address() -> None:
    html = rendered("![a cat](http://a.example/cat.png) and [this](http://b.example 'title') and <http://c.example>")
    assert "[image: a cat] (http://a.example/cat.png)" in html
    assert '<span class="link">this</span> (http://b.example)' in html
    assert html.count("http://c.example") == 1
    assert not {"img", "a"} & {tag for tag, _ in Tags(html).elements}


def test_markdown() -> None:
    html = rendered(
        "# One\n\n**two** _three_ ~~four~~\nfive\n\n1. six\n2. seven\n\n|a|b|\n|-|-|\n|1|2|\n\n```py\nx < y\n```"
    )
    for piece in ("<h1", "<strong>two</strong>", "<em>three</em>", "<s>four</s>", "<br>", "<li>six</li>", "<td>1</td>"):
        assert piece in html, piece
    assert "<pre><code>x &lt; y\n</code></pre>" in html


def test_code_is_in_colours() -> None:
    html = rendered("```python\ndef f(x):\n    return x < 2  # <b>\n```")
    assert '<span class="k">def</span> <span class="f">f</span>(x):' in html
    assert 'x &lt; <span class="m">2</span>  <span class="c"># &lt;b&gt;</span>' in html
    for text in ("```\nif x: 1\n```", "```klingon\nif x: 1\n```", "    if x: 1", f"```py\n{'x = 1 ' * 2_000}\n```"):
        assert "<span" not in rendered(text), text
    assert {alias for _, aliases, _, _ in get_all_lexers(plugins=False) for alias in aliases} >= code.LANGUAGES


@pytest.mark.parametrize(
    ("language", "piece"),
    [
        *(("python", " \n"), ("javascript", "'\\"), ("java", "a "), ("c", " \n"), ("cpp", " \n"), ("csharp", "a\n")),
        *(("html", "&"), ("css", "'\\"), ("go", '"\\'), ("rust", "/"), ("bash", "x<"), ("yaml", "&a")),
    ],
)
def test_no_code_takes_long(language: str, piece: str) -> None:
    text = (piece * code.MAX_CHARACTERS)[: code.MAX_CHARACTERS]
    begun = time.thread_time()
    html = code.highlighted(text, language)
    assert time.thread_time() - begun < 1
    assert Tags(html).text == text  # what there was no time for is there, plain


def test_formulas_become_mathml() -> None:
    for text in ("$\\frac{a}{b}$", "\\(\\frac{a}{b}\\)", "so $$\\frac{a}{b}$$ holds", "\\[\n\\frac{a}{b}\n\\]"):
        assert "<mfrac><mi>a</mi><mi>b</mi></mfrac>" in rendered(text), text
    assert '<math display="block">' in rendered("$$\na\n= b\n$$")  # a line of "=" is no heading there
    assert "<mo>&lt;</mo>" in rendered("$a < b$")


def test_prices_and_code_are_no_formulas() -> None:
    for text in ("It costs $5 and $10.", "US$ 5 or US$ 6", "\\$a$ alone", "`$a$`", "```\n$$a$$\n```", "${pwn()}"):
        assert "<math" not in rendered(text), text


def test_each_block_has_its_own_direction() -> None:
    html = rendered("hello\n\nمرحبا\n\n- שלום\n")
    assert re.findall(r"<(\w+) dir=\"auto\">", html) == ["p", "p", "ul"]


def test_long_text_is_shown_as_it_is() -> None:
    assert rendered("*a* <b>" * MAX_CHARACTERS).startswith('<pre dir="auto">*a* &lt;b&gt;')


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "![",
        "*",
        "_a_ ",
        "$a ",
        "$",
        "\\(",
        "> ",
        "- ",
        "`",
        "<",
        "|a",
        "${",
        "$x$ ",
        "$\\frac{",
        "[a](",
        "**a",
        "$$x^{",
        "```c\n \n```\n",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * MAX_CHARACTERS)[:MAX_CHARACTERS]
    begun = time.process_time()
    rendered(text)
    assert time.process_time() - begun < 5  # on a slow machine; quadratic parsing of this would take minutes


def test_threads_may_share_the_parser_from_the_first_text_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rules are arranged when they are first asked for: whoever came in between found none, and failed."""
    arrange = Ruler.__compile__

    def slowly(ruler: Any) -> None:
        ruler.__cache__ = {}
        time.sleep(0.02)
        arrange(ruler)

    monkeypatch.setattr(Ruler, "__compile__", slowly)
    parser = render._parser()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(parser.render, ["*so* $x$"] * 16)) == {parser.render("*so* $x$")}
