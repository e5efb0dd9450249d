"""The keys of a row and of a turn that mean something: what each does, or why it is refused.

A format's own columns are in `align.text.formats`. The keys here may stand beside them in a row of any format, or in
any turn. Each has all the names that data sets in the world have for it; none of them is passed over in silence. Any
other key is not read, and the log names it once with its count (`Unread`). docs/formats.md is made from these tables.

To leave one of them unread all the same, give it another name that begins with "_": data.columns={_context: context}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from align.text.values import BadRow, Values, is_missing, scalar, shown


class Key(NamedTuple):
    """One meaning and its names."""

    name: str  # ours, the first of `spellings`
    spellings: tuple[str, ...]
    does: str  # what it does; of a key that is refused: why, and what to do
    refused: bool = False


_MARKS = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight")

OF_ROWS = (
    Key(
        "system",
        ("system", "system_prompt", "system_message", "sys_prompt"),  # LLaMA-Factory, Orca; OpenOrca, distilabel
        "The system turn, before all others. A row whose turns begin with another system text is refused.",
    ),
    Key(
        "tools",
        ("tools", "functions"),  # OpenAI, TRL, LLaMA-Factory (JSON in a string); OpenAI's old form
        "The tools that may be called, a list or its JSON: given to the chat template.",
    ),
    Key(
        "context",
        ("context",),
        "A text that the question is about: the user's turn is the context, a blank line, the question. Only beside a "
        "prompt, question or instruction that is one text.",
    ),
    Key(
        "options",
        ("options", "choices"),
        'What to choose from, texts in a list or by letter: after the question, each on a line, as "A. iron". The '
        'answer stays as the row has it: "B" is learned as "B".',
    ),
    Key(
        "reasoning_content",
        ("reasoning_content", "reasoning", "thinking", "thoughts", "thought"),
        "The thoughts before the last answer (`data.thoughts`). Refused where a row has several answers.",
    ),
    Key(
        "label",
        ("label", "kto_tag"),  # TRL's unpaired preference, LLaMA-Factory
        "true or 1: the answer is a good one; false or 0: a bad one, and the row is left out of demonstrations and "
        "counted; `dpo.loss: kto` learns from both. Any other value is not read. Refused where the row has an order of "
        "its own.",
    ),
    Key(
        "weight",
        _MARKS,  # OpenAI; axolotl; verl; ms-swift; LLaMA-Factory
        "1 or true: the row is learned; 0 or false: it is left out and counted. Anything between is refused; a whole "
        "file has a weight in `data.path`.",
    ),
    Key("mask", ("mask",), "NeMo's name of the role that is not learned: User alone; any other is refused."),
    Key("annotator", ("annotator",), "Who ordered the answers (rankings)."),
    Key("source", ("source",), "The collection that a ranking comes from, for figures by source."),
    Key("margin", ("margin",), "How much better the best answer is than the worst, a number from 0 on (rankings)."),
    Key(
        "score_chosen",
        ("score_chosen", "chosen_score", "chosen_rating"),  # UltraFeedback, TRL; argilla
        "With `data.margins: scores` the margin is the difference to `score_rejected`.",
    ),
    Key("score_rejected", ("score_rejected", "rejected_score", "rejected_rating"), "See `score_chosen`."),
    Key(
        "model",
        ("model", "models", "temperature", "seed", "priority", "member_scores", "response_thoughts"),
        "Who wrote the answers, and more that `apps.label import` and `prioritise` read; of no meaning to the stages.",
    ),
    Key(
        "id",
        ("id", "_id", "idx", "index", "uid", "uuid", "row_id", "prompt_id", "question_id", "conversation_id"),
        "A name of the row: not read, and without a word in the log.",
    ),
    Key("history", ("history",), "earlier turns are read in the format alpaca alone; write them as turns", True),
    Key(
        "images",
        ("images", "image", "videos", "video", "audios", "audio"),
        "only text is learned; leave out the rows that have them",
        True,
    ),
    Key(
        "chat_template_kwargs",
        ("chat_template_kwargs", "template_kwargs"),
        "the chat template's variables are one for all rows: set data.template_options",
        True,
    ),
    Key("documents", ("documents",), "texts to look things up in are not given to templates: put them in a turn", True),
)

OF_MESSAGES = (
    Key(
        "role",
        ("role", "from"),
        "Who speaks: user (human, prompter), assistant (gpt, chatgpt, model, bot), system (developer), tool (function, "
        "observation, ipython, tool_response, tool_result); function_call or tool_call is an assistant's turn whose "
        "content is the call.",
    ),
    Key("content", ("content", "value"), "What is said: a text, or OpenAI's parts of the type text."),
    Key(
        "reasoning_content",
        ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thoughts", "thought"),
        "What the assistant thought before its content (`data.thoughts`). Refused in other turns.",
    ),
    Key(
        "tool_calls",
        ("tool_calls", "function_call"),  # OpenAI; its old form
        "The tools that the assistant calls; its content may then be empty. Learned as part of the answer.",
    ),
    Key("name", ("name", "tool_name"), "The tool whose result a tool's turn is."),
    Key("tool_call_id", ("tool_call_id",), "Which call a tool's turn answers."),
    Key(
        "weight",
        _MARKS,
        "1 or true: the answer is learned; 0 or false: it is context only. A row in which nothing is left to learn is "
        "left out and counted. Anything between is refused, and so is true in a turn that is not the assistant's.",
    ),
    Key("masked", ("masked",), "true: the answer is context only; false: it is learned."),
    Key("label", ("label",), "false: the answer is context only; true: it is learned. Other values are not read."),
    Key("id", ("id", "index", "uuid", "message_id"), "A name of the turn: not read, and without a word in the log."),
    Key("mask", ("mask",), "0 and 1 have both meanings in the world; name it weight, 0 for what is not learned", True),
    Key(
        "training_detail",
        ("training_detail", "train_detail"),
        "an answer is learned whole or not at all; set weight to 0 or 1",
        True,
    ),
    Key(
        "images",
        ("images", "image", "videos", "video", "audios", "audio"),
        "only text is learned; leave out the rows that have them",
        True,
    ),
    Key("tools", ("tools", "functions"), "tools belong to the row; move them to its column tools", True),
    Key("documents", ("documents",), "texts to look things up in are not given to templates: put them in a turn", True),
)

_SEVERAL = ("model", "id")  # whose names are of several things, and change nothing
IN_ROWS, IN_MESSAGES = (
    {spelling: key for key in table if key.name not in _SEVERAL for spelling in key.spellings}
    for table in (OF_ROWS, OF_MESSAGES)
)
_YES, _NO = ("1", "true"), ("0", "false")
_QUIET = ("annotator", "source", "margin", "score_chosen", "score_rejected", "model", "id")  # of no effect on turns


def named(*names: str, refused: bool = False) -> frozenset[str]:
    """All spellings of some keys of a row, or of those that are refused."""
    return frozenset(
        name for key in OF_ROWS if key.name in names or (refused and key.refused) for name in key.spellings
    )


ROW_NAMES = named(*(key.name for key in OF_ROWS))
MESSAGE_NAMES = frozenset(spelling for key in OF_MESSAGES for spelling in key.spellings)
ACTING = ROW_NAMES - named(*_QUIET)  # those that change a row of turns, or refuse it
OF_TEXTS = named(*_QUIET, refused=True)  # those that are read, or refused, beside a text
SCORES = named("score_chosen", "score_rejected")


def is_empty(value: Any) -> bool:
    """Whether a column says nothing: null, NaN, an empty text or list. Files give every row every column."""
    return is_missing(value) or (isinstance(value, str | list | dict) and not value)


def found(
    values: Values, table: dict[str, Key], own: frozenset[str] = frozenset(), where: str = ""
) -> dict[str, tuple[str, Any]]:
    """What a row or turn says by the keys of a table, `IN_ROWS` or `IN_MESSAGES`: by their name, spelling and value.

    `own` are columns of the format itself. Raises `BadRow` for a key that is refused, and for two spellings of one key
    with two values.
    """
    told: dict[str, tuple[str, Any]] = {}
    for name, value in values.items():
        key = table.get(name)
        if key is None or name in own or is_empty(value):
            continue
        if key.refused:
            raise BadRow(f"{where}{name} = {shown(value)}: {key.does}{'' if where else unless(name)}")
        before, other = told.setdefault(key.name, (name, value))
        if other != value:
            raise BadRow(f"{where}{before} and {name} differ, and both are the {key.name}; leave one of them")
    return told


NOTHING = ("", None)  # what `found` lacks
NAMELESS = "a column without a name"  # the index that pandas writes


def unless(name: str) -> str:
    """What to do about a key of a row that the row can do without."""
    return f"; to leave it unread, set data.columns={{_{name}: {name}}}"


def mark(value: Any, name: str, where: str = "") -> bool:
    """A learning mark. Raises `BadRow` for one that is neither yes nor no."""
    if (is_good := yes_or_no(value)) is None:
        help = "" if where else unless(name)
        raise BadRow(
            f"{where}{name} must be 1 or true (learned), or 0 or false (not learned), found {shown(value)}{help}"
        )
    return is_good


def yes_or_no(value: Any) -> bool | None:
    """True and 1, false and 0, also as the text of a CSV file's cell; None for anything else."""
    value = scalar(value)
    if isinstance(value, str):
        return True if value.strip().lower() in _YES else False if value.strip().lower() in _NO else None
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def marked(told: dict[str, tuple[str, Any]], where: str = "") -> bool | None:
    """Whether all learning marks of a row or turn say that it is learned; None where there is none."""
    marks = [mark(value, name, where) for name, value in (told.get("weight", NOTHING),) if name]
    marks += [not mark(value, name, where) for name, value in (told.get("masked", NOTHING),) if name]
    return all(marks) if marks else None


