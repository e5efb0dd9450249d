"""docs/formats.md is what the tables and the code say. ALIGN_WRITE_FORMATS=1 writes it anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest

from align.sections import Data
from align.text.formats import LAYOUTS, Kind, make, recognise
from align.text.keys import OF_MESSAGES, OF_ROWS, Key
from align.text.messages import AS_THEY_ARE, Handling
from align.text.values import BadRow, LeftOut

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
HEAD = """\
# Formats

This page is generated from the tables in `align/text/formats.py` and `align/text/keys.py`, and a test checks it
against the code (`tests/text/test_formats_page.py`). A format is recognised by the columns of the first row, in the
order of this page; `data.format` names one instead. `data.columns` maps our column names to those of your file, as
`{prompt: question}`. Sources are .json, .jsonl, .csv, .tsv and .txt files (each also .gz), .parquet files, folders of
these, and data sets of the hub.
"""
ASK, SAID, OTHER = "Name a colour.", "Red", "Blue"
USER = {"role": "user", "content": ASK}
GOOD, BAD = ({"role": "assistant", "content": text} for text in (SAID, OTHER))
SHARED = [{"from": "human", "value": ASK}]
REPLIES = [{"text": text, "role": "assistant", "rank": rank, "replies": []} for rank, text in enumerate((SAID, OTHER))]
EXAMPLES: dict[str, dict[str, Any]] = {
    "ranking": {"prompt": ASK, "responses": [OTHER, SAID], "ranks": [2, 1]},
    "arena": {"conversation_a": [USER, GOOD], "conversation_b": [USER, BAD], "winner": "model_a"},
    "arena_pairs": {"prompt": ASK, "response_a": SAID, "response_b": OTHER, "winner": "model_a"},
    "shp": {"history": ASK, "human_ref_A": SAID, "human_ref_B": OTHER, "labels": 1},
    "helpsteer3": {"context": [USER], "response1": SAID, "response2": OTHER, "overall_preference": -2},
    "helpsteer2": {"prompt": ASK, "response_1": SAID, "response_2": OTHER, "preference_strength": -1},
    "oasst": {
        "message_tree_id": "1",
        "tree_state": "ready_for_export",
        "prompt": {"text": ASK, "role": "prompter", "replies": REPLIES},
    },
    "sharegpt_preference": {
        "conversations": SHARED,
        "chosen": {"from": "gpt", "value": SAID},
        "rejected": {"from": "gpt", "value": OTHER},
    },
    "hh": {name: f"\n\nHuman: {ASK}\n\nAssistant: {text}" for name, text in (("chosen", SAID), ("rejected", OTHER))},
    "preference": {"prompt": ASK, "chosen": SAID, "rejected": OTHER},
    "messages": {"messages": [USER, GOOD]},
    "sharegpt": {"conversations": [*SHARED, {"from": "gpt", "value": SAID}]},
    "alpaca": {"instruction": ASK, "input": "", "output": SAID},
    "dolly": {"instruction": ASK, "context": "", "response": SAID},
    "prompt_completion": {"prompt": ASK, "completion": SAID},
    "question_answer": {"question": ASK, "answer": SAID},
    "helpsteer": {"prompt": ASK, "response": SAID, "helpfulness": 4},
    "prompt": {"prompt": ASK},
    "text": {"text": "Red is a colour."},
}
SAMPLES: dict[str, Any] = {
    "system": "Be brief.",
    "tools": [{"name": "paint"}],
    "context": "It is sunset.",
    "options": [SAID, OTHER],
    "reasoning_content": "Warm.",
    "label": False,
    "weight": 0,
    "mask": "Assistant",
    "annotator": "ann",
    "source": "book",
    "margin": 5,
    "score_chosen": 10,
    "history": [["Hi", "Hello"]],
    "images": ["a.png"],
    "chat_template_kwargs": {"enable_thinking": False},
    "documents": ["a"],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_examples_are_read(name: str) -> None:
    kind: Kind = "prompts" if "prompts" in LAYOUTS[name].kinds else "documents"
    assert recognise(EXAMPLES[name], kind, "here") == name
    for kind in LAYOUTS[name].kinds:
        record = _made(name, kind, EXAMPLES[name])
        if kind in ("rankings", "conversations"):
            best = record.responses[record.ranks.index(1)] if kind == "rankings" else record.messages[-1].content
            assert best == SAID


def test_the_page_says_what_the_code_does() -> None:
    page = "\n".join([HEAD, *_kinds(), *_formats(), *_rows(), *_turns(), *_recipe()])
    if os.environ.get("ALIGN_WRITE_FORMATS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "write the page anew with ALIGN_WRITE_FORMATS=1"


def _made(name: str, kind: Kind, row: dict[str, Any], how: Handling = AS_THEY_ARE) -> Any:
    parts = LAYOUTS[name].parts
    return make(next(iter(parts(row, kind))) if parts else row, name, kind, "here", how)[0]


def _table(*rows: list[str]) -> list[str]:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:], ""]


def _kinds() -> list[str]:
    """Which records can be made of which format."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    rows = [[name, *("yes" if kind in layout.kinds else "" for kind in kinds)] for name, layout in LAYOUTS.items()]
    told = "A ranking becomes a conversation or document with its best answer. `align score` reads *answers*."
    return ["## What each format can be read as", "", *_table(["format", *kinds], *rows), told, ""]


