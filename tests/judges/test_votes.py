"""People's rankings as verdicts on two models: found by the answers' texts or the models' names, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import write_rows

from align.errors import UserError
from align.judges.verdicts import ModelAnswers, Verdict
from align.judges.votes import NOBODY, VotesJudge
from align.text.records import Message

NAMES = {"sft": ["sft", "runs/sft/model"], "ppo": ["ppo", "runs/ppo/model"]}


def row(prompt: Any, responses: list[str], ranks: list[int], **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "responses": responses, "ranks": ranks, "annotator": "Ann"} | more


def judge(folder: Path, rows: list[dict[str, Any]]) -> VotesJudge:
    write_rows(folder / "rankings.jsonl", rows)
    return VotesJudge("judges.people", str(folder))


def asked(*texts: str) -> list[list[Message]]:
    return [[Message("user", text)] for text in texts]


def said(name: str, *texts: str) -> ModelAnswers:
    return ModelAnswers(texts, NAMES[name])


def test_votes_on_the_very_answers(tmp_path):
    people = judge(tmp_path, [row("a", ["x", "y"], [1, 2]), row("b", ["x", "y"], [2, 1]), row("c", ["x", "y"], [1, 1])])
    found = people.compare(asked("a", "b", "c", "d"), said("ppo", *["x "] * 4), said("sft", *["y"] * 4))
    assert found == [Verdict(1.0), Verdict(0.0), Verdict(0.5), Verdict(None, NOBODY)]
    assert people.compare(asked("a"), said("ppo", "x"), said("sft", "z")) == [Verdict(None, NOBODY)]


def test_the_majority_decides(tmp_path):
    rows = [row("a", ["x", "y"], ranks) for ranks in ([1, 2], [2, 1], [1, 2])]
    rows += [row("b", ["x", "y"], ranks) for ranks in ([1, 2], [2, 1], [1, 1])]
    found = judge(tmp_path, rows).compare(asked("a", "b"), said("ppo", "x", "x"), said("sft", "y", "y"))
    assert found == [Verdict(1.0), Verdict(0.5)]


def test_votes_on_other_answers_of_the_models(tmp_path):
    models = ["runs/sft/model", "runs/ppo/model", "runs/ppo/model", "other"]
    people = judge(tmp_path, [row("a", ["s", "p1", "p2", "o"], [2, 1, 3, 1], models=models)])
    assert people.compare(asked("a"), said("ppo", "new"), said("sft", "newer")) == [
        Verdict(0.5)
    ]  # one above, one below
    assert people.compare(asked("a"), said("ppo", "p1"), said("sft", "newer")) == [Verdict(1.0)]  # its very answer
    assert people.compare(asked("a"), said("sft", "s"), said("sft", "s")) == [Verdict(0.5)]


def test_a_conversation_is_found_by_all_its_turns(tmp_path):
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    people = judge(tmp_path, [row([turn._asdict() for turn in turns], ["x", "y"], [1, 2])])
    assert people.compare([turns, turns[2:]], said("ppo", "x", "x"), said("sft", "y", "y"))[0].outcome == 1
    assert people.compare([turns[2:]], said("ppo", "x"), said("sft", "y"))[0].outcome is None


def test_the_fingerprint_is_the_files(tmp_path):
    first = judge(tmp_path, [row("a", ["x", "y"], [1, 2])]).fingerprint
    assert first == VotesJudge("judges.people", str(tmp_path / "rankings.jsonl")).fingerprint
    assert first != judge(tmp_path, [row("a", ["x", "y"], [2, 1])]).fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "rankings.jsonl:1: not valid JSON"),
        (json.dumps({"prompt": "a", "responses": ["x", "y"]}), "rankings.jsonl:1: no column 'ranks'"),
        (json.dumps(row("a", ["x", "y"], [1])), "2 responses need as many ranks"),
        (json.dumps(row("a", ["x", "y"], [1, 2], models=["m"])), "2 responses need as many models"),
    ],
)
def test_a_file_that_is_no_export_is_told(tmp_path, text, message):
    (tmp_path / "rankings.jsonl").write_text(text + "\n")
    with pytest.raises(UserError, match=f"judges.people.votes: .*{message}.*; fix this row"):
        VotesJudge("judges.people", str(tmp_path))


def test_a_folder_without_an_export_is_told(tmp_path):
    with pytest.raises(UserError, match=r"judges.people.votes = .*: there is no .*rankings.jsonl; write it with"):
        VotesJudge("judges.people", str(tmp_path))
