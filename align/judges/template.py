"""Prompt template of an LLM judge, and parsing of its verdict.

The texts to judge are untrusted and may contain instructions to the judge. So each text is enclosed in marks with a
number that no text contains; placeholders inside the texts are never filled in; and the verdict is read from the last
line of the judge's own reply alone, since a judge may quote an answer with "[[A]]".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from align.config import Section, build, read_yaml
from align.shipped import own_or_shipped

if TYPE_CHECKING:
    from align.text.records import Message

PLACES = ("prompt", "answer_a", "answer_b")
_PLACE = re.compile("{(" + "|".join(PLACES) + ")}")
_VERDICT = re.compile(r"[^\[\]]{0,30}\[\[([ABC])\]\]\W*")  # also after a few words: "My verdict is: **[[A]]**."


class Template(Section):
    """A judge's prompt template, such as data/prompts/judge.yaml."""

    system: str = ""
    """System message; empty for a model without one."""
    user: str
    """User message, with {prompt}, {answer_a} and {answer_b}."""
    again: str = "Reply with nothing but your verdict: [[A]], [[B]] or [[C]]."
    """Follow-up message after a reply without a verdict."""

    @model_validator(mode="after")
    def _has_places(self) -> Self:
        for place in PLACES:
            if (n := self.user.count(f"{{{place}}}")) != 1:
                raise ValueError(f"user: {{{place}}} must appear exactly once, found {n} times")
        return self


def read_template(path: str) -> Template:
    """Read a template. Raises `UserError` with file and key."""
    return build(Template, read_yaml(own_or_shipped(path)), path)


def question(template: Template, prompt: Sequence[Message], answer_a: str, answer_b: str) -> list[dict[str, str]]:
    """The messages that ask the judge to compare two answers."""
    asked = prompt[0].content if len(prompt) == 1 else "\n\n".join(f"[{turn.role}]\n{turn.text}" for turn in prompt)
    texts = dict(zip(PLACES, (asked, answer_a, answer_b), strict=True))
    number = _number("\0".join(texts.values()))
    marked = {place: _marked(place.replace("_", " "), text, number) for place, text in texts.items()}
    turns = [{"role": "system", "content": template.system}] if template.system else []
    return [*turns, {"role": "user", "content": _PLACE.sub(lambda found: marked[found[1]], template.user)}]


def _marked(name: str, text: str, number: str) -> str:
    sendable = text.encode("utf-8", "replace").decode()  # replaces half surrogate pairs
    return f"[begin {name} {number}]\n{sendable}\n[end {name} {number}]"


def _number(texts: str) -> str:
    """Digits that occur in none of the texts. A pure function of the texts, so that requests can be repeated."""
    found = hashlib.sha256(texts.encode("utf-8", "surrogatepass"))
    while (number := str(int(found.hexdigest()[:12], 16))) in texts:
        found.update(b".")
    return number


def verdict_in(reply: str) -> str | None:
    """The verdict A, B or C if it is all that the last line of a reply holds, else None."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    found = _VERDICT.fullmatch(lines[-1]) if lines else None
    return found[1] if found else None
