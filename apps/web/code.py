"""Syntax highlighting: each token in a span with a class for its kind. Unlisted languages stay plain."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from threading import Lock

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Name, Number, String, Token, _TokenType

MAX_CHARACTERS = 10_000  # a longer block stays plain
MAX_SECONDS = 0.2  # for a block, since people wait for it
CLASSES = {
    Comment: "c",
    Keyword: "k",
    String: "s",
    Number: "m",
    Name.Attribute: "f",
    Name.Class: "f",
    Name.Decorator: "f",
    Name.Function: "f",
    Name.Tag: "k",
    Generic.Deleted: "d",
    Generic.Inserted: "i",
    Generic.Heading: "c",
    Generic.Subheading: "c",
}
# Languages with lexers that were tested on hostile texts, under all of Pygments's names.
_LANGUAGES = """bash c c# c++ cpp cs csharp css diff docker dockerfile go golang haskell hs html java javascript jl js
    json jsx julia kotlin latex lua make makefile matlab perl php pl powershell ps1 py python python3 r rb rs ruby rust
    scala sh shell sql swift tex toml ts tsx typescript xml yaml yml zsh"""
LANGUAGES = frozenset(_LANGUAGES.split())
_MAKING = Lock()


def highlighted(text: str, info: str) -> str:
    """The code as HTML. `info`: the text after the opening fence; its first word names the language."""
    language = info.split(maxsplit=1)[0].lower() if info.strip() else ""
    if language not in LANGUAGES or len(text) > MAX_CHARACTERS:
        return html.escape(text)
    pieces = groupby(_tokens(text, language), key=itemgetter(0))
    return "".join(_span(name, "".join(words for _, words in piece)) for name, piece in pieces)


def _span(name: str, text: str) -> str:
    return f'<span class="{name}">{html.escape(text)}</span>' if name else html.escape(text)


def _tokens(text: str, language: str) -> Iterator[tuple[str, str]]:
    """(class, text) of each token. Some lexers take quadratic time: after MAX_SECONDS the rest stays plain."""
    end = time.thread_time() + MAX_SECONDS
    for start, kind, words in _lexer(language).get_tokens_unprocessed(text):
        if time.thread_time() > end:
            yield "", text[start:]
            return
        yield _class_of(kind), words


@lru_cache
def _lexer(language: str) -> Lexer:
    with _MAKING:  # the first lexer of a class compiles its rules, which is not thread-safe
        return get_lexer_by_name(language)


@lru_cache
def _class_of(kind: _TokenType) -> str:
    while kind is not Token and kind not in CLASSES:
        kind = kind.parent
    return CLASSES.get(kind, "")
