"""Files of answers become tasks."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from align.errors import UserError
from align.text.records import Message
from apps.label.importing import import_files, lines
from apps.store.adding import Added
from apps.store.reading import AnnotatedTask, annotated_tasks
from apps.store.tables import Prompt, Task


def found(bench: Any, *kinds: str) -> list[AnnotatedTask]:
    with bench.project.store.read() as session:
        return list(annotated_tasks(session, bench.project.id, kinds or ("rank",), with_unannotated=True))


def run(bench: Any, *files: str, **how: Any) -> Added:
    return import_files(bench.project, list(files), **how).added


def refused(bench: Any, *rows: Any, **how: Any) -> str:
    with pytest.raises(UserError) as error:
        run(bench, bench.file("bad.jsonl", list(rows)), **how)
    assert found(bench, "rank", "gold", "practice") == []
    return str(error.value)


def generated(name: str, *texts: str, model: str = "m", **more: Any) -> dict[str, Any]:
    """A row as `align.generate` writes it."""
    return {"prompt": name, "responses": list(texts), "model": model, "temperature": 1.0, "seed": 1, **more}


def test_files_of_several_models_become_one_task_for_each_prompt(bench: Any) -> None:
    one = bench.file("one.jsonl", [generated("q1", "a", "b", model="one"), generated("q2", "c", "d", model="one")])
    chat = [{"role": "user", "content": "q1"}]
    two = bench.file(
        "two.jsonl", [generated("q2", "e", model="two"), generated("q1", "b", "f", model="two") | {"prompt": chat}]
    )
    assert run(bench, one, two) == Added(prompts=2, answers=6, tasks=2)
    tasks = {task.messages[0]["content"]: task for task in found(bench)}
    assert [answer.text for answer in tasks["q1"].answers] == ["a", "b", "f"]
    assert [answer.text for answer in tasks["q2"].answers] == ["c", "d", "e"]
    made = {"model": "one", "temperature": 1.0, "seed": 1}
    assert tasks["q1"].answers[1].makers == [made, made | {"model": "two"}]
    assert tasks["q1"].source == "one.jsonl"


def test_conversations_are_prompts_too(bench: Any) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Who are you?"},
    ]
    run(bench, bench.file("a.jsonl", [generated("", "a", "b") | {"prompt": turns}]))
    assert found(bench)[0].messages == turns


@pytest.mark.parametrize("again", [("a.jsonl",), ("b.jsonl",), ("b.jsonl", "a.jsonl"), ("a.jsonl", "b.jsonl")])
def test_an_import_repeated_in_any_part_changes_nothing(bench: Any, again: tuple[str, ...]) -> None:
    bench.file("a.jsonl", [generated(f"q{n}", f"a{n}", f"b{n}") for n in range(5)])
    bench.file("b.jsonl", [generated(f"q{n}", f"c{n}", f"a{n}") for n in range(3, 9)])
    assert run(bench, "a.jsonl", "b.jsonl") == Added(prompts=9, answers=20, tasks=9)
    before = found(bench)
    assert run(bench, *again) == Added()
    assert found(bench) == before


def test_a_dry_run_says_what_an_import_does(bench: Any) -> None:
    file = bench.file("a.jsonl", [generated(f"q{n}", f"a{n}", f"b{n}") for n in range(5)] + [generated("alone", "a")])
    dry = import_files(bench.project, [file], dry_run=True)
    assert found(bench) == []
    assert dry == import_files(bench.project, [file])
    assert dry.added == Added(prompts=6, answers=11, tasks=5, waiting=1)
    assert lines(dry, True) == [
        "6 rows read",
        "would add 5 tasks, 11 new answers and 6 new prompts",
        "  1 answers are in no task yet: their prompt needs a second answer",
    ]


def test_every_bad_row_is_told_with_its_line_and_nothing_is_imported(bench: Any) -> None:
    said = refused(
        bench,
        generated("q1", "a", "b"),
        "{broken",
        {"prompt": "q2"},
        generated("q3", "a", "b", model="m", priority="high"),
        generated("", "a", "b"),
        generated("q4") | {"responses": "a"},
        generated("q5", "a\0b", "c"),
        generated("q6", "x" * 100_001, "c"),
        generated("q7", "a", "b") | {"models": ["one"]},
        '{"prompt": "q8", "responses": ["\\ud800", "b"]}',
        generated("q9", "a", "b", seed=10**400),
        generated("q10", "a", "b", temperature=float("inf")),
        '{"prompt": "q11", "responses": ["a", "b"], "source": "s\\ud83d"}',
        '{"prompt": "q12", "responses": ["a", "b"], "model": "m\\ud83d"}',
        generated("q13", "a", "b", priority=10**400),
        generated("q14", "a", "b", source="s\0"),
    )
    assert said.startswith("15 rows cannot be used; nothing was imported")
    for number, reason in {
        2: "not valid JSON",
        3: "no answers in the columns prompt; expected prompt and responses",
        4: 'priority must be a number within 64 bits, found "high"',
        5: "prompt is empty",
        6: 'responses must be a list of texts, found "a"',
        7: "the character NUL",
        8: "100,001 characters; at most 100,000",
        9: '2 responses need as many models, found ["one"]',
        10: "not valid Unicode",
        11: "seed must be a number within 64 bits, found 1000",
        12: "temperature must be a number within 64 bits, found Infinity",
        13: "is not valid Unicode",
        14: "is not valid Unicode",
        15: "priority must be a number within 64 bits, found 1000",
        16: "source contains the character NUL",
    }.items():
        line = next(line for line in said.splitlines() if f"bad.jsonl:{number}: " in line)
        assert reason in line


def test_many_bad_rows_are_counted(bench: Any) -> None:
    said = refused(bench, *["nonsense"] * 50)
    assert "50 rows cannot be used" in said
    assert said.splitlines()[-1] == "  and 30 more"
    assert len(said.splitlines()) == 22


def test_a_file_that_is_not_there_is_told(bench: Any) -> None:
    with pytest.raises(UserError, match="no such file"):
        run(bench, "none.jsonl")
    with pytest.raises(UserError, match="no rows"):
        run(bench, bench.file("empty.jsonl", [""]))


def test_other_formats_with_answers_do_as_well(bench: Any) -> None:
    pairs = bench.file("pairs.jsonl", [{"prompt": "q1", "chosen": "good", "rejected": "bad"}])
    ranked = bench.file("ranked.jsonl", [{"prompt": "q2", "responses": ["a", "b"], "ranks": [2, 1]}])
    (bench.folder / "t.csv").write_text('prompt,responses\nq3,"[""x"", ""y""]"\n', encoding="utf-8")
    assert run(bench, pairs, ranked, "t.csv") == Added(prompts=3, answers=6, tasks=3)


def test_trees_battles_and_system_columns_are_read_and_other_keys_named(bench: Any) -> None:
    replies = [{"text": text, "role": "assistant", "rank": rank} for rank, text in enumerate("ab")]
    followed = replies[0] | {"replies": [{"text": "q2", "role": "prompter", "replies": replies}]}
    tree = {"text": "q1", "role": "prompter", "replies": [followed, replies[1]]}
    rows = [
        {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": tree},
        {"prompt": "q3", "response_a": "a", "response_b": "b", "winner": "tie", "system": "Be brief.", "lang": "en"},
    ]
    done = import_files(bench.project, [bench.file("a.jsonl", rows)])
    assert [[turn["content"] for turn in task.messages] for task in found(bench)] == [
        ["q1"],
        ["q1", "a", "q2"],
        ["Be brief.", "q3"],
    ]
    assert lines(done, False)[:2] == ["2 rows read", "  not read: lang (1 rows)"]


def test_keys_that_are_refused_are_named(bench: Any) -> None:
    assert 'images = ["a.png"]: only text is supported' in refused(bench, generated("q", "a", "b", images=["a.png"]))


def test_gold_and_practice_rows_carry_their_ranks(bench: Any) -> None:
    file = bench.file("gold.jsonl", [generated("q", "a", "b", "c") | {"ranks": [3, 1, 1], "explanation": "b and c"}])
    assert run(bench, file, kind="gold") == Added(prompts=1, answers=3, tasks=1)
    assert run(bench, file, kind="practice") == Added(tasks=1)
    assert run(bench, file, kind="gold") == Added()
    gold, practice = found(bench, "gold", "practice")
    assert gold.expected == practice.expected == [2, 1, 1]
    assert found(bench) == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (generated("q", "a", "b"), "no ranks"),
        (generated("q", "a", "b") | {"ranks": [1, 1]}, "every ranking would pass"),
        (generated("q", "a", "a") | {"ranks": [1, 2]}, "two responses are equal"),
        (generated("q", *map(str, range(10))) | {"ranks": list(range(10))}, "at most 9 can be ranked"),
        (generated("q", "a", "b") | {"ranks": [1]}, "2 responses need as many ranks"),
        (generated("q", "a", "b") | {"ranks": [1, 2], "explanation": 5}, "explanation must be a text"),
    ],
)
def test_a_gold_row_that_cannot_be_judged_is_refused(bench: Any, row: Any, reason: str) -> None:
    assert reason in refused(bench, row, kind="gold")


def test_priorities_order_the_queue(make: Any) -> None:
    bench = make(queue={"random_share": 0})
    run(bench, bench.file("a.jsonl", [generated(f"q{n}", "a", "b", priority=n) for n in (2, 9, 5)]))
    with bench.project.store.read() as session:
        query = select(Prompt.messages).join(Task).order_by(Task.place)
        assert [messages[0]["content"] for messages in session.scalars(query)] == ["q9", "q5", "q2"]


def test_prompts_of_one_batch_and_of_many_are_treated_alike(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one prompt stand far apart in the file."""
    monkeypatch.setattr("apps.label.importing.BATCH", 3)
    rows = [generated(f"q{n}", f"a{n}") for n in range(10)] + [generated(f"q{n}", f"b{n}") for n in range(10)]
    assert run(bench, bench.file("a.jsonl", rows)) == Added(prompts=10, answers=20, tasks=10)


