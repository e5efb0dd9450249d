"""The formats that data sets come in, and the five kinds of record that can be made of them.

| format | columns | documents | conversations | prompts | rankings | answers |
|---|---|---|---|---|---|---|
| text | text | yes | | | | |
| prompt | prompt | yes | | yes | | |
| prompt_completion | prompt, completion | yes | yes | yes | | yes |
| messages | messages | yes | yes | yes | | yes |
| alpaca | instruction, output (input) | yes | yes | yes | | yes |
| sharegpt | conversations | yes | yes | yes | | yes |
| question_answer | question, answer | yes | yes | yes | | yes |
| sharegpt_preference | conversations, chosen, rejected | yes | best answer | yes | yes | yes |
| hh | chosen, rejected (transcripts) | yes | best answer | yes | yes | yes |
| preference | chosen, rejected (prompt) | yes | best answer | yes | yes | yes |
| ranking | prompt, responses (ranks, annotator) | yes | best answer | yes | yes | yes |

A row that becomes a ranking may also have annotator, source (the collection that it comes from) and margin.
A document made of turns is their contents with blank lines between. A prompt is what comes before the last answer.
Answers to be scored may be unranked, as `align.generate` writes them; chosen comes before rejected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from align.errors import UserError
from align.text import parsers
from align.text.parsers import AFTER_ANSWER, BadRow, Parsed, Values
from align.text.records import Answers, Conversation, Document, Message, Prompt, Ranking

Kind = Literal["documents", "conversations", "prompts", "rankings", "answers"]
Record = Document | Conversation | Prompt | Ranking | Answers


class Layout(NamedTuple):
    """How one format is laid out."""

    columns: tuple[str, ...]  # those that tell it
    parse: Callable[[Values], Parsed]
    kinds: frozenset[Kind]


_TEXT: frozenset[Kind] = frozenset({"documents"})
_PROMPT: frozenset[Kind] = _TEXT | {"prompts"}
_ANSWER: frozenset[Kind] = _PROMPT | {"conversations", "answers"}
_ORDER: frozenset[Kind] = _ANSWER | {"rankings"}

# In the order in which they are recognised: what has more to say comes first.
LAYOUTS: dict[str, Layout] = {
    "ranking": Layout(("prompt", "responses"), parsers.parse_ranking, _ORDER),
    "sharegpt_preference": Layout(("conversations", "chosen", "rejected"), parsers.parse_sharegpt_preference, _ORDER),
    "hh": Layout(("chosen", "rejected"), parsers.parse_hh, _ORDER),
    "preference": Layout(("chosen", "rejected"), parsers.parse_preference, _ORDER),
    "messages": Layout(("messages",), parsers.parse_messages, _ANSWER),
    "sharegpt": Layout(("conversations",), parsers.parse_sharegpt, _ANSWER),
    "alpaca": Layout(("instruction", "output"), parsers.parse_alpaca, _ANSWER),
    "prompt_completion": Layout(("prompt", "completion"), parsers.parse_prompt_completion, _ANSWER),
    "question_answer": Layout(("question", "answer"), parsers.parse_question_answer, _ANSWER),
    "prompt": Layout(("prompt",), parsers.parse_prompt, _PROMPT),
    "text": Layout(("text",), parsers.parse_text, _TEXT),
}


def recognise(row: Values, kind: Kind, source: str) -> str:
    """The format of a row, by its columns. Where documents are wanted, a column `text` is taken before all others.

    Raises `UserError` that says which columns were found and which formats there are.
    """
    if kind == "documents" and "text" in row:
        return "text"
    found = [name for name, layout in LAYOUTS.items() if row.keys() >= set(layout.columns)]
    if "hh" in found and not parsers.is_transcript(row.get("prompt") or row["chosen"]):
        found.remove("hh")
    if not found:
        known = "\n".join(f"  {name}: {', '.join(layout.columns)}" for name, layout in LAYOUTS.items() if name != "hh")
        raise UserError(
            f"{source}: no format has the columns {', '.join(map(str, row)) or '(none)'}; map them with data.columns, "
            f"as {{prompt: question}}. The formats and their columns:\n{known}"
        )
    return found[0]


def check_kind(name: str, kind: Kind, source: str) -> None:
    """Raises `UserError` when no records of this kind can be made of a format."""
    if kind not in LAYOUTS[name].kinds:
        able = ", ".join(other for other, layout in LAYOUTS.items() if kind in layout.kinds)
        raise UserError(f"{source}: {kind} cannot be made of the format {name}; they are made of {able}")


def map_columns(row: Values, columns: dict[str, str]) -> Values:
    """The row under our column names. `columns` maps ours to the file's; a column that the row lacks stays missing."""
    taken = set(columns.values())
    kept = {name: value for name, value in row.items() if name not in taken}
    return kept | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}