def _formats() -> list[str]:
    """Columns and meaning of each format, and a row of it."""
    told = ["## The formats", ""]
    for name, layout in LAYOUTS.items():
        meaning = " ".join((layout.parse.__doc__ or "").split())
        optional = f" Also read: {', '.join(layout.optional)}." if layout.optional else ""
        example = json.dumps(EXAMPLES[name], ensure_ascii=False)
        told += [f"### {name}", "", f"{meaning}{optional}", "", "```json", example, "```", ""]
    return told


def _rows() -> list[str]:
    """The keys of rows, and what each does in each format."""
    told = [
        "## Keys beside the columns",
        "",
        "A row of any format may have these keys. An empty value (null, an empty text or list) counts as absent. All",
        "other keys are ignored; the log names each once, with its count. To ignore one of these too, give it a name",
        "that begins with an underscore: `data.columns={_context: context}`.",
        "",
        *_table(["key", "also named", "what it does"], *map(_told, OF_ROWS)),
        "What happens in each format: *read* (the key is used), *left out* (the row is, and counted), *refused* (an",
        "error); blank: the key has no effect.",
        "",
    ]
    return [*told, *_table(["format", *SAMPLES], *([name, *(_done(name, key) for key in SAMPLES)] for name in LAYOUTS))]


def _done(name: str, key: str) -> str:
    """What becomes of the example of a format when a key is added to it."""
    if key in LAYOUTS[name].columns or key in LAYOUTS[name].optional:
        return "its own"
    added = {key: SAMPLES[key]} | ({"score_rejected": 1} if key == "score_chosen" else {})
    how = Handling(thoughts="inline", margins="scores" if key == "score_chosen" else "column")
    found = set()
    for kind in LAYOUTS[name].kinds:
        try:
            changed = _made(name, kind, EXAMPLES[name] | added, how) != _made(name, kind, EXAMPLES[name])
            found.add("read" if changed else "")
        except LeftOut:
            found.add("left out")
        except BadRow:
            found.add("refused")
    return next((word for word in ("left out", "read", "refused") if word in found), "")


def _told(key: Key) -> list[str]:
    others = ", ".join(key.spellings[1:])
    return [key.name, others, f"Refused: {key.does}." if key.refused else key.does]


def _turns() -> list[str]:
    head = ["## Keys of a turn", "", "For messages, conversations, and prompts and answers that are lists of turns."]
    return [*head, "", *_table(["key", "also named", "what it does"], *map(_told, OF_MESSAGES))]


def _recipe() -> list[str]:
    """The recipe's keys that decide how rows are read."""
    names = ["format", "columns", "system", "same_role", "first_assistant", "thoughts", "margins", "template"]
    names += ["template_options", "on_error"]
    rows = [[f"data.{name}", " ".join((Data.model_fields[name].description or "").split())] for name in names]
    return ["## Keys of the recipe", "", *_table(["key", "what it does"], *rows)]
