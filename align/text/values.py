"""Reads and checks single values of a row: texts, lists, numbers. A wrong value raises `BadRow` with the reason.

A string stays a string, whatever it looks like. Only a CSV cell may hold a list (as JSON), a number, true or false. A
list in Python's form (pandas' to_csv) is refused.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from align.text.records import Message
from align.text.rows import Cell

Values = dict[str, Any]
Messages = tuple[Message, ...]


class BadRow(Exception):
    """A row that breaks its format. Its text is the reason."""


class LeftOut(Exception):
    """A row that a documented rule leaves out. Its text is the rule."""


_TEXT_PARTS = ("text", "input_text", "output_text")
_MEDIA = ("image", "image_url", "audio", "video")
_ELSEWHERE = dict.fromkeys(("thinking", "reasoning"), "; write thoughts to the message's reasoning_content")
_ELSEWHERE |= dict.fromkeys(("tool_use", "tool_call"), "; write calls to the message's tool_calls")
_PART = '{"type": "text", "text": "..."}'
_WORDS = {"": None, "nan": None, "none": None, "null": None, "true": True, "false": False}
# Lists of texts, messages or pairs, also numpy's (without commas); or one message.
_PYTHON_LIST = re.compile(r"""\s*((array\()?\[[\[(\s]*(\{\s*)?u?['"]|\{'(role|from|content|value)')""")


def value_of(row: Values, name: str) -> Any:
    if name not in row:
        raise BadRow(f"no column {name!r}; the columns are {', '.join(map(str, row)) or 'none'}")
    value = row[name]
    if is_missing(value):
        raise BadRow(f"{name} is null")
    return value


def is_missing(value: Any) -> bool:
    """Whether a value is null, or NaN, which pandas writes for null."""
    return value is None or (isinstance(value, float) and value != value)


def optional(row: Values, name: str) -> str:
    """The text of a column; "" if it is missing, null or empty."""
    value = row.get(name)
    return "" if is_missing(value) else trimmed(string(value, name, may_be_empty=True))


def string(value: Any, name: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name} must be a string, found {shown(value)}")
    if not may_be_empty and (not value or value.isspace()):
        raise BadRow(f"{name} is empty")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # JSON can hold half of a surrogate pair, which no tokenizer can read
            raise BadRow(f"{name} is not valid Unicode (half of a surrogate pair)") from None
    return value


def turn_text(value: Any, name: str) -> str:
    text = string(value, name)
    return trimmed(text) if text[0].isspace() else text.rstrip()


def trimmed(text: str) -> str:
    """A text without surrounding white space. Code keeps the indentation of its first line.

    A text is code if a later line has the same indentation, of at least two spaces or a tab. " Red" becomes "Red".
    """
    stripped = text.strip()
    if "\n" in stripped and text[0].isspace():
        indent = text[: text.index(stripped[0])].rpartition("\n")[2]
        if (len(indent) > 1 or indent == "\t") and f"\n{indent}" in stripped:
            return indent + stripped
    return stripped


def listed(value: Any) -> Any:
    """The list in a CSV cell; any other value unchanged. Raises `BadRow` for a list in Python's form."""
    if not (isinstance(value, Cell) and value.lstrip().startswith(("[", "array([", "{'"))):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        if _PYTHON_LIST.match(value) and value.rstrip()[-1] in "])}":
            raise BadRow(
                "a cell has a list in Python's form (pandas' to_csv), not in JSON; write such columns with json.dumps, "
                "or save the data as JSON Lines or Parquet"
            ) from None
        return value


def turns_or_text(value: Any) -> Any:
    """`listed` for columns with messages or a text: a CSV cell with a list without objects is a text."""
    if not isinstance(value, Cell):
        return value
    found = listed(value)
    return found if isinstance(found, list) and any(isinstance(turn, dict) for turn in found) else value


def scalar(value: Any) -> Any:
    """The number, true or false in a CSV cell, null if it is empty; any other value unchanged."""
    if not isinstance(value, Cell):
        return value
    text = value.strip().lower()
    if text in _WORDS:
        return _WORDS[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return value


def as_list(value: Any) -> Any:
    """A list; one object becomes a list of one."""
    if isinstance(value, Cell) and value.lstrip().startswith('{"'):
        value = listed(Cell(f"[{value}]"))
    return [value] if isinstance(value, dict) else listed(value)


def joined_parts(content: Any, where: str) -> Any:
    """Joins a content in parts (OpenAI's {type, text}, LLaMA-Factory's {type, value}); any other is unchanged."""
    return "".join(_part(part, where) for part in content) if isinstance(content, list) else content


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise BadRow(f"{where} has content that is not text: a part {shown(part)}; a part must be {_PART}")
    media = next((key for key in _MEDIA if part.get(key) is not None), "text")
    kind = media if part.get("type") in (None, "", "text") else part["type"]
    if kind not in _TEXT_PARTS:
        more = _ELSEWHERE.get(str(kind), "")
        raise BadRow(f"{where} has content that is not text: a part of the type {shown(kind)}; only text is read{more}")
    text = part.get("text") if part.get("text") is not None else part.get("value")
    if not isinstance(text, str):
        raise BadRow(
            f"{where} has content that is not text: a part with {', '.join(map(repr, part))}; a part must be {_PART}"
        )
    return text


def number(value: Any, name: str) -> float:
    """A finite number, also from a CSV cell."""
    found = scalar(value)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not abs(found) <= sys.float_info.max:
        raise BadRow(f"{name} must be a number, found {shown(value)}")
    return float(found)


def rank_of(value: Any) -> int:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole:
        raise BadRow(f"a rank must be a whole number, found {shown(value)}")
    return int(value)


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else text[:57] + "..."


def n_shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The length of the common beginning of two sequences or texts."""
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
