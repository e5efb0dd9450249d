"""How a question is put to a model: an instruction, a few solved examples, the question itself (GPT-3, 2005.14165).

A base model reads a text: examples and question are written out one after the other, as `example` says, and the model
goes on where the answer belongs. A chat model reads turns: every example is a turn of the user and one of the
assistant. So the model sees a solved example exactly as it saw a conversation in training, its end marked by EOS; in a
single turn it would have to guess from separators where an answer ends, which only a base model has practice in.

A template is a YAML file; data/prompts/ has some.
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
    """How questions are put, and how answers are read."""

    instruction: str = ""
    """What to do, said once before everything."""
    example: str
    """A solved example as a base model reads it: {question}, {choices} if there are any, and {answer} at the end."""
    turn: str = "{question}"
    """What the user says to a chat model: {question}, and {choices} if there are any. The answer is the next turn."""
    separator: str = "\n\n"
    """Stands between instruction, examples and question."""
    choice: str = "{letter}. {choice}"
    """How each of {choices} is written, on a line of its own."""
    answers: Literal["text", "letter"] = "text"
    """Whether a choice is answered by its text or by its letter."""
    stop: str | None = Field(None, min_length=1)
    """Where the answer of a base model ends; by default at the separator. A chat model says EOS."""
    extract: list[str] = Field(default_factory=list)
    """Regular expressions for the final answer, in group 1. The first that matches counts, where it matches last.
    None takes the whole answer. A right answer in the data is read in the same way, or whole if none matches."""
    number: bool = False
    """Whether answers are numbers: 1,234 and $1234.00 are then the same."""
    cot: bool = False
    """Chain of thought: whether examples show the way to the answer, or only what `extract` finds in it."""

    @field_validator("separator")
    @classmethod
    def _parts(cls, separator: str) -> str:
        if not separator:
            raise ValueError("without a separator nothing shows where an example ends; give one, as '\\n\\n'")
        return separator

    @model_validator(mode="after")
    def _has_its_places(self) -> Self:
        for key, names in (("example", _NAMES), ("turn", _NAMES[:2]), ("choice", ("letter", "choice"))):
            text = getattr(self, key)
            unknown = [name for name in re.findall(r"\{(\w+)\}", text) if name not in names]
            if unknown:
                raise ValueError(f"{key}: {{{unknown[0]}}} is not known here; there are {', '.join(names)}")
        for key in ("example", "turn"):
            text = getattr(self, key)
            if text.count("{question}") != 1:
                raise ValueError(f"{key} = {text!r}: write {{question}} once, where the question belongs")
            if self.answers == "letter" and text.count("{choices}") != 1:
                raise ValueError(f"{key} = {text!r}: answers: letter needs {{choices}} once, or no letter is seen")
        if self.example.count("{answer}") != 1 or not self.example.endswith("{answer}"):
            raise ValueError(f"example = {self.example!r}: end it with {{answer}}, where the model is to go on")
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
            raise ValueError("cot: true needs extract, to find the answer after the thoughts that lead to it")
        return self

    def ask(self, question: Question, examples: Sequence[Question], plain: bool) -> str | list[Message]:
        """The question after its examples: a text for a base model, turns for a chat model."""
        return self._as_text(question, examples) if plain else self._as_turns(question, examples)

    def _as_text(self, question: Question, examples: Sequence[Question]) -> str:
        solved = [self._before(one) + self._gap() + self.answer(one) for one in examples]
        return self.separator.join([*self._instructions(), *solved, self._before(question)])

    def _as_turns(self, question: Question, examples: Sequence[Question]) -> list[Message]:
        turns: list[Message] = []
        for one in (*examples, question):
            said = [] if turns else self._instructions()
            turns.append(Message("user", self.separator.join([*said, self._filled(self.turn, one)])))
            turns.append(Message("assistant", self.answer(one)))
        return turns[:-1]

    def continuation(self, question: Question, index: int, plain: bool) -> str:
        """What a model says that answers with this choice: the end of a base model's text, or a turn."""
        return (self._gap() if plain else "") + self.written(question, index)

    def written(self, question: Question, index: int) -> str:
        """A choice as an answer: its text or its letter."""
        return LETTERS[index] if self.answers == "letter" else question.choices[index].strip()

    def answer(self, question: Question) -> str:
        """The right answer as an example shows it."""
        if question.choices:
            return self.written(question, question.right)
        whole = question.answers[0].strip()
        return whole if self.cot else self.extracted(whole) or whole

    def extracted(self, text: str) -> str | None:
        """The final answer in what a model said; None if there is none."""
        if not self.extract:
            return text.strip() or None
        for pattern in self.extract:
            if found := list(re.finditer(pattern, text)):
                return (found[-1][1] or "").strip() or None
        return None

    def stops_at(self, plain: bool) -> str | None:
        """Where an answer is cut."""
        return (self.stop or self.separator) if plain else None

    def _instructions(self) -> list[str]:
        return [self.instruction.strip()] if self.instruction.strip() else []

    def _before(self, question: Question) -> str:
        """What stands before the answer, but for spaces: a word's token carries the space before it."""
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
    """A template from its file. Raises `UserError` that names the file and the key."""
    return build(Template, read_yaml(own_or_shipped(str(path))), str(path))


def _filled(text: str, values: dict[str, str]) -> str:
    """Only the names given are replaced, once: braces in a question or in LaTeX stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)
