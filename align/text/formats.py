"""The data formats, and how their rows become the five kinds of records.

`LAYOUTS` lists the formats. docs/formats.md shows a row of each and the records that it can become. Other keys of a row
are in `align.text.keys`. A document made of messages is their contents with blank lines between. A prompt is everything
before the last answer. Answers to be scored may be unranked, as `align.generate` writes them; chosen comes before
rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Literal, NamedTuple

from align.errors import UserError
from align.text import keys, messages, parsers, published
from align.text.extra_keys import BAD_ANSWER, NOT_LEARNED, with_keys, with_ranking_keys
from align.text.messages import AS_THEY_ARE, Handling
from align.text.parsers import AFTER_ANSWER, BadRow, LeftOut, Parsed, Values
from align.text.records import Answers, Conversation, Document, Message, Prompt, Ranking

Kind = Literal["documents", "conversations", "prompts", "rankings", "answers"]
Record = Document | Conversation | Prompt | Ranking | Answers


class Layout(NamedTuple):
    """One format: its columns, its parser and the records that it can become."""

    columns: tuple[str, ...]  # a row with all of these has this format
    parse: Callable[[Values], Parsed]
    kinds: frozenset[Kind]
    optional: tuple[str, ...] = ()  # more columns of this format
    asks: str = ""  # the column with the user's message; context and options are added if it is one text
    parts: Callable[[Values, str], Iterable[Values]] | None = None  # splits a row that holds several


_TEXT: frozenset[Kind] = frozenset({"documents"})
_PROMPT: frozenset[Kind] = _TEXT | {"prompts"}
_ANSWER: frozenset[Kind] = _PROMPT | {"conversations", "answers"}
_ORDER: frozenset[Kind] = _ANSWER | {"rankings"}
_SCORED: frozenset[Kind] = frozenset({"prompts", "answers"})

# In the order of recognition: formats with more columns come first.
LAYOUTS: dict[str, Layout] = {
    "ranking": Layout(("prompt", "responses"), parsers.parse_ranking, _ORDER, ("ranks", "scores"), "prompt"),
    "arena": Layout(
        ("conversation_a", "conversation_b", "winner"), published.parse_arena, _ORDER, ("model_a", "model_b")
    ),
    "arena_pairs": Layout(
        ("prompt", "response_a", "response_b"),
        published.parse_arena_pairs,
        _ORDER,
        ("winner", "winner_model_a", "winner_model_b", "winner_tie", "model_a", "model_b"),
        "prompt",
    ),
    "shp": Layout(
        ("history", "human_ref_A", "human_ref_B", "labels"),
        published.parse_shp,
        _ORDER,
        ("score_A", "score_B"),
        "history",
    ),
    "helpsteer3": Layout(
        ("context", "response1", "response2", "overall_preference"), published.parse_helpsteer3, _ORDER
    ),
    "helpsteer2": Layout(
        ("prompt", "response_1", "response_2", "preference_strength"),
        published.parse_helpsteer2,
        _ORDER,
        asks="prompt",
    ),
    "oasst": Layout(published.TREE, published.parse_oasst, _ORDER, parts=published.oasst_parts),
    "sharegpt_preference": Layout(("conversations", "chosen", "rejected"), parsers.parse_sharegpt_preference, _ORDER),
    "hh": Layout(("chosen", "rejected"), parsers.parse_hh, _ORDER, ("prompt",)),
    "preference": Layout(("chosen", "rejected"), parsers.parse_preference, _ORDER, ("prompt",), "prompt"),
    "messages": Layout(("messages",), parsers.parse_messages, _ANSWER),
    "sharegpt": Layout(("conversations",), parsers.parse_sharegpt, _ANSWER),
    "alpaca": Layout(("instruction", "output"), parsers.parse_alpaca, _ANSWER, ("input", "history"), "instruction"),
    "dolly": Layout(("instruction", "response"), published.parse_dolly, _ANSWER, ("category",), "instruction"),
    "prompt_completion": Layout(("prompt", "completion"), parsers.parse_prompt_completion, _ANSWER, asks="prompt"),
    "question_answer": Layout(("question", "answer"), parsers.parse_question_answer, _ANSWER, asks="question"),
    "helpsteer": Layout(("prompt", "response", "helpfulness"), published.parse_helpsteer, _SCORED, asks="prompt"),
    "prompt": Layout(("prompt",), parsers.parse_prompt, _PROMPT, asks="prompt"),
    "text": Layout(("text",), parsers.parse_text, _TEXT),
}
OWN = {name: frozenset((*layout.columns, *layout.optional)) for name, layout in LAYOUTS.items()}

NOTHING_LEARNED = "no answer in it is a training target"

_ACTING = {name: keys.ACTING - own for name, own in OWN.items()}
_LEARNED = attrgetter("learned")
_SINGLE_MESSAGES = frozenset(("message_id", "parent_id", "text", "role"))
_HELPS = {
    ("helpsteer", "conversations"): "; its answers have ratings, but no label good or bad. "
    "data.columns={completion: response} trains on all of them",
    ("prompt", "conversations"): "; map the column with the answer, such as data.columns={completion: response}",
}


def recognise(row: Values, kind: Kind, source: str) -> str:
    """The format of a row, by its columns. For documents a column `text` is preferred.

    Raises `UserError` with the columns of the row and all known formats.
    """
    if kind == "documents" and "text" in row:
        return "text"
    found = [name for name, layout in LAYOUTS.items() if row.keys() >= set(layout.columns)]
    if row.keys() >= _SINGLE_MESSAGES:
        raise UserError(
            f"{source}: these are single messages of OpenAssistant's trees; use the file with one tree in each row "
            "('trees' is in its name)"
        )
    if "hh" in found and not parsers.has_transcripts(row):
        found.remove("hh")
    if not found:
        known = "\n".join(f"  {name}: {', '.join(layout.columns)}" for name, layout in LAYOUTS.items() if name != "hh")
        raise UserError(
            f"{source}: no format has the columns {', '.join(map(str, row)) or '(none)'}; map them with data.columns, "
            f"such as {{prompt: question}}. The formats and their columns:\n{known}"
        )
    return found[0]


def reads(margins: str = "column") -> dict[str, frozenset[str]]:
    """The keys of a row that each format reads or refuses; for `align.text.keys.Unread`."""
    unread = keys.SCORES if margins == "column" else frozenset[str]()
    extra = {True: keys.OF_TEXTS - unread, False: keys.ROW_NAMES - unread}
    return {name: own | extra[LAYOUTS[name].kinds == _TEXT] for name, own in OWN.items()}


def check_kind(name: str, kind: Kind, source: str) -> None:
    """Raises `UserError` if a format cannot become records of this kind."""
    if kind not in LAYOUTS[name].kinds:
        able = ", ".join(other for other, layout in LAYOUTS.items() if kind in layout.kinds)
        more = _HELPS.get((name, kind), "")
        raise UserError(f"{source}: the format {name} has no {kind}; formats that have are {able}{more}")


def map_columns(row: Values, columns: dict[str, str]) -> Values:
    """The row with our column names. `columns` maps ours to the file's. A column that the row lacks stays missing."""
    if not columns:
        return row
    taken = set(columns.values())
    kept = {name: value for name, value in row.items() if name not in taken}
    return kept | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}


