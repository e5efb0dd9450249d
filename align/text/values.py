"""Values of a row as they stand in files: texts, lists, turns. What cannot be right is a `BadRow`, with the reason.

A string is a string, whatever it looks like. Only in a cell of a CSV file, which has nothing else, a list is read that
is written as JSON, and a number, or true and false; one that Python wrote there (pandas' to_csv) is refused.
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
    """A row that is not what its format says. Its text is the reason."""


class LeftOut(Exception):
    """A row that a documented rule leaves out. Its text is the rule."""


_TEXT_PARTS = ("text", "input_text", "output_text")
_MEDIA = ("image", "image_url", "audio", "video")
_ELSEWHERE = dict.fromkeys(("thinking", "reasoning"), "; thoughts are the turn's reasoning_content")
_ELSEWHERE |= dict.fromkeys(("tool_use", "tool_call"), "; calls are the turn's tool_calls")
_PART = '{"type": "text", "text": "..."}'
_WORDS = {"": None, "nan": None, "none": None, "null": None, "true": True, "false": False}
# Lists of texts, of turns or of pairs, numpy's (without commas) too; or one turn alone.
_PYTHON_LIST = re.compile(r"""\s*((array\()?\[[\[(\s]*(\{\s*)?u?['"]|\{'(role|from|content|value)')""")


def value_of(row: Values, name: str) -> Any:
    if name not in row:
        raise BadRow(f"no column {name!r}; there are {', '.join(map(str, row)) or 'none'}")
    value = row[name]
    if is_missing(value):
        raise BadRow(f"{name} is null")
    return value


def is_missing(value: Any) -> bool:
    """Null, or the NaN that pandas has in its place."""
    return value is None or (isinstance(value, float) and value != value)


def optional(row: Values, name: str) -> str:
    """The text of a column that may be missing, null or empty: then ""."""
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
        except UnicodeEncodeError:  # JSON can write half of a surrogate pair, which no tokenizer can read
            raise BadRow(f"{name} is not valid Unicode (half of a surrogate pair)") from None
    return value


def turn_text(value: Any, name: str) -> str:
    text = string(value, name)
    return trimmed(text) if text[0].isspace() else text.rstrip()


def trimmed(text: str) -> str:
    """A text without the space around it, but code keeps the indentation of its first line.

    Code is known by a later line that is indented as much, by two spaces or a tab at least. " Red" is "Red".
    """
    said = text.strip()
    if "\n" in said and text[0].isspace():
        indent = text[: text.index(said[0])].rpartition("\n")[2]
        if (len(indent) > 1 or indent == "\t") and f"\n{indent}" in said:
            return indent + said
    return said


def listed(value: Any) -> Any:
    """The list that a CSV file's cell holds; anything else as it is. Raises `BadRow` for a list that Python wrote."""
    if not (isinstance(value, Cell) and value.lstrip().startswith(("[", "array([", "{'"))):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        if _PYTHON_LIST.match(value) and value.rstrip()[-1] in "])}":
            raise BadRow(
                "a cell holds a list as Python writes it (pandas' to_csv), not JSON; "
                "write such columns with json.dumps, or the data as JSON Lines or Parquet"
            ) from None
        return value


def turns_or_text(value: Any) -> Any:
    """`listed`, where a text may stand instead of turns: a cell's list that holds no object is a text."""
    if not isinstance(value, Cell):
        return value
    found = listed(value)
    return found if isinstance(found, list) and any(isinstance(turn, dict) for turn in found) else value


def scalar(value: Any) -> Any:
    """The number, true or false that a CSV file's cell holds, null where it is empty; anything else as it is."""
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
    """A list, or the one turn in its place."""
    if isinstance(value, Cell) and value.lstrip().startswith('{"'):
        value = listed(Cell(f"[{value}]"))
    return [value] if isinstance(value, dict) else listed(value)


def joined_parts(content: Any, where: str) -> Any:
    """A content in parts (OpenAI's {type, text}, LLaMA-Factory's {type, value}) as one text; any other as it is."""
    return "".join(_part(part, where) for part in content) if isinstance(content, list) else content


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise BadRow(f"{where} has content that is not text: a part {shown(part)}; a part is an object, {_PART}")
    media = next((key for key in _MEDIA if part.get(key) is not None), "text")
    kind = media if part.get("type") in (None, "", "text") else part["type"]
    if kind not in _TEXT_PARTS:
        more = _ELSEWHERE.get(str(kind), "")
        raise BadRow(f"{where} has content that is not text: a part of the type {shown(kind)}; only text is read{more}")
    text = part.get("text") if part.get("text") is not None else part.get("value")
    if not isinstance(text, str):
        raise BadRow(f"{where} has content that is not text: a part with {', '.join(map(repr, part))}; one is {_PART}")
    return text


def number(value: Any, name: str) -> float:
    """A finite number, also one that stands in a CSV file's cell."""
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
    """How many items two sequences, or characters two texts, begin with alike."""
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
