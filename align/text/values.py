"""Values of a row as they stand in files: texts, lists, turns. What cannot be right is a `BadRow`, with the reason."""

from __future__ import annotations

import json
from typing import Any

from align.text.records import Message

Values = dict[str, Any]
Turns = tuple[Message, ...]


class BadRow(Exception):
    """A row that is not what its format says. Its text is the reason."""


class LeftOut(Exception):
    """A row that a documented rule leaves out. Its text is the rule."""


def value_of(row: Values, name: str) -> Any:
    if name not in row:
        raise BadRow(f"no column {name!r}; there are {', '.join(map(str, row)) or 'none'}")
    if row[name] is None:
        raise BadRow(f"{name} is null")
    return row[name]


def string(value: Any, name: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{name} must be a string, found {shown(value)}")
    if not may_be_empty and not value.strip():
        raise BadRow(f"{name} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair, which no tokenizer can read
        raise BadRow(f"{name} is not valid Unicode (half of a surrogate pair)") from None
    return value


def turn_text(value: Any, name: str) -> str:
    return string(value, name).strip()


def listed(value: Any) -> Any:
    """A list that stands in a string, as lists do in CSV files; anything else as it is."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else listed(value)


def joined_parts(content: Any, where: str) -> Any:
    """OpenAI's content in parts as one text; a content that is no list as it is."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        raise BadRow(f"{where} has content that is not text")
    return "".join(str(part.get("text") or "") for part in content)


def rank_of(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise BadRow(f"a rank must be a whole number, found {shown(value)}")
    return int(value)


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
