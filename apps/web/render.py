"""Rendering untrusted Markdown and LaTeX as inert HTML: no raw HTML, nothing loaded, nothing to click.

Three defences, each sufficient alone: markdown-it writes only its own tags and escapes the rest; our own parsers for
formulas and code write only what they know; nh3 keeps only what is on the lists below. The page's content security
policy (`security.py`) is the fourth.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from apps.web import code
from apps.web.formulas import mathml
from apps.web.latex import Unreadable

MAX_CHARACTERS = 30_000  # a longer text is shown verbatim, not as Markdown
MAX_FORMULA = {"$": 400, r"\(": 2_000, "$$": 2_000, r"\[": 2_000}  # characters within which the end is searched

_MATHML = """math menclose mfrac mi mn mo mover mpadded mphantom mroot mrow mspace msqrt mstyle msub msubsup msup mtable
    mtd mtext mtr munder munderover"""
_MATHML_ATTRIBUTES = """accent accentunder columnalign columnspacing depth display displaystyle fence form height
    linethickness lspace mathcolor mathvariant maxsize minsize movablelimits notation rowspacing rspace scriptlevel
    stretchy width"""
_HTML = "blockquote br code div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th thead tr ul"
ATTRIBUTES = {
    **{tag: set(_MATHML_ATTRIBUTES.split()) for tag in _MATHML.split()},
    **{tag: {"dir"} for tag in _HTML.split()},
    "ol": {"dir", "start"},
}
CLASSES = {
    "span": {"image", "link", *code.CLASSES.values()},
    "code": {"as-written"},
    "mtd": {"line-bottom", "line-left", "line-right", "line-top"},
}
TITLE = "Shown as source: this formula cannot be drawn completely."
DELIMITERS = {"$$": "$$", r"\[": r"\]", r"\(": r"\)", "$": "$"}  # the longer ones first


@lru_cache(maxsize=1024)
def rendered(text: str) -> str:
    """The text as safe HTML. Images and links become text with their address."""
    if len(text) > MAX_CHARACTERS:
        return verbatim(text)
    try:
        made = _MARKDOWN.render(text)
    except (RecursionError, IndexError, ValueError):  # a text that the parser cannot handle is shown verbatim
        made = verbatim(text)
    return nh3.clean(
        made,
        tags=set(ATTRIBUTES),
        attributes=ATTRIBUTES,
        allowed_classes=CLASSES,
        tag_attribute_values={"code": {"title": {TITLE}}},
        link_rel=None,
    )


def verbatim(text: str) -> str:
    """The unformatted text as safe HTML."""
    return f'<pre dir="auto">{html.escape(text)}</pre>'


def formula(latex: str, display: bool) -> str:
    """LaTeX as MathML, or its marked source if a part is unknown."""
    try:
        return mathml(latex, display)
    except (Unreadable, RecursionError):
        return f'<code class="as-written" title="{TITLE}">{html.escape(latex)}</code>'


def _math_inline(state: StateInline, silent: bool) -> bool:
    opening = next((mark for mark in DELIMITERS if state.src.startswith(mark, state.pos)), None)
    if opening is None:
        return False
    start = state.pos + len(opening)
    end = _end_of_formula(state.src, start, min(state.posMax, start + MAX_FORMULA[opening]), opening)
    if end is None:
        return False
    if not silent:
        token = state.push("math", "math", 0)
        token.content = state.src[start:end].strip()
        token.meta = {"display": opening in ("$$", r"\[")}
    state.pos = end + len(DELIMITERS[opening])
    return True


def _end_of_formula(text: str, start: int, limit: int, opening: str) -> int | None:
    """The position of the closing mark. Single dollars follow Pandoc's rule, so that prices are not formulas."""
    closing = DELIMITERS[opening]
    end = text.find(closing, start, limit)
    if opening == "$":
        if text[start : start + 1].isspace():
            return None
        while end > start and (text[end - 1] in " \t\n\\" or text[end + 1 : end + 2].isdigit()):
            end = text.find(closing, end + 1, limit)
    return end if end > start and text[start:end].strip() else None


def _math_block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """A formula that starts at a line's beginning and ends at a line's end; its lines are not Markdown."""
    start = state.bMarks[first] + state.tShift[first]
    opening = state.src[start : start + 2]
    if opening not in ("$$", r"\["):
        return False
    start += 2
    end = state.src.find(DELIMITERS[opening], start, start + MAX_FORMULA[opening])
    line = first
    while line < last and state.eMarks[line] < end:
        line += 1
    if end < 0 or line >= last or state.src[end + 2 : state.eMarks[line]].strip() or not state.src[start:end].strip():
        return False
    if not silent:
        state.line = line + 1
        token = state.push("math", "math", 0)
        token.content = state.src[start:end].strip()
        token.meta = {"display": True}
        token.map = [first, state.line]
    return True


def _own_direction(state: Any) -> None:
    """Sets each block's own text direction; its content follows by CSS (unicode-bidi)."""
    for token in state.tokens:
        if token.level == 0 and token.nesting == 1:
            token.attrSet("dir", "auto")


class _Renderer(RendererHTML):
    """Renders images and links as text, formulas as MathML, and code with highlighting."""

    def math(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return formula(tokens[index].content, tokens[index].meta["display"])

    def fence(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        return f"<pre><code>{code.highlighted(token.content, token.info)}</code></pre>\n"

    def image(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        alt = self.renderInlineAsText(token.children, options, env)
        return f'<span class="image">[image: {html.escape(alt)}] ({html.escape(str(token.attrs["src"]))})</span>'

    def link_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return '<span class="link">'

    def link_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        opening = next(i for i in range(index, -1, -1) if tokens[i].type == "link_open")
        address = str(tokens[opening].attrs["href"])
        text = "".join(token.content for token in tokens[opening:index])
        return "</span>" if text == address else f"</span> ({html.escape(address)})"


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"])
    parser.disable(["html_block", "html_inline"])
    parser.inline.ruler.before("escape", "math", _math_inline)
    parser.block.ruler.before("fence", "math", _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    parser.core.ruler.push("own_direction", _own_direction)
    parser.render("*so*")  # the first text compiles the rules, which is not thread-safe
    return parser


_MARKDOWN = _parser()
