"""Read the rows of a task's files.

choice      {"question": str, "choices": [str, ...], "answer": int}    the index of the right one
generate    {"question": str, "answer": str or [str, ...]}             any of them is right
perplexity  {"text": str}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from align.errors import UserError
from align.text.readers import iter_rows
from align.text.records import Document
from align.text.rows import Row


class Question(NamedTuple):
    """A question with its right answers."""

    text: str
    answers: tuple[str, ...]  # any of them is right; for choices, the right one
    place: str  # file:line
    choices: tuple[str, ...] = ()
    right: int = 0  # index of the right choice


def read_questions(path: str, split: str, columns: Mapping[str, str], with_choices: bool) -> list[Question]:
    """The questions of a file. Raises `UserError` for an invalid row, or a file without rows."""
    make = _choice if with_choices else _open_question
    questions = [make(row, columns) for row in iter_rows(path, split)]
    return _some(questions, path)


def read_texts(path: str, split: str, columns: Mapping[str, str]) -> list[Document]:
    """The documents of a file. Raises `UserError` as `read_questions` does."""
    texts = [Document(_text(row, "text", columns), row.source) for row in iter_rows(path, split)]
    return _some(texts, path)


def _some(rows: list[Any], path: str) -> list[Any]:
    if not rows:
        raise UserError(f"{path}: no rows; a task needs at least one")
    return rows


def _choice(row: Row, columns: Mapping[str, str]) -> Question:
    text = _text(row, "question", columns)
    choices, answer = _value(row, "choices", columns), _value(row, "answer", columns)
    if not isinstance(choices, list) or len(choices) < 2 or not all(_is_text(choice) for choice in choices):
        raise _bad(row, "choices", choices, "give a list of two texts or more, none of them empty")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise _bad(row, "answer", answer, f"give the index of the right choice, 0 to {len(choices) - 1}")
    return Question(text, (choices[answer],), row.source, tuple(choices), answer)


def _open_question(row: Row, columns: Mapping[str, str]) -> Question:
    text, answer = _text(row, "question", columns), _value(row, "answer", columns)
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or not all(_is_text(one) for one in answers):
        raise _bad(row, "answer", answer, "give a text that is not empty, or a list of such texts")
    return Question(text, tuple(answers), row.source)


def _text(row: Row, name: str, columns: Mapping[str, str]) -> str:
    value = _value(row, name, columns)
    if not _is_text(value):
        raise _bad(row, name, value, "give a text that is not empty")
    return str(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _value(row: Row, name: str, columns: Mapping[str, str]) -> Any:
    column = columns.get(name, name)
    if column not in row.values:
        raise UserError(
            f"{row.source}: no column {column!r}; there are {', '.join(map(repr, row.values))}. "
            f"Map the right one with columns: {{{name}: ...}}"
        )
    return row.values[column]


def _bad(row: Row, name: str, value: Any, remedy: str) -> UserError:
    shown = repr(value)
    return UserError(f"{row.source}: {name} = {shown if len(shown) <= 80 else shown[:77] + '...'}: {remedy}")