def test_an_import_that_was_interrupted_is_run_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.label import importing

    monkeypatch.setattr("apps.label.importing.BATCH", 2)
    file = bench.file("a.jsonl", [generated(f"q{n}", f"a{n}", f"b{n}") for n in range(9)])
    real, calls = importing.add_tasks, []

    def fails_the_third_time(*args: Any) -> Added:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(importing, "add_tasks", fails_the_third_time)
    with pytest.raises(KeyboardInterrupt):
        run(bench, file)
    assert len(found(bench)) == 4
    assert run(bench, file) == Added(prompts=5, answers=10, tasks=5)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Of Python's own objects; texts of 20,000 characters, 15 times as many."""
    from apps.store.project import opened

    peaks = []
    for n in (20, 300):
        folder = tmp_path / str(n)
        folder.mkdir()
        file = folder / "a.jsonl"
        with file.open("w", encoding="utf-8") as out:
            for index in range(n):
                out.write(json.dumps(generated(f"q{index}", "a" * 10_000, "b" * 10_000)) + "\n")
        (folder / "project.yaml").write_text(f"name: x\ndatabase: {folder}/l.db\n")
        with opened(str(folder / "project.yaml")) as project, pytest.MonkeyPatch.context() as patch:
            patch.setattr("apps.label.importing.BATCH", 10)
            tracemalloc.start()
            import_files(project, [str(file)])
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            with project.store.read() as session:
                assert session.scalar(select(func.count()).select_from(Task)) == n
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[0] > 200_000  # so a batch is counted


