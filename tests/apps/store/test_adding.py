"""Prompts and answers become tasks, once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from offices import Office, prompt
from sqlalchemy import select

from apps.store import tasks
from apps.store.adding import Added, NewAnswer, NewPrompt, add_tasks, distribute
from apps.store.tables import Output, Task, TaskOutput


def add(office: Office, *prompts: NewPrompt, kind: Any = "rank", dry_run: bool = False) -> Added:
    return add_tasks(office.store, office.project, prompts, kind, dry_run)


def of(name: str, *texts: str, model: str = "m", **more: Any) -> NewPrompt:
    answers = tuple(NewAnswer(text, {"model": model}) for text in texts)
    return NewPrompt([{"role": "user", "content": name}], "file", answers, **more)


def task_texts(office: Office) -> list[list[str]]:
    """The answers of all tasks, by task and place."""
    with office.store.read() as session:
        query = select(TaskOutput.task_id, Output.text).join(Output, Output.id == TaskOutput.output_id)
        found: dict[int, list[str]] = {}
        for task, text in session.execute(query.order_by(TaskOutput.task_id, TaskOutput.place)):
            found.setdefault(task, []).append(text)
        return list(found.values())


def test_the_same_again_changes_nothing(office: Office) -> None:
    batch = [prompt(f"q{index}", 4) for index in range(5)]
    assert add(office, *batch, dry_run=True) == Added(prompts=5, answers=20, tasks=5)
    assert task_texts(office) == []
    assert add(office, *batch) == Added(prompts=5, answers=20, tasks=5)
    assert add(office, *batch) == Added()
    assert add(office, *batch, dry_run=True) == Added()


def test_answers_to_one_prompt_are_one_task(office: Office) -> None:
    assert add(office, of("q", "a", "b"), of("q", "c"), of("q", "a")) == Added(prompts=1, answers=3, tasks=1)
    assert task_texts(office) == [["a", "b", "c"]]


def test_later_answers_fill_up_a_task_that_nobody_has_seen(office: Office) -> None:
    add(office, of("q", "a", "b"))
    for dry_run in (True, False):
        assert add(office, of("q", "b", "c", "d"), dry_run=dry_run) == Added(answers=2, extended=1)
    assert task_texts(office) == [["a", "b", "c", "d"]]
    assert add(office, of("q", "d", "c", "b", "a")) == Added()


def test_a_task_that_was_seen_keeps_its_answers(office: Office) -> None:
    add(office, of("q", "a", "b"))
    tasks.claim(office.store, office.project, office.person("Ann").id)
    assert add(office, of("q", "c")) == Added(answers=1, waiting=1)
    assert add(office, of("q", "c")) == Added(waiting=1)
    assert add(office, of("q", "d")) == Added(answers=1, tasks=1)
    assert task_texts(office) == [["a", "b"], ["c", "d"]]


def test_a_single_answer_waits_for_a_second(office: Office) -> None:
    assert add(office, of("q", "a", "a")) == Added(prompts=1, answers=1, waiting=1)
    assert task_texts(office) == []
    assert add(office, of("q", "b")) == Added(answers=1, tasks=1)
    assert task_texts(office) == [["a", "b"]]


def test_who_gave_the_same_answer_is_kept_and_the_answer_shown_once(office: Office) -> None:
    add(office, of("q", "a", "b", model="one"))
    add(office, of("q", "a", model="two"), of("q", "a", model="two"))
    with office.store.read() as session:
        makers = dict(session.execute(select(Output.text, Output.makers)).tuples().all())
    assert makers == {"a": [{"model": "one"}, {"model": "two"}], "b": [{"model": "one"}]}
    assert task_texts(office) == [["a", "b"]]


@pytest.mark.parametrize(
    ("n", "sizes"), [(2, [2]), (9, [9]), (10, [5, 5]), (11, [6, 5]), (19, [6, 7, 6]), (1, []), (0, [])]
)
def test_many_answers_are_shared_out(n: int, sizes: list[int]) -> None:
    answers = [str(index) for index in range(n)]
    grown, new, waiting = distribute(answers, {}, 9)
    assert (grown, sorted(map(len, new)), waiting) == ({}, sorted(sizes), n - sum(sizes))
    assert [answer for task in new for answer in task] == answers[: sum(sizes)]


@pytest.mark.parametrize(("n", "most", "waiting"), [(3, 2, 1), (5, 2, 1), (4, 2, 0), (7, 3, 0), (10, 3, 0)])
def test_no_task_is_too_small_or_too_large(n: int, most: int, waiting: int) -> None:
    _, new, left = distribute([str(index) for index in range(n)], {}, most)
    assert left == waiting == n - sum(map(len, new))
    assert all(2 <= len(task) <= most for task in new)


def test_unseen_tasks_are_filled_before_new_ones_are_made() -> None:
    unseen = {7: ["a"] * 8, 8: ["b"] * 9, 9: ["c"] * 7}
    assert distribute(list("123456"), unseen, 9) == ({7: ["1"], 9: ["2", "3"]}, [["4", "5", "6"]], 0)


def test_gold_and_practice_are_a_task_for_each_row(office: Office) -> None:
    rows = [of("q", "a", "b", expected=(1, 2)), of("q", "c", "d", expected=(2, 1))]
    assert add(office, *rows, kind="gold") == Added(prompts=1, answers=4, tasks=2)
    assert add(office, *rows, kind="gold") == Added()
    assert add(office, *rows, kind="practice") == Added(tasks=2)
    assert task_texts(office) == [["a", "b"], ["c", "d"]] * 2


def test_expected_ranks_can_be_corrected(office: Office) -> None:
    add(office, of("q", "a", "b", "c", expected=(1, 2, 3)), kind="gold")
    other = of("q", "c", "b", "a", expected=(1, 2, 2), explanation="c is best")
    for dry_run in (True, False):
        assert add(office, other, kind="gold", dry_run=dry_run) == Added(corrected=1)
    with office.store.read() as session:
        assert session.scalar(select(Task.expected)) == {"ranks": [2, 2, 1], "explanation": "c is best"}
    assert add(office, other, kind="gold") == Added()


def test_answers_of_gold_tasks_stay_out_of_the_others(office: Office) -> None:
    add(office, of("q", "right", "wrong", expected=(1, 2)), kind="gold")
    add(office, of("q", "a", "b"))
    assert task_texts(office) == [["right", "wrong"], ["a", "b"]]
    assert add(office, of("q", "right", "c")) == Added(answers=1, extended=1)  # unless they are given again


def test_another_projects_tasks_are_not_touched(office: Office) -> None:
    from apps.store import projects
    from apps.store.settings import Settings

    add(office, of("q", "a", "b"))
    other = projects.sync(office.store, "other", Settings())
    assert add_tasks(office.store, other, [of("q", "a", "b")]) == Added(prompts=1, answers=2, tasks=1)


def test_a_prompt_is_all_of_its_turns(office: Office) -> None:
    turns = [[{"role": "user", "content": "q"}], [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]]
    for messages in turns:
        add(office, NewPrompt(messages, "file", (NewAnswer("a", {}), NewAnswer("b", {}))))
    assert Counter(map(tuple, task_texts(office))) == {("a", "b"): 2}
