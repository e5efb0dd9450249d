"""How a judging language model is asked, and how its verdict is read.

The texts to judge were written by anybody, and may speak to the judge. So each stands between marks with a number that
no text contains, what they hold is never searched for a place to put another text in, and a verdict is looked for in
the judge's own reply only, there in the last line only: a judge may quote an answer that says "[[A]]".
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
_VERDICT = re.compile(r"[^\[\]]{0,30}\[\[([ABC])\]\]\W*")  # perhaps after a few words, as "My verdict is: **[[A]]**."


class Template(Section):
    """A file of data/prompts for judges."""

    system: str = ""
    """What the judge is told first; empty for a model that takes no system turn."""
    user: str
    """What it is asked, with {prompt}, {answer_a} and {answer_b}."""
    again: str = "Reply with nothing but your verdict: [[A]], [[B]] or [[C]]."
    """What it is told if its reply holds no verdict."""

    @model_validator(mode="after")
    def _has_places(self) -> Self:
        for place in PLACES:
            if (n := self.user.count(f"{{{place}}}")) != 1:
                raise ValueError(f"user: {{{place}}} must stand in it once, found {n} times")
        return self


def read_template(path: str) -> Template:
    """A template from its file. Raises `UserError` that names the file and the key."""
    return build(Template, read_yaml(own_or_shipped(path)), path)


def question(template: Template, prompt: Sequence[Message], answer_a: str, answer_b: str) -> list[dict[str, str]]:
    """The turns that ask about two answers."""
    asked = prompt[0].content if len(prompt) == 1 else "\n\n".join(f"[{turn.role}]\n{turn.text}" for turn in prompt)
    texts = dict(zip(PLACES, (asked, answer_a, answer_b), strict=True))
    number = _number("\0".join(texts.values()))
    marked = {place: _marked(place.replace("_", " "), text, number) for place, text in texts.items()}
    turns = [{"role": "system", "content": template.system}] if template.system else []
    return [*turns, {"role": "user", "content": _PLACE.sub(lambda found: marked[found[1]], template.user)}]


def _marked(name: str, text: str, number: str) -> str:
    sendable = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    return f"[begin {name} {number}]\n{sendable}\n[end {name} {number}]"


def _number(texts: str) -> str:
    """Digits that are in none of the texts; the same texts have the same, so that a question can be asked again."""
    found = hashlib.sha256(texts.encode("utf-8", "surrogatepass"))
    while (number := str(int(found.hexdigest()[:12], 16))) in texts:
        found.update(b".")
    return number


def verdict_in(reply: str) -> str | None:
    """A, B or C, which the last line of a reply holds and nothing else; None where it does not."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    found = _VERDICT.fullmatch(lines[-1]) if lines else None
    return found[1] if found else None
