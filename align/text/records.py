"""The five kinds of record that the stages read, whatever format a file was written in.

`align.text.formats` turns the rows of a data set into these; nothing after it knows how a file was laid out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Role = Literal["system", "user", "assistant", "tool", "tools"]


class Message(NamedTuple):
    """One turn of a conversation. What a row says of tools is here too, so that it goes wherever a prompt goes.

    A first turn of the role "tools" holds the tools that may be called, as JSON (`tools` of `apply_chat_template`).
    """

    role: Role
    content: str
    thoughts: str = ""  # what the assistant thought before it said `content` (`reasoning_content`)
    calls: str = ""  # the tools that the assistant calls: `tool_calls` as JSON
    name: str = ""  # the tool whose result this is
    call_id: str = ""  # which call it answers (`tool_call_id`)
    learned: bool = True  # an answer that is not is context: never a target

    @classmethod
    def of(cls, turn: dict[str, Any]) -> Message:
        """A turn as `as_dict` writes it; calls may be JSON already."""
        calls = turn.get("tool_calls") or ""
        return cls(
            turn["role"],
            turn["content"],
            turn.get("reasoning_content", ""),
            calls if isinstance(calls, str) else json.dumps(calls, ensure_ascii=False),
            turn.get("name", ""),
            turn.get("tool_call_id", ""),
            turn.get("weight", 1) != 0,
        )

    def as_dict(self) -> dict[str, Any]:
        """The turn under the names that rows and chat templates have for its parts; without those that it lacks."""
        said: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.thoughts:
            said["reasoning_content"] = self.thoughts
        if self.calls:
            said["tool_calls"] = json.loads(self.calls)
        if self.name:
            said["name"] = self.name
        if self.call_id:
            said["tool_call_id"] = self.call_id
        if not self.learned:
            said["weight"] = 0
        return said

    @property
    def parts(self) -> tuple[str, ...]:
        """Every text that is kept of it."""
        return (self.content, self.thoughts, self.calls, self.name, self.call_id)

    @property
    def text(self) -> str:
        """All that is said in it, for people and judges: its content, and the calls where there are some."""
        return "\n".join(part for part in (self.content, self.calls) if part) if self.calls else self.content


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
    good: bool | None = None  # whether they are good ones, where the row says it (`label`)
    learned: bool = True  # whether the row's marks let them be learned


def last_question(messages: Sequence[Message]) -> str:
    """What the user asked last, for functions and lists of samples: a prompt may end with a tool's result."""
    return next((turn for turn in reversed(messages) if turn.role == "user"), messages[-1]).content


def plain(messages: tuple[Message, ...]) -> str | list[dict[str, Any]]:
    """A prompt as rows hold it: a single user turn is a string, a conversation a list of messages."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return [message.as_dict() for message in messages]