def test_keys_that_mean_something_are_honoured_and_others_named(bench: Any) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    tools = [{"type": "function", "function": {"name": "weather"}}]
    turns = [
        {"role": "user", "content": "warm ?"},
        {"role": "assistant", "content": "", "reasoning_content": "I must look.", "tool_calls": [call]},
        {"role": "tool", "content": "-3", "name": "weather", "tool_call_id": "c1"},
    ]
    rows = [
        generated("", "a", "b", system="Be brief.", colour="red") | {"prompt": turns, "tools": tools},
        {"messages": [turns[0], {"role": "assistant", "content": "No.", "reasoning_content": "-3 is cold."}]},
    ]
    done = import_files(bench.project, [bench.file("a.jsonl", rows)])
    assert lines(done, False)[1:3] == [
        "  2 rows: contains thoughts; those of an answer are not shown",
        "  not read: colour (1 rows)",
    ]
    (task,) = found(bench)
    asked = Message.of(task.messages[0])
    assert (asked.role, json.loads(asked.content)) == ("tools", tools)
    kept = [turns[0], turns[1] | {"tool_calls": json.dumps([call])}, turns[2]]
    assert task.messages[1:] == [{"role": "system", "content": "Be brief."}, *kept]
    assert done.added.waiting == 1  # "No.", without its thoughts


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (generated("q", "a", "b", images=["x.png"]), "only text is supported"),
        (generated("q", "a", "b", system=7), "system must be a string, found 7"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": []}]}, "no content"),
    ],
)
def test_a_row_whose_keys_cannot_be_honoured_is_told(bench: Any, row: Any, reason: str) -> None:
    said = refused(bench, row)
    assert "bad.jsonl:1: " in said
    assert reason in said


def test_cells_of_a_csv_file_are_numbers_and_lists(bench: Any) -> None:
    rows = [
        "prompt,responses,models,temperature,priority",
        'q,"[""a"", ""b""]","[""m"", ""n""]",0.5,2',
        'r,"[""c""]",,,',
    ]
    run(bench, bench.file("a.csv", rows))
    made = [answer.makers for answer in found(bench)[0].answers]
    assert made == [[{"model": name, "temperature": 0.5}] for name in ("m", "n")]


def test_the_models_of_a_battle_are_kept(bench: Any) -> None:
    row = {"prompt": "q", "response_a": "a", "response_b": "b", "winner": "model_b", "model_a": "m", "model_b": "n"}
    run(bench, bench.file("a.jsonl", [row]))
    assert [answer.makers for answer in found(bench)[0].answers] == [[{"model": "m"}], [{"model": "n"}]]


def test_marks_of_learning_are_named_as_unread(bench: Any) -> None:
    rows = [{"prompt": "q", "completion": text, "label": text == "a", "weight": 0} for text in ("a", "b")]
    (told,) = import_files(bench.project, [bench.file("a.jsonl", rows)]).unread
    assert told == "not read: label (2 rows), weight (2 rows)"


def test_a_remedy_is_one_for_the_file(bench: Any) -> None:
    told = refused(bench, {"prompt": "q", "responses": ["a"], "images": ["x"]}, {"prompt": "q", "responses": '["a"]'})
    assert "to ignore it, rename images to _images" in told
    assert 'responses must be a list of texts, found "[\\"a\\"]"' in told
