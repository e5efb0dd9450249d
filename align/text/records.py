"""The five kinds of record that the stages read, whatever format a file was written in.

`align.text.formats` turns the rows of a data set into these; nothing after it knows how a file was laid out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Role
    content: str


class Document(NamedTuple):
    """A text to pretrain on."""

    text: str
    source: str = ""  # "file.jsonl:12", for messages about this record


class Conversation(NamedTuple):
    """A demonstration: turns that end with the assistant's."""

    messages: tuple[Message, ...]
    source: str = ""


class Prompt(NamedTuple):
    """What the assistant is to answer: turns that end with the user's."""

    messages: tuple[Message, ...]
    source: str = ""


class Ranking(NamedTuple):
    """K >= 2 answers to one prompt in somebody's order. Rank 1 is best; equal ranks are ties."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    ranks: tuple[int, ...]
    annotator: str = ""
    source: str = ""  # the place of this record, for messages about it
    origin: str = ""  # the row's own column `source`: the collection that it comes from
    margin: float | None = None  # how much better the best answer is than the worst, in the annotators' measure


class Answers(NamedTuple):
    """Any number of answers to one prompt, to be scored; ranks as in `Ranking` where somebody has ordered them."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    ranks: tuple[int, ...] = ()
    source: str = ""


def plain(messages: tuple[Message, ...]) -> str | list[dict[str, str]]:
    """A prompt as rows hold it: a single user turn is a string, a conversation a list of messages."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return [{"role": message.role, "content": message.content} for message in messages]
