"""Applies the keys that a row has besides its format's own columns (listed in `align.text.keys`)."""

from __future__ import annotations

import re
import sys
from string import ascii_uppercase
from typing import Any

from align.text import keys
from align.text.messages import tools_of
from align.text.parsers import Parsed
from align.text.records import Message, Ranking
from align.text.values import BadRow, Messages, Values, listed, number, scalar, shown, turn_text

FoundKeys = dict[str, tuple[str, Any]]  # key name -> (spelling, value), as `keys.found` returns

BAD_ANSWER = "the row's label marks its answer as bad"
UNREAD_LABEL = "the label is neither true nor false and was ignored"
NOT_LEARNED = "marked as not to be learned"


def with_keys(row: Values, parsed: Parsed, own: frozenset[str], asks: str) -> Parsed:
    """Applies a row's extra keys. `asks` is the column with the user's message as one text.

    Raises `BadRow` for a key that is refused or contradicts the row.
    """
    found = keys.found(row, keys.IN_ROWS, own)
    if parsed.text or not found:
        return parsed
    name, label = found.get("label", keys.NOTHING)
    good = keys.yes_or_no(label)
    if name and good is None:
        parsed = parsed._replace(note=parsed.note or UNREAD_LABEL)
    elif name and parsed.ranks:
        raise BadRow(f"{name} = {shown(label)}: the answers are ranked, so one label is ambiguous{keys.unless(name)}")
    _check_mask(found)
    prompt = _with_question_parts(found, parsed.prompt, isinstance(row.get(asks), str))
    if "system" in found:
        name, text = found["system"]
        prompt = _with_first(prompt, Message("system", turn_text(text, name)), name)
    if "tools" in found and (tools := tools_of(found["tools"][1], found["tools"][0])).content != "[]":
        prompt = _with_first(prompt, tools, found["tools"][0])
    good = parsed.good if good is None else good
    learned = keys.marked(found) is not False
    return parsed._replace(prompt=prompt, answers=_with_thoughts(found, parsed), good=good, learned=learned)


def _check_mask(found: FoundKeys) -> None:
    """Raises `BadRow` if the mask is for another role than the user."""
    _, role = found.get("mask", keys.NOTHING)
    if role is not None and str(role).lower() not in ("user", "human"):
        raise BadRow(
            f"mask = {shown(role)}: only User can be masked; set weight to 1 or 0 in messages{keys.unless('mask')}"
        )


def _with_question_parts(found: FoundKeys, prompt: Messages, is_one_text: bool) -> Messages:
    """Adds the row's context before the last message and its options after it."""
    context, options = (found.get(name, keys.NOTHING) for name in ("context", "options"))
    names = [name for name, _ in (context, options) if name]
    if not names:
        return prompt
    if not is_one_text:
        raise BadRow(
            f"{names[0]} is only read with a prompt that is one text; write it into a message{keys.unless(names[0])}"
        )
    question = "\n".join([prompt[-1].content, *(_lettered(options[1], options[0]) if options[0] else [])])
    before = [turn_text(context[1], context[0])] if context[0] else []
    return (*prompt[:-1], prompt[-1]._replace(content="\n\n".join([*before, question])))


def _lettered(options: Any, name: str) -> list[str]:
    """Options as lines: "A. iron", "B. apple". They are a list, a mapping by letter, or ARC's {text, label}.

    Texts that already begin with their letters are kept.
    """
    options = listed(options)
    if isinstance(options, dict) and isinstance(options.get("text"), list) and isinstance(options.get("label"), list):
        letters, texts = options["label"], options["text"]
    elif isinstance(options, dict):
        letters, texts = list(options), list(options.values())
    elif isinstance(options, list):
        letters, texts = list(ascii_uppercase[: len(options)]), options
    else:
        raise BadRow(f"{name} must be a list of texts, found {shown(options)}{keys.unless(name)}")
    if len(letters) != len(texts):
        raise BadRow(f"{name} has {len(texts)} texts and {len(letters)} letters")
    lines = [(letter, turn_text(text, name)) for letter, text in zip(letters, texts, strict=True) if text is not None]
    has_letters = all(re.match(rf"\(?{re.escape(str(letter))}[.):]", text, re.IGNORECASE) for letter, text in lines)
    return [text if has_letters else f"{letter}. {text}" for letter, text in lines]


def _with_first(prompt: Messages, turn: Message, name: str) -> Messages:
    """Puts a row's system message or tools first. Raises `BadRow` if the messages already begin with different ones."""
    tools = prompt[:1] if turn.role == "system" and prompt and prompt[0].role == "tools" else ()
    rest = prompt[len(tools) :]
    if not (rest and rest[0].role == turn.role):
        return (*tools, turn, *rest)
    if rest[0] != turn:
        began = shown(rest[0].content)
        raise BadRow(
            f"{name} = {shown(turn.content)}, but the messages begin with {turn.role} {began}; remove one of them"
        )
    return prompt


def _with_thoughts(found: FoundKeys, parsed: Parsed) -> Messages:
    name, value = found.get("reasoning_content", keys.NOTHING)
    if not name or not (parsed.answers or parsed.unranked):
        return parsed.answers
    thoughts = turn_text(value, name)
    if thoughts.lower() in ("on", "off"):
        raise BadRow(f"{name} = {shown(thoughts)} is a switch; set data.template_options instead, for all rows")
    if len(parsed.answers) != 1 or parsed.answers[0].thoughts not in ("", thoughts):
        raise BadRow(f"{name} does not say which answer it belongs to; write it into that message{keys.unless(name)}")
    return (parsed.answers[0]._replace(thoughts=thoughts),)


def with_ranking_keys(ranking: Ranking, row: Values, parsed: Parsed, margins: str) -> Ranking:
    """Adds annotator, source and margin of the row to the ranking."""
    annotator, origin = ("" if row.get(name) is None else str(row[name]) for name in ("annotator", "source"))
    margin = scalar(row.get("margin"))
    if margins == "scores":
        margin = _score_margin(row, parsed)
    elif margin is None:
        margin = ranking.margin
    elif isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin <= sys.float_info.max:
        raise BadRow(f"margin must be a number of at least 0, found {shown(margin)}")
    return ranking._replace(annotator=annotator, origin=origin, margin=None if margin is None else float(margin))


def _score_margin(row: Values, parsed: Parsed) -> float:
    if parsed.spread is not None and parsed.spread < 0:
        raise BadRow("the better answer has the lower score; data.margins=scores needs a higher one")
    if parsed.spread is not None:
        return parsed.spread
    found = keys.found(row, keys.IN_ROWS, frozenset(row) - keys.SCORES)
    both = [found.get(name, keys.NOTHING) for name in ("score_chosen", "score_rejected")]
    if not all(name for name, _ in both):
        raise BadRow("data.margins=scores: this row has no score_chosen and score_rejected")
    chosen, rejected = (number(value, name) for name, value in both)
    if chosen < rejected:
        raise BadRow(
            f"{both[0][0]} = {chosen:g} is below {both[1][0]} = {rejected:g}, so the rejected answer is better"
        )
    return chosen - rejected
