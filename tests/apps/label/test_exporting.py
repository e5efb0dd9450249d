"""What people said, as files that others read."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from offices import Clock, new_id, person, ranking
from sqlalchemy import select

from align.config import build
from align.errors import UserError
from align.judges.build import build_judge
from align.judges.settings import Judge
from align.judges.verdicts import ModelAnswers
from align.judges.votes import VotesJudge
from align.sections import Data
from align.text.load import load
from align.text.records import Message
from apps.label.exporting import export, parse_time
from apps.label.importing import import_files
from apps.label.rankings import Filters, iso, preference_rows
from apps.store import projects, reviews, tasks, work
from apps.store.reading import AnnotatedTask, Answer, TaskAnnotation, Version
from apps.store.tables import Task

ROWS = [
    {"prompt": f"q{n}", "responses": [f"good {n}", f"fair {n}", f"bad {n}"], "model": "m", "source": "set"}
    for n in range(3)
]


@pytest.fixture
def told(make: Any, clock: Clock) -> Any:
    """Three tasks, each for two people; Ann and Bob agree on the first, not on the second, and Bob skips the third."""
    bench = make(overlap=2, queue={"random_share": 0})
    import_files(bench.project, [bench.file("a.jsonl", [row | {"priority": -n} for n, row in enumerate(ROWS)])])
    for order in (("good", "fair", "bad"), ("good", "fair=bad"), ("good=fair=bad",)):
        bench.rank("Ann", *order)
        clock.now += 60
    for order in (("good", "fair", "bad"), ("bad", "fair", "good"), ("skip",)):
        bench.rank("Bob", *order)
        clock.now += 60
    return bench


def out(bench: Any, *formats: str, **filters: Any) -> dict[str, list[Any]]:
    """What an export writes, by format."""
    formats = formats or ("rankings", "preferences", "audit")
    files = export(bench.project, bench.folder / "out", formats, Filters(**filters), overwrite=True)
    assert [file.path.stem for file in files] == list(formats)
    found = {file.path.stem: [json.loads(line) for line in file.path.open(encoding="utf-8")] for file in files}
    assert [file.n_rows for file in files] == [len(rows) for rows in found.values()]
    return found


def who(rows: list[Any]) -> list[tuple[str, str]]:
    return [(row["prompt"], row["annotator"]) for row in rows]


def test_a_judge_reads_what_people_said(told: Any) -> None:
    """Ann and Bob agree that good is better than bad in q0, and contradict each other in q1; nobody decided q2."""
    out(told, "rankings")
    people = build_judge("people", Judge(votes=str(told.folder / "out")))
    assert isinstance(people, VotesJudge)
    prompts = [[Message("user", f"q{n}")] for n in range(3)]
    texts = [ModelAnswers([f"{word} {n}" for n in range(3)]) for word in ("good", "bad")]
    assert [verdict.outcome for verdict in people.compare(prompts, *texts)] == [1, 0.5, 0.5]
    assert [verdict.outcome for verdict in people.compare(prompts, texts[1], texts[0])] == [0, 0.5, 0.5]
    (ballot, _) = people.ballots[tuple(prompts[0])]
    assert ballot.models == ["m"] * 3


def test_rankings_by_hand(told: Any) -> None:
    rows = out(told, "rankings")["rankings"]
    assert [(row["prompt"], row["annotator"], row["ranks"]) for row in rows] == [
        ("q0", "Ann", [1, 2, 3]),
        ("q0", "Bob", [1, 2, 3]),
        ("q1", "Ann", [1, 2, 2]),
        ("q1", "Bob", [3, 2, 1]),
        ("q2", "Ann", [1, 1, 1]),
    ]
    first = rows[0]
    assert first["responses"] == ["good 0", "fair 0", "bad 0"]  # one order for all, whatever each person saw
    assert (first["source"], first["models"], first["ratings"]) == ("set", ["m", "m", "m"], [4, 4, 4])
    assert (first["seconds"], first["extra"], first["all_bad"], first["pool"]) == (20, False, False, 3)


def test_the_ranks_are_of_the_answers_and_not_of_the_slots(told: Any) -> None:
    """What a person put first is rank 1 in the file, wherever it stood on their page."""
    for revision in out(told, "audit")["audit"]:
        if revision["record"] == "revision" and revision["status"] == "submitted":
            break
    task = next(row for row in out(told, "audit")["audit"] if row.get("task") == revision["task"])
    said = {
        task["answers"][place]["text"]: revision["payload"]["ranks"][str(slot)]
        for slot, place in enumerate(revision["places"])
    }
    row = next(row for row in out(told, "rankings")["rankings"] if row["annotation"] == revision["annotation"])
    assert dict(zip(row["responses"], row["ranks"], strict=True)) == said


def test_align_rm_reads_the_rankings_as_they_are(told: Any) -> None:
    out(told, "rankings")
    data = build(Data, {"path": str(told.folder / "out/rankings.jsonl"), "max_tokens": 10, "validation": 0}, "data")
    loaded = load(data, "rankings", 1)
    assert [(one.ranks, one.annotator, one.origin) for one in loaded.train][:3] == [
        ((1, 2, 3), "Ann", "set"),
        ((1, 2, 3), "Bob", "set"),
        ((1, 2, 2), "Ann", "set"),
    ]
    assert loaded.report.sources[0].format == "ranking"


def first_task(told: Any) -> int:
    with told.project.store.read() as session:
        return int(session.scalars(select(Task.id).order_by(Task.place)).first() or 0)


def test_a_closed_task_is_left_out_unless_it_is_asked_for(told: Any, clock: Clock) -> None:
    everything, task = who(out(told, "rankings")["rankings"]), first_task(told)
    clock.now += 60
    tasks.close_task(told.project.store, task)
    found = out(told)
    assert who(found["rankings"]) == everything[2:]
    assert {row["prompt"][0]["content"] for row in found["preferences"]} == {"q1"}
    assert len([row for row in found["audit"] if row["record"] == "revision"]) == 6
    assert who(out(told, "rankings", status="closed")["rankings"]) == everything[:2]
    assert who(out(told, "rankings", until=clock.now - 1)["rankings"]) == everything
    clock.now += 60
    tasks.reopen_task(told.project.store, task)
    assert who(out(told, "rankings")["rankings"]) == everything
    assert who(out(told, "rankings", until=clock.now - 1)["rankings"]) == everything[2:]


def test_a_reviewers_ranking_stands_for_a_task_alone(told: Any, clock: Clock) -> None:
    lea = person(told.project.store, "Lea", "reviewer")
    store, project = told.project.store, told.project.id
    before = who(out(told, "rankings")["rankings"])
    clock.now += 60
    task = first_task(told)
    given = reviews.adjudicate(store, project, task, lea.id)
    ranks = [{"good": 3, "fair": 2, "bad": 1}[text.split()[0]] for text in given.answers]
    id = work.submit(store, lea.id, new_id(), task, given.lease, ranking(*ranks)).id
    found = out(told)
    assert who(found["rankings"]) == [("q0", "Lea"), *before[2:]]
    (row, *others) = found["rankings"]
    assert (row["ranks"], row["final"], row["extra"], row["annotation"]) == ([3, 2, 1], True, False, id)
    assert not any(other["final"] for other in others)
    assert [row["chosen"][0]["content"] for row in found["preferences"][:3]] == ["fair 0", "bad 0", "bad 0"]
    said = [row["annotator"] for row in found["audit"] if row["record"] == "revision"]
    assert sorted(said) == ["Ann"] * 3 + ["Bob"] * 3 + ["Lea"]
    assert who(out(told, "rankings", annotators=("Ann",))["rankings"]) == [("q1", "Ann"), ("q2", "Ann")]
    assert who(out(told, "rankings", until=clock.now - 1)["rankings"]) == before
    clock.now += 60
    work.undo(store, project, lea.id)
    assert who(out(told, "rankings")["rankings"]) == before
    assert who(out(told, "rankings", until=clock.now - 1)["rankings"]) == [("q0", "Lea"), *before[2:]]
    data = build(Data, {"path": str(told.folder / "out/rankings.jsonl"), "max_tokens": 10, "validation": 0}, "data")
    assert load(data, "rankings", 1).train[0].annotator == "Lea"


def test_preferences_are_the_pairs_that_rankings_decide(told: Any) -> None:
    rows = out(told, "preferences")["preferences"]
    assert len(rows) == 3 + 3 + 2 + 3
    assert rows[0]["prompt"] == [{"role": "user", "content": "q0"}]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "good 0"}]
    assert rows[0]["rejected"] == [{"role": "assistant", "content": "fair 0"}]
    data = build(Data, {"path": str(told.folder / "out/preferences.jsonl"), "max_tokens": 10, "validation": 0}, "data")
    assert load(data, "rankings", 1).report.sources[0].format == "preference"


def test_trl_takes_the_preferences_for_its_conversational_format(tmp_path: Path) -> None:
    from trl.data_utils import is_conversational

    answers = tuple(Answer(text, [], None) for text in ("good", "bad"))
    said = Version(1, "submitted", False, ranking(1, 2), 20, 1, 0)
    one = TaskAnnotation("id", 1, "Ann", [0, 1], 0, (said,))
    task = AnnotatedTask(
        1, 2, "h", "rank", [{"role": "user", "content": "q"}], "set", answers, None, 0, 1, 1, 1, 1, False, (one,)
    )
    (row,) = preference_rows(task, one)
    assert is_conversational(row)


def test_the_audit_has_all_revisions_and_the_whole_chain(told: Any, clock: Clock) -> None:
    id = work.history(told.project.store, told.project.id, told.people["Ann"])[0].id
    work.revise(told.project.store, told.people["Ann"], id, ranking(1, 2, 3))
    work.undo(told.project.store, told.project.id, told.people["Ann"], id)
    rows = out(told, "audit")["audit"]
    mine = [row for row in rows if row["record"] == "revision" and row["annotation"] == id]
    assert [(row["n"], row["status"]) for row in mine] == [(1, "submitted"), (2, "submitted"), (3, "undone")]
    assert len([row for row in rows if row["record"] == "task"]) == 3
    chain = [row for row in rows if row["record"] == "event"]
    assert [row["seq"] for row in chain] == list(range(1, len(chain) + 1))
    assert all(row["prev_hash"] == before["hash"] for before, row in pairwise(chain))
    assert "argon2" not in json.dumps(rows)


def test_the_audit_has_every_version_of_the_guidelines(told: Any, clock: Clock) -> None:
    projects.edit_guidelines(told.project.store, told.project.id, "Be kind.", 1, told.people["Ann"])
    rows = [row for row in out(told, "audit")["audit"] if row["record"] == "guidelines"]
    assert [(row["version"], row["text"], row["person"]) for row in rows] == [(1, "", None), (2, "Be kind.", "Ann")]
    rows = [row for row in out(told, "audit", until=clock.now - 1)["audit"] if row["record"] == "guidelines"]
    assert [row["version"] for row in rows] == [1]


def test_the_same_state_gives_the_same_bytes(told: Any, tmp_path: Path) -> None:
    sums = [[file.sha256 for file in export(told.project, tmp_path / name)] for name in ("one", "two")]
    assert sums[0] == sums[1]
    assert (tmp_path / "one/audit.jsonl").read_bytes() == (tmp_path / "two/audit.jsonl").read_bytes()


def test_until_gives_the_same_bytes_whatever_is_said_later(told: Any, clock: Clock, tmp_path: Path) -> None:
    now = Filters(until=clock.now)
    formats = ("rankings", "preferences")
    before = [file.sha256 for file in export(told.project, tmp_path / "one", formats, now)]
    clock.now += 1
    ann = told.people["Ann"]
    latest = work.history(told.project.store, told.project.id, ann)
    work.revise(told.project.store, ann, latest[1].id, ranking(3, 2, 1))
    work.undo(told.project.store, told.project.id, ann, latest[2].id)
    assert [file.sha256 for file in export(told.project, tmp_path / "two", formats, now)] == before
    assert [file.sha256 for file in export(told.project, tmp_path / "three", formats)] != before


def test_filters_by_time(told: Any, clock: Clock) -> None:
    start = clock.now - 360
    assert who(out(told, "rankings", since=start + 100)["rankings"]) == [("q0", "Bob"), ("q1", "Bob"), ("q2", "Ann")]
    assert who(out(told, "rankings", until=start + 60)["rankings"]) == [("q0", "Ann"), ("q1", "Ann")]


def test_filters_by_annotator(told: Any) -> None:
    found = out(told, annotators=("bob",))
    assert who(found["rankings"]) == [("q0", "Bob"), ("q1", "Bob")]
    assert {row["annotator"] for row in found["preferences"]} == {"Bob"}
    assert {row["annotator"] for row in found["audit"] if row["record"] == "revision"} == {"Bob"}
    assert {row["person"] for row in found["audit"] if row["record"] == "event"} == {"Bob"}


def test_filters_by_status(told: Any, clock: Clock) -> None:
    assert {row["prompt"] for row in out(told, "rankings", status="done")["rankings"]} == {"q0", "q1"}
    assert {row["prompt"] for row in out(told, "rankings", status="open")["rankings"]} == {"q2"}
    assert out(told, "rankings", status="closed")["rankings"] == []
    assert out(told, "rankings", status="done", until=clock.now - 200)["rankings"] == []  # as it was then


def test_filters_by_agreement(told: Any) -> None:
    """On the first task both agree on all pairs; on the second on none of the two that both decide."""
    assert {row["prompt"] for row in out(told, "rankings", min_agreement=0.5)["rankings"]} == {"q0"}
    assert {row["prompt"] for row in out(told, "rankings", min_agreement=0.0)["rankings"]} == {"q0", "q1"}


def test_all_bad_without_ranks_is_no_ranking(make: Any) -> None:
    bench = make()
    import_files(bench.project, [bench.file("a.jsonl", ROWS[:1])])
    id = bench.rank("Ann", "good", "fair", "bad")
    work.revise(bench.project.store, bench.people["Ann"], id, ranking(1, 2, 3) | {"ranks": None, "all_bad": True})
    found = out(bench)
    assert (found["rankings"], found["preferences"]) == ([], [])
    assert [row["payload"]["all_bad"] for row in found["audit"] if row["record"] == "revision"] == [False, True]


def test_gold_and_practice_are_in_the_audit_alone(make: Any) -> None:
    bench = make(practice={"required": 1})
    import_files(bench.project, [bench.file("p.jsonl", [ROWS[0] | {"ranks": [1, 2, 3]}])], "practice")
    bench.rank("Ann", "good", "fair", "bad")
    found = out(bench)
    assert found["rankings"] == []
    assert [row["kind"] for row in found["audit"] if row["record"] == "task"] == ["practice"]


def test_files_that_are_there_are_not_replaced_unasked(told: Any, tmp_path: Path) -> None:
    export(told.project, tmp_path / "x", ("rankings",))
    with pytest.raises(UserError, match=r"rankings\.jsonl exists"):
        export(told.project, tmp_path / "x")
    assert not (tmp_path / "x/audit.jsonl").exists()


def test_an_export_that_fails_leaves_nothing_half_written(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("apps.label.exporting._event_rows", fails)
    with pytest.raises(KeyboardInterrupt):
        export(told.project, tmp_path / "x")
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"status": "ready"}, "open, done, closed"),
        ({"min_agreement": 1.5}, "from 0 to 1"),
        ({"annotators": ("Nobody",)}, "nobody has this name"),
    ],
)
def test_filters_that_cannot_be_are_told(bench: Any, filters: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        out(bench, **filters)


def test_an_unknown_format_is_told(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rankings, preferences, audit"):
        export(bench.project, tmp_path, ("csv",))


def test_times() -> None:
    assert parse_time("1970-01-02", "--since") == 86400
    assert parse_time("1970-01-01T01:00+01:00", "--since") == 0
    assert iso(86400.5) == "1970-01-02T00:00:00.500Z"
    with pytest.raises(UserError, match="--until yesterday"):
        parse_time("yesterday", "--until")


def test_thoughts_and_tools_of_a_prompt_come_back_as_they_were_imported(make: Any) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo", "at": "noon"}}}]
    turns = (
        Message("tools", json.dumps(tools)),
        Message("user", "warm ?"),
        Message("assistant", "", "I must look.", json.dumps(tools), learned=False),
        Message("tool", "-3", name="weather", call_id="c1"),
    )
    bench = make()
    row = {"prompt": [turn.as_dict() for turn in turns], "responses": ["good", "bad"]}
    import_files(bench.project, [bench.file("a.jsonl", [row])])
    bench.rank("Ann", "good", "bad")
    rows = out(bench, "rankings", "preferences")
    assert rows["rankings"][0]["prompt"] == row["prompt"]
    assert rows["preferences"][0]["tools"] == tools
    for name in ("rankings", "preferences"):
        data = build(Data, {"path": str(bench.folder / f"out/{name}.jsonl"), "validation": 0}, "data")
        assert load(data, "rankings", 1).train[0].prompt == turns
