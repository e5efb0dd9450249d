"""The five kinds of records that the stages read: Document, Conversation, Prompt, Ranking, Answers.

`align.text.formats` turns the rows of any format into these. Code after it does not depend on the file's format.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Role = Literal["system", "user", "assistant", "tool", "tools"]


class Message(NamedTuple):
    """One message of a conversation, with its thoughts and tool calls.

    A first message with the role "tools" holds the tools that may be called, as JSON (`tools` of
    `apply_chat_template`), so they stay with the prompt.
    """

    role: Role
    content: str
    thoughts: str = ""  # the assistant's thoughts before `content` (`reasoning_content`)
    calls: str = ""  # the tools that the assistant calls: `tool_calls` as JSON
    name: str = ""  # in a tool message: the tool
    call_id: str = ""  # in a tool message: the call that it answers (`tool_call_id`)
    learned: bool = True  # False: the answer is context, never a training target

    @classmethod
    def of(cls, turn: dict[str, Any]) -> Message:
        """A message from the form that `as_dict` writes. Calls may already be JSON."""
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
        """The message with the keys of rows and chat templates, without empty ones."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.thoughts:
            message["reasoning_content"] = self.thoughts
        if self.calls:
            message["tool_calls"] = json.loads(self.calls)
        if self.name:
            message["name"] = self.name
        if self.call_id:
            message["tool_call_id"] = self.call_id
        if not self.learned:
            message["weight"] = 0
        return message

    @property
    def parts(self) -> tuple[str, ...]:
        """All texts of the message."""
        return (self.content, self.thoughts, self.calls, self.name, self.call_id)

    @property
    def text(self) -> str:
        """The message as people and judges see it: its content, and its calls if there are any."""
        return "\n".join(part for part in (self.content, self.calls) if part) if self.calls else self.content


class Document(NamedTuple):
    """A text to pretrain on."""

    text: str
    source: str = ""  # "file.jsonl:12", for error messages


class Conversation(NamedTuple):
    """A demonstration: messages that end with the assistant's."""

    messages: tuple[Message, ...]
    source: str = ""


class Prompt(NamedTuple):
    """A prompt: messages that end with the user's or a tool's."""

    messages: tuple[Message, ...]
    source: str = ""


class Ranking(NamedTuple):
    """K >= 2 answers to one prompt, ranked by an annotator. Rank 1 is best; equal ranks are ties."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    ranks: tuple[int, ...]
    annotator: str = ""
    source: str = ""  # file and line, for error messages
    origin: str = ""  # the row's column `source`: its collection
    margin: float | None = None  # how much better the best answer is than the worst, on the annotators' scale


class Answers(NamedTuple):
    """Any number of answers to one prompt, to be scored. Ranks are as in `Ranking`, empty if there are none."""

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    ranks: tuple[int, ...] = ()
    source: str = ""
    good: bool | None = None  # whether they are good, if the row has a label
    learned: bool = True  # False if the row is marked as not to be learned


def last_question(messages: Sequence[Message]) -> str:
    """The last user message, for reward functions and lists of samples. A prompt may end with a tool's result."""
    return next((turn for turn in reversed(messages) if turn.role == "user"), messages[-1]).content


def plain(messages: tuple[Message, ...]) -> str | list[dict[str, Any]]:
    """A prompt as rows store it: a single user message is a string, a conversation a list of messages."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return [message.as_dict() for message in messages]