def check_columns(row: Values, columns: dict[str, str], source: str) -> None:
    """Raises `UserError` if a mapped column is not in the file."""
    for ours, theirs in columns.items():
        if theirs not in row:
            found = ", ".join(map(str, row)) or "(none)"
            raise UserError(f"{source}: data.columns maps {ours} to {theirs}, but the file's columns are {found}")


def to_document(parsed: Parsed, source: str = "") -> Document:
    """The text, or the messages and the best answer with blank lines between.

    Raises `BadRow` if they have thoughts, `LeftOut` for a row that is not to be learned.
    """
    if not parsed.learned or parsed.good is False:
        raise _left_out(parsed)
    turns = (*parsed.prompt, *_best(parsed))
    if any(turn.thoughts for turn in turns):
        raise BadRow("a document cannot hold thoughts separately; set data.thoughts to inline or drop")
    return Document(parsed.text or "\n\n".join(turn.text for turn in turns), source)


def to_conversation(parsed: Parsed, source: str = "") -> Conversation:
    """The prompt and the best answer. Messages after the last answer are left out.

    Raises `BadRow` if there is no answer, `LeftOut` if no answer is to be learned.
    """
    if not parsed.learned or parsed.good is False:
        raise _left_out(parsed)
    best = _best(parsed)
    if best and best[0].content and best[0].learned:
        return Conversation((*parsed.prompt, *best), source)
    messages = (*parsed.prompt, *best)
    last = max((i for i, turn in enumerate(messages) if turn.role == "assistant"), default=-1)
    if last < 0:
        raise BadRow("this row has no answer")
    if not messages[last].text:
        raise BadRow("the best answer is empty")
    if not any(turn.learned for turn in messages if turn.role == "assistant"):
        raise LeftOut(NOTHING_LEARNED)
    return Conversation(messages[: last + 1], source)