class Unread:
    """Counts the keys of rows, and of their turns, that nobody reads."""

    def __init__(self, reads: dict[str, frozenset[str]]) -> None:
        """`reads` are the keys that are read of each format (`align.text.formats.reads`)."""
        self._reads = reads
        self._rows: Counter[tuple[str, ...]] = Counter()
        self._turns: Counter[tuple[str, ...]] = Counter()

    def add(self, row: Values, name: str) -> None:
        """Takes in a row of the named format. A key that begins with "_" is not counted."""
        self._rows[name, *row] += 1
        for value in row.values():
            if type(value) is list:
                for turn in value:
                    if type(turn) is dict and len(turn) > 2 and ("role" in turn or "from" in turn):
                        self._turns[*turn] += 1

    def lines(self) -> list[str]:
        """For the log: the names with the number of rows, or turns, that have them."""
        rows: Counter[str] = Counter()
        for (name, *names), count in self._rows.items():
            rows.update(dict.fromkeys(_unread(names, self._reads[name]), count))
        turns: Counter[str] = Counter()
        for keys, count in self._turns.items():
            turns.update(dict.fromkeys(_unread(keys, MESSAGE_NAMES), count))
        told = [(rows, "not read", "rows"), (turns, "not read in turns", "turns")]
        return [
            f"{what}: {', '.join(f'{name or NAMELESS} ({count:,} {of})' for name, count in counted.most_common())}"
            for counted, what, of in told
            if counted
        ]


def _unread(names: Iterable[str], known: frozenset[str]) -> list[str]:
    return [str(name) for name in names if name not in known and not str(name).startswith("_")]
