"""Splits a text file into documents.

A file may hold one text or thousands. The first rule that matches cuts it:

1. at every `<|endoftext|>`, the usual separator of corpora, which is removed;
2. before headings ` = Title = `, which begin WikiText's articles;
3. into blocks of whole paragraphs (or lines, if there is no blank line); a block ends when it has 2000 characters or
   more.

So a short file is one document, a long file has parts that can be held out for validation, and no line is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

BLOCK = 2000  # characters after which a block of paragraphs ends

SEPARATOR = "<|endoftext|>"
_HEADING = re.compile(r"^ ?= [^=\n]+ = ?$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_LINE_END = re.compile(r"\n")


def cut_text(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a text file, each with the number of the line that it begins at. Blank ones are left out."""
    line, counted = 1, 0
    for start, end in _spans(text):
        document = text[start:end].lstrip("\n")
        if document.strip():
            begin = end - len(document)
            line += text.count("\n", counted, begin)
            counted = begin
            yield line, document.rstrip("\n")


def cut_row(text: str) -> list[str]:
    """The documents of a row's text, which is one, unless it has separators inside. Blank ones are left out."""
    if SEPARATOR not in text:
        return [text]
    return [part.strip("\n") for part in text.split(SEPARATOR) if part.strip()]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    separators = list(re.finditer(re.escape(SEPARATOR), text))
    if separators:
        starts, ends = [match.end() for match in separators], [match.start() for match in separators]
        return zip([0, *starts], [*ends, len(text)], strict=True)
    starts = [match.start() for match in _HEADING.finditer(text)] or _block_starts(text)
    return pairwise([0, *starts, len(text)])


def _block_starts(text: str) -> list[int]:
    paragraph_end = _BLANK_LINES if _BLANK_LINES.search(text.strip()) else _LINE_END
    starts = [0]
    for match in paragraph_end.finditer(text):
        if match.end() - starts[-1] >= BLOCK:
            starts.append(match.end())
    return starts