def to_prompt(parsed: Parsed, source: str = "") -> Prompt:
    """The messages before the answer."""
    return Prompt(parsed.prompt, source)


def to_ranking(parsed: Parsed, source: str = "") -> Ranking:
    """The ranked answers.

    Raises `BadRow` if they have no ranks or are more than texts, `LeftOut` if they are not to be learned.
    """
    if not parsed.ranks:
        raise BadRow("these answers have no ranks; rank them first")
    if not _are_learned(parsed):
        raise LeftOut(NOT_LEARNED)
    return Ranking(parsed.prompt, _texts(parsed), parsed.ranks, source=source, margin=parsed.margin)


def to_answers(parsed: Parsed, source: str = "") -> Answers:
    """All answers, in the order of the row. Raises `BadRow` if there is none, or if one is more than a text."""
    found = _texts(parsed) or parsed.unranked
    if not found:
        raise BadRow("this row has no answer to score")
    return Answers(parsed.prompt, found, parsed.ranks, source, parsed.good, _are_learned(parsed))


MAKERS: dict[Kind, Callable[[Parsed, str], Record]] = {
    "documents": to_document,
    "conversations": to_conversation,
    "prompts": to_prompt,
    "rankings": to_ranking,
    "answers": to_answers,
}


def make(
    row: Values, name: str, kind: Kind, source: str, how: Handling = AS_THEY_ARE
) -> tuple[Record, tuple[str, ...]]:
    """The record of a row of the named format, and the rules that changed it.

    Raises `BadRow` for a row that breaks the format, `LeftOut` for a row that a rule of the format leaves out.
    """
    layout = LAYOUTS[name]
    parsed = layout.parse(row)
    if not _ACTING[name].isdisjoint(row):
        parsed = with_keys(row, parsed, OWN[name], layout.asks)
    notes: tuple[str, ...] = (parsed.note,) if parsed.note else ()
    if layout.asks and parsers.is_transcript(row.get(layout.asks)):
        notes = (parsers.TRANSCRIPT, *notes)
    if how is not AS_THEY_ARE:
        prompt, answers, changes = messages.handled(parsed.prompt, parsed.answers, how)
        parsed, notes = parsed._replace(prompt=prompt, answers=answers), (*notes, *changes)
    if not parsed.text:
        messages.answerable(parsed.prompt)
    record = MAKERS[kind](parsed, source)
    if isinstance(record, Ranking):
        record = with_ranking_keys(record, row, parsed, how.margins)
    elif isinstance(record, Conversation):
        notes = (*notes, AFTER_ANSWER) if not parsed.answers else notes
        if record.messages[0].role != "user" and messages.begins_unasked(record.messages):
            notes = (*notes, messages.UNASKED)
    return record, notes


def parts_of(row: Values, name: str, kind: Kind) -> Iterable[Values]:
    """The parts of a row: the row itself, unless the format's rows hold several. Raises `BadRow` for malformed ones."""
    parts = LAYOUTS[name].parts
    return (row,) if parts is None else parts(row, kind)


def _left_out(parsed: Parsed) -> LeftOut:
    return LeftOut(BAD_ANSWER if parsed.learned else NOT_LEARNED)


def _are_learned(parsed: Parsed) -> bool:
    return parsed.learned and all(map(_LEARNED, parsed.answers))


def _best(parsed: Parsed) -> tuple[Message, ...]:
    if not parsed.ranks:
        return parsed.answers[:1]
    return (parsed.answers[parsed.ranks.index(1)],)


def _texts(parsed: Parsed) -> tuple[str, ...]:
    for answer in parsed.answers:
        if answer.calls:
            raise BadRow("an answer that calls a tool can be learned in a conversation, but not ranked or scored")
        if answer.thoughts:
            raise BadRow("answers to rank or score cannot have thoughts; set data.thoughts to inline or drop")
    return tuple(answer.content for answer in parsed.answers)