def check_columns(row: Values, columns: dict[str, str], source: str) -> None:
    """Raises `UserError` when a mapped column is not in the file."""
    for ours, theirs in columns.items():
        if theirs not in row:
            found = ", ".join(map(str, row)) or "(none)"
            raise UserError(f"{source}: data.columns maps {ours} to {theirs}, but the columns are {found}")


def to_document(parsed: Parsed, source: str = "") -> Document:
    """The text, or the turns and the best answer with blank lines between."""
    turns = [*(turn.content for turn in parsed.prompt), *_best(parsed)]
    return Document(parsed.text or "\n\n".join(turns), source)


def to_conversation(parsed: Parsed, source: str = "") -> Conversation:
    """The prompt and the best answer; turns after the last answer are left out. Raises `BadRow` where there is none."""
    answer = _best(parsed)
    if answer and not answer[0]:
        raise BadRow("the best answer is empty")
    if answer:
        return Conversation((*parsed.prompt, Message("assistant", answer[0])), source)
    last = max((i for i, turn in enumerate(parsed.prompt) if turn.role == "assistant"), default=-1)
    if last < 0:
        raise BadRow("there is no answer in this row")
    return Conversation(parsed.prompt[: last + 1], source)


def to_prompt(parsed: Parsed, source: str = "") -> Prompt:
    """What the assistant is to answer."""
    return Prompt(parsed.prompt, source)


def to_ranking(parsed: Parsed, source: str = "") -> Ranking:
    """The answers in their order. Raises `BadRow` where they have none."""
    if not parsed.ranks:
        raise BadRow("these answers have no ranks yet; rank them first")
    return Ranking(parsed.prompt, parsed.answers, parsed.ranks, source=source)


def to_answers(parsed: Parsed, source: str = "") -> Answers:
    """Every answer, in the order of the row. Raises `BadRow` where there is none."""
    found = parsed.answers or parsed.unranked
    if not found:
        raise BadRow("there is no answer in this row to score")
    return Answers(parsed.prompt, found, parsed.ranks, source)


MAKERS: dict[Kind, Callable[[Parsed, str], Record]] = {
    "documents": to_document,
    "conversations": to_conversation,
    "prompts": to_prompt,
    "rankings": to_ranking,
    "answers": to_answers,
}


def make(row: Values, name: str, kind: Kind, source: str) -> tuple[Record, str]:
    """The record in a row of the named format, and the rule that was applied to it, or "".

    Raises `BadRow` for a row that is not what the format says, `LeftOut` for one that a rule of the format leaves out.
    """
    parsed = LAYOUTS[name].parse(row)
    record = MAKERS[kind](parsed, source)
    if isinstance(record, Ranking):
        record = record._replace(**parsers.parse_besides(row)._asdict())
    ends_with_user = kind == "conversations" and not parsed.answers
    return record, AFTER_ANSWER if ends_with_user else parsed.note


def _best(parsed: Parsed) -> tuple[str, ...]:
    if not parsed.ranks:
        return parsed.answers[:1]
    return (parsed.answers[parsed.ranks.index(1)],)
