"""Few-shot prompt template: an instruction, a few solved examples, the question (GPT-3, 2005.14165).

A base model reads one text: examples and question in the form of `example`, which the model continues with the answer.
A chat model reads messages: each example is a user message and an assistant message. So it sees solved examples in the
form of its training data, ended by EOS; in a single message it would have to infer the end of an answer from
separators, which only a base model has practice with.

A template is a YAML file; see data/prompts/.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from align.config import Section, build, read_yaml
from align.shipped import own_or_shipped
from align.tasks.questions import Question
from align.text.records import Message

LETTERS = string.ascii_uppercase
_NAMES = ("question", "choices", "answer")


class Template(Section):
    """A prompt template, and the extraction of answers."""

    instruction: str = ""
    """Instruction, once at the start."""
    example: str
    """A solved example as a base model reads it: {question}, {choices} if there are any, and {answer} at the end."""
    turn: str = "{question}"
    """User message for a chat model: {question}, and {choices} if there are any."""
    separator: str = "\n\n"
    """Text between instruction, examples and question."""
    choice: str = "{letter}. {choice}"
    """Format of each of {choices}, one per line."""
    answers: Literal["text", "letter"] = "text"
    """Form of the answer to a choice question: its text or its letter."""
    stop: str | None = Field(None, min_length=1)
    """End of a base model's answer. Default: the separator. A chat model ends with EOS."""
    extract: list[str] = Field(default_factory=list)
    """Regular expressions whose group 1 is the final answer. The first expression that matches counts, at its last
    match. Empty: the whole answer. Right answers in the data are extracted too; whole if none matches."""
    number: bool = False
    """Compares answers as numbers: 1,234 equals $1234.00."""
    cot: bool = False
    """Chain of thought: examples show the whole answer, not only what `extract` finds in it."""

    @field_validator("separator")
    @classmethod
    def _parts(cls, separator: str) -> str:
        if not separator:
            raise ValueError("separator is empty, so examples have no visible end; give one, such as '\\n\\n'")
        return separator

    @model_validator(mode="after")
    def _has_its_places(self) -> Self:
        for key, names in (("example", _NAMES), ("turn", _NAMES[:2]), ("choice", ("letter", "choice"))):
            text = getattr(self, key)
            unknown = [name for name in re.findall(r"\{(\w+)\}", text) if name not in names]
            if unknown:
                raise ValueError(f"{key}: {{{unknown[0]}}} is not a placeholder here; there are {', '.join(names)}")
        for key in ("example", "turn"):
            text = getattr(self, key)
            if text.count("{question}") != 1:
                raise ValueError(f"{key} = {text!r}: write {{question}} exactly once")
            if self.answers == "letter" and text.count("{choices}") != 1:
                raise ValueError(f"{key} = {text!r}: answers: letter needs {{choices}} exactly once")
        if self.example.count("{answer}") != 1 or not self.example.endswith("{answer}"):
            raise ValueError(f"example = {self.example!r}: end it with {{answer}}, where the model continues")
        return self

    @model_validator(mode="after")
    def _extracts(self) -> Self:
        for pattern in self.extract:
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"extract: {pattern!r} is not a regular expression: {error}") from None
            if compiled.groups < 1:
                raise ValueError(f"extract: {pattern!r} has no group; put the answer in parentheses")
        if self.cot and not self.extract:
            raise ValueError("cot: true needs extract, to find the final answer after the reasoning")
        return self

    def ask(self, question: Question, examples: Sequence[Question], plain: bool) -> str | list[Message]:
        """The prompt with examples: a text for a base model, messages for a chat model."""
        return self._as_text(question, examples) if plain else self._as_turns(question, examples)

    def _as_text(self, question: Question, examples: Sequence[Question]) -> str:
        solved = [self._before(one) + self._gap() + self.answer(one) for one in examples]
        return self.separator.join([*self._instructions(), *solved, self._before(question)])

    def _as_turns(self, question: Question, examples: Sequence[Question]) -> list[Message]:
        turns: list[Message] = []
        for one in (*examples, question):
            parts = [] if turns else self._instructions()
            turns.append(Message("user", self.separator.join([*parts, self._filled(self.turn, one)])))
            turns.append(Message("assistant", self.answer(one)))
        return turns[:-1]

    def continuation(self, question: Question, index: int, plain: bool) -> str:
        """The continuation that answers with this choice: the end of a base model's text, or a message."""
        return (self._gap() if plain else "") + self.written(question, index)

    def written(self, question: Question, index: int) -> str:
        """A choice as an answer: its text or its letter."""
        return LETTERS[index] if self.answers == "letter" else question.choices[index].strip()

    def answer(self, question: Question) -> str:
        """The right answer in the form of an example."""
        if question.choices:
            return self.written(question, question.right)
        whole = question.answers[0].strip()
        return whole if self.cot else self.extracted(whole) or whole

    def extracted(self, text: str) -> str | None:
        """The final answer in a completion; None if there is none."""
        if not self.extract:
            return text.strip() or None
        for pattern in self.extract:
            if found := list(re.finditer(pattern, text)):
                return (found[-1][1] or "").strip() or None
        return None

    def stops_at(self, plain: bool) -> str | None:
        """The stop string of an answer."""
        return (self.stop or self.separator) if plain else None

    def _instructions(self) -> list[str]:
        return [self.instruction.strip()] if self.instruction.strip() else []

    def _before(self, question: Question) -> str:
        """The text before the answer, without trailing spaces: a word's token includes the space before it."""
        return self._filled(self.example.removesuffix("{answer}").rstrip(" "), question)

    def _gap(self) -> str:
        head = self.example.removesuffix("{answer}")
        return head[len(head.rstrip(" ")) :]

    def _filled(self, text: str, question: Question) -> str:
        lines = [
            _filled(self.choice, {"letter": LETTERS[i] if i < len(LETTERS) else str(i), "choice": choice.strip()})
            for i, choice in enumerate(question.choices)
        ]
        return _filled(text, {"question": question.text.strip(), "choices": "\n".join(lines)})


def load_template(path: str | Path) -> Template:
    """Read a template. Raises `UserError` with file and key."""
    return build(Template, read_yaml(own_or_shipped(str(path))), str(path))


def _filled(text: str, values: dict[str, str]) -> str:
    """Replace only the given names, once: braces in a question or in LaTeX are kept."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)
