"""Keys that rows and messages of any format may have: what each does, or why it is refused.

A format's own columns are in `align.text.formats`. The keys here may be added to a row of any format or to any message.
Each lists every spelling that published data sets use; none is ignored silently. Any other key is not read, and the log
lists it once with its count (`Unread`). docs/formats.md is generated from these tables.

To ignore one of these keys anyway, rename it so that it begins with "_": data.columns={_context: context}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from align.text.values import BadRow, Values, is_missing, scalar, shown


class Key(NamedTuple):
    """One key with all its spellings."""

    name: str  # the first of `spellings`
    spellings: tuple[str, ...]
    does: str  # what it does; for a refused key: why, and what to do
    refused: bool = False


_MARKS = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight")

OF_ROWS = (
    Key(
        "system",
        ("system", "system_prompt", "system_message", "sys_prompt"),  # LLaMA-Factory, Orca; OpenOrca, distilabel
        "The system message, put before all others. Refused if the messages begin with another system text.",
    ),
    Key(
        "tools",
        ("tools", "functions"),  # OpenAI, TRL, LLaMA-Factory (JSON in a string); OpenAI's old form
        "The tools that may be called, a list or its JSON. They go to the chat template.",
    ),
    Key(
        "context",
        ("context",),
        "A text that the question is about. The user message becomes the context, a blank line, the question. Only "
        "with a prompt, question or instruction that is one text.",
    ),
    Key(
        "options",
        ("options", "choices"),
        'The choices, a list of texts or texts by letter. They follow the question, one per line, such as "A. iron". '
        'The answer is not changed: "B" is learned as "B".',
    ),
    Key(
        "reasoning_content",
        ("reasoning_content", "reasoning", "thinking", "thoughts", "thought"),
        "The thoughts before the last answer (`data.thoughts`). Refused if a row has several answers.",
    ),
    Key(
        "label",
        ("label", "kto_tag"),  # TRL's unpaired preference, LLaMA-Factory
        "true or 1: the answer is good; false or 0: it is bad, and the row is left out of demonstrations and counted. "
        "`dpo.loss: kto` learns from both. Any other value is not read. Refused if the row ranks its answers.",
    ),
    Key(
        "weight",
        _MARKS,  # OpenAI; axolotl; verl; ms-swift; LLaMA-Factory
        "1 or true: the row is learned; 0 or false: it is left out and counted. Values between are refused; set a "
        "weight for a whole file in `data.path`.",
    ),
    Key("mask", ("mask",), "NeMo's key for the role that is not learned. User is accepted, other roles are refused."),
    Key("annotator", ("annotator",), "The annotator who ranked the answers (rankings)."),
    Key("source", ("source",), "The collection that a ranking comes from, for figures by source."),
    Key("margin", ("margin",), "How much better the best answer is than the worst, at least 0 (rankings)."),
    Key(
        "score_chosen",
        ("score_chosen", "chosen_score", "chosen_rating"),  # UltraFeedback, TRL; argilla
        "With `data.margins: scores` the margin is `score_chosen` minus `score_rejected`.",
    ),
    Key("score_rejected", ("score_rejected", "rejected_score", "rejected_rating"), "See `score_chosen`."),
    Key(
        "model",
        ("model", "models", "temperature", "seed", "priority", "member_scores", "response_thoughts"),
        "The model that wrote the answers, and keys for `apps.label import` and `prioritise`; stages ignore them.",
    ),
    Key(
        "id",
        ("id", "_id", "idx", "index", "uid", "uuid", "row_id", "prompt_id", "question_id", "conversation_id"),
        "An identifier of the row: ignored, without a line in the log.",
    ),
    Key("history", ("history",), "only the format alpaca reads earlier turns; write them as messages", True),
    Key(
        "images",
        ("images", "image", "videos", "video", "audios", "audio"),
        "only text is supported; remove the rows that have them",
        True,
    ),
    Key(
        "chat_template_kwargs",
        ("chat_template_kwargs", "template_kwargs"),
        "variables of the chat template are the same for all rows; set data.template_options",
        True,
    ),
    Key("documents", ("documents",), "retrieval documents are not given to templates; write them into a message", True),
)

OF_MESSAGES = (
    Key(
        "role",
        ("role", "from"),
        "The role: user (human, prompter), assistant (gpt, chatgpt, model, bot), system (developer), tool (function, "
        "observation, ipython, tool_response, tool_result). function_call or tool_call is an assistant message whose "
        "content is the call.",
    ),
    Key("content", ("content", "value"), "The text of the message, or OpenAI's parts of the type text."),
    Key(
        "reasoning_content",
        ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thoughts", "thought"),
        "The assistant's thoughts before its content (`data.thoughts`). Refused in messages of other roles.",
    ),
    Key(
        "tool_calls",
        ("tool_calls", "function_call"),  # OpenAI; its old form
        "The tools that the assistant calls. Its content may then be empty. Learned as part of the answer.",
    ),
    Key("name", ("name", "tool_name"), "In a tool message: the tool that returned this result."),
    Key("tool_call_id", ("tool_call_id",), "In a tool message: the call that it answers."),
    Key(
        "weight",
        _MARKS,
        "1 or true: the answer is learned; 0 or false: it is context only. A row with nothing to learn is left out and "
        "counted. Values between are refused, and so is true in a message that is not the assistant's.",
    ),
    Key("masked", ("masked",), "true: the answer is context only; false: it is learned."),
    Key("label", ("label",), "false: the answer is context only; true: it is learned. Other values are not read."),
    Key(
        "id", ("id", "index", "uuid", "message_id"), "An identifier of the message: ignored, without a line in the log."
    ),
    Key("mask", ("mask",), "data sets disagree on what 0 and 1 mean; use weight, with 0 for not learned", True),
    Key(
        "training_detail",
        ("training_detail", "train_detail"),
        "an answer is learned as a whole or not at all; set weight to 0 or 1",
        True,
    ),
    Key(
        "images",
        ("images", "image", "videos", "video", "audios", "audio"),
        "only text is supported; remove the rows that have them",
        True,
    ),
    Key("tools", ("tools", "functions"), "tools belong to the row; move them to its column tools", True),
    Key("documents", ("documents",), "retrieval documents are not given to templates; write them into a message", True),
)

_SEVERAL = ("model", "id")  # their spellings are different things, and change nothing
IN_ROWS, IN_MESSAGES = (
    {spelling: key for key in table if key.name not in _SEVERAL for spelling in key.spellings}
    for table in (OF_ROWS, OF_MESSAGES)
)
_YES, _NO = ("1", "true"), ("0", "false")
_QUIET = ("annotator", "source", "margin", "score_chosen", "score_rejected", "model", "id")  # of no effect on turns


def named(*names: str, refused: bool = False) -> frozenset[str]:
    """All spellings of the named keys of a row; with `refused`, also those of the refused keys."""
    return frozenset(
        name for key in OF_ROWS if key.name in names or (refused and key.refused) for name in key.spellings
    )


ROW_NAMES = named(*(key.name for key in OF_ROWS))
MESSAGE_NAMES = frozenset(spelling for key in OF_MESSAGES for spelling in key.spellings)
ACTING = ROW_NAMES - named(*_QUIET)  # keys that change or refuse a row of messages
OF_TEXTS = named(*_QUIET, refused=True)  # keys that are read or refused in a row of the format text
SCORES = named("score_chosen", "score_rejected")


def is_empty(value: Any) -> bool:
    """Whether a value is null, NaN, or an empty text or list. Tables give every row every column."""
    return is_missing(value) or (isinstance(value, str | list | dict) and not value)


def found(
    values: Values, table: dict[str, Key], own: frozenset[str] = frozenset(), where: str = ""
) -> dict[str, tuple[str, Any]]:
    """The known keys of a row or message, as {name: (spelling, value)}. `table` is `IN_ROWS` or `IN_MESSAGES`.

    `own` are the format's own columns, which are skipped. Raises `BadRow` for a refused key, and for two spellings of
    one key with different values.
    """
    result: dict[str, tuple[str, Any]] = {}
    for name, value in values.items():
        key = table.get(name)
        if key is None or name in own or is_empty(value):
            continue
        if key.refused:
            raise BadRow(f"{where}{name} = {shown(value)}: {key.does}{'' if where else unless(name)}")
        before, other = result.setdefault(key.name, (name, value))
        if other != value:
            raise BadRow(f"{where}{before} and {name} differ, but both mean {key.name}; remove one of them")
    return result


NOTHING = ("", None)  # the default for a key that `found` did not find
NAMELESS = "a column without a name"  # pandas writes its index so


def unless(name: str) -> str:
    """The remedy for a key that can be ignored."""
    return f"; to ignore it, set data.columns={{_{name}: {name}}}"


def mark(value: Any, name: str, where: str = "") -> bool:
    """A learning mark (weight, train, ...) as a bool. Raises `BadRow` for any other value."""
    if (is_good := yes_or_no(value)) is None:
        help = "" if where else unless(name)
        raise BadRow(
            f"{where}{name} must be 1 or true (learned), or 0 or false (not learned), found {shown(value)}{help}"
        )
    return is_good


def yes_or_no(value: Any) -> bool | None:
    """True for true and 1, False for false and 0, also as text in a CSV cell; None for anything else."""
    value = scalar(value)
    if isinstance(value, str):
        return True if value.strip().lower() in _YES else False if value.strip().lower() in _NO else None
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def marked(known: dict[str, tuple[str, Any]], where: str = "") -> bool | None:
    """Whether all learning marks of a row or message are true; None if it has none."""
    marks = [mark(value, name, where) for name, value in (known.get("weight", NOTHING),) if name]
    marks += [not mark(value, name, where) for name, value in (known.get("masked", NOTHING),) if name]
    return all(marks) if marks else None


class Unread:
    """Counts the keys of rows and of their messages that are not read."""

    def __init__(self, reads: dict[str, frozenset[str]]) -> None:
        """`reads` are the keys that each format reads (`align.text.formats.reads`)."""
        self._reads = reads
        self._rows: Counter[tuple[str, ...]] = Counter()
        self._turns: Counter[tuple[str, ...]] = Counter()

    def add(self, row: Values, name: str) -> None:
        """Counts the keys of a row of the named format. A key that begins with "_" is not counted."""
        self._rows[name, *row] += 1
        for value in row.values():
            if type(value) is list:
                for turn in value:
                    if type(turn) is dict and len(turn) > 2 and ("role" in turn or "from" in turn):
                        self._turns[*turn] += 1

    def lines(self) -> list[str]:
        """Log lines: the unread keys with the number of rows or messages that have them."""
        rows: Counter[str] = Counter()
        for (name, *names), count in self._rows.items():
            rows.update(dict.fromkeys(_unread(names, self._reads[name]), count))
        turns: Counter[str] = Counter()
        for keys, count in self._turns.items():
            turns.update(dict.fromkeys(_unread(keys, MESSAGE_NAMES), count))
        both = [(rows, "not read", "rows"), (turns, "not read in messages", "messages")]
        return [
            f"{what}: {', '.join(f'{name or NAMELESS} ({count:,} {of})' for name, count in counted.most_common())}"
            for counted, what, of in both
            if counted
        ]


def _unread(names: Iterable[str], known: frozenset[str]) -> list[str]:
    return [str(name) for name in names if name not in known and not str(name).startswith("_")]
