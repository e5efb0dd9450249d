"""A task from its recipe to its block of the report: rounds by number of examples, intervals, comparisons, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from asking import PROMPTS, Parrot, text_model_of
from tiny import WORDS, sentences

from align.config import build
from align.errors import UserError
from align.tasks.results import Outcome, Result, Round, compare, interval
from align.tasks.task import Task, prepare, run_task

LINES = str(PROMPTS / "choice-text.yaml")
GO_ON = str(PROMPTS / "continuation.yaml")
QA = str(PROMPTS / "question-answer.yaml")
SHARED = Path(__file__).parents[3] / "shared/data"


def task_of(**keys: Any) -> Task:
    return build(Task, keys, "tasks.t")


def choices(n: int) -> list[dict[str, Any]]:
    return [
        {"question": f"{WORDS[i % 14]} {i}", "choices": ["cat", "dog dog", "sun"], "answer": i % 3} for i in range(n)
    ]


def open_questions(n: int) -> list[dict[str, Any]]:
    return [{"question": f"say {i}", "answer": f"{i}"} for i in range(n)]


def test_choices_of_a_real_model(path, written):
    task = task_of(kind="choice", path=written(choices(12)), template=GO_ON, shots=[0, 2], limit=8)
    result = run_task(task, text_model_of(path), 1)
    block = json.loads(json.dumps(result.block))
    assert (block["kind"], block["metric"], block["n"]) == ("choice", "per_token", 8)
    assert [one["shots"] for one in block["rounds"]] == [0, 2]
    for one, found in zip(block["rounds"], result.rounds, strict=True):
        n_right = sum(outcome.scores["raw"] for outcome in found.outcomes)
        assert one["n"] == 8
        assert one["scores"]["raw"]["mean"] == pytest.approx(n_right / 8)
        assert 0 <= one["scores"]["raw"]["low"] < one["scores"]["raw"]["high"] <= 1
        assert one["chance"] == pytest.approx(1 / 3)
        assert all(sum(outcome.probabilities) == pytest.approx(1) for outcome in found.outcomes)
    assert result.problems("tasks.t") == []
    assert result.block == run_task(task, text_model_of(path), 1).block


def test_perplexity_of_a_real_model(path, written):
    rows = [{"text": " ".join(sentences(30)[i:])} for i in range(0, 30, 3)]
    result = run_task(task_of(kind="perplexity", path=written(rows), stride=16), text_model_of(path), 1)
    (block,) = result.block["rounds"]
    assert (block["n"], block["window"], block["stride"]) == (10, 64, 16)
    assert block["scores"].keys() == {"per_token", "per_word", "per_byte", "bits_per_byte"}
    for found in block["scores"].values():
        assert 0 < found["low"] < found["mean"] < found["high"]


def test_rounds_differ_by_their_examples_alone(written):
    task = task_of(kind="generate", path=written(open_questions(30)), template=QA, shots=[0, 1, 4], limit=10)
    text_model = Parrot(lambda asked, seed: asked.split("Question: say ")[-1].partition("\n")[0])
    result = run_task(task, text_model, 1)
    assert [one["scores"]["exact"]["mean"] for one in result.block["rounds"]] == [1, 1, 1]
    rounds = [text_model.asked[i : i + 10] for i in (0, 10, 20)]
    for none, one, four in zip(*rounds, strict=True):
        assert [text.count("Answer: ") for text in (none, one, four)] == [0, 1, 4]
        assert four.startswith(one.removesuffix(none))  # the one example is the first of the four
        for shown in four.split("\n\n")[:-1]:
            assert int(shown.split()[2]) >= 10  # never one that is asked
    assert len({text.rpartition("\n\n")[0] for text in rounds[2]}) > 1  # each question draws its own


def test_examples_follow_from_the_seed_and_have_a_source_of_their_own(written):
    shown = written([*open_questions(3), *open_questions(3), {"question": "say 7", "answer": "seven"}], "shown.jsonl")
    keys: dict[str, Any] = {"kind": "generate", "path": written(open_questions(3)), "template": QA, "shots": [2]}
    task = task_of(**keys, examples=shown)
    first, again, other = prepare(task, 1), prepare(task, 1), [prepare(task, seed) for seed in range(2, 8)]
    assert first == again
    assert any(one.examples != first.examples for one in other)
    for question, examples in zip(first.questions, first.examples, strict=True):
        assert len({one.text for one in examples} | {question.text}) == 3  # never itself, none twice
    with pytest.raises(UserError, match=r"shown\.jsonl: 4 different examples, but 4 shots need at least 5"):
        prepare(task_of(**keys | {"shots": [4]}, examples=shown), 1)
    with pytest.raises(UserError, match=r"rows\.jsonl after the first 2 rows: 1 different examples, but 2 shots"):
        prepare(task_of(**keys, limit=2), 1)


def test_votes_are_sampled_and_one_answer_is_not(written):
    keys: dict[str, Any] = {"kind": "generate", "path": written(open_questions(3)), "template": QA, "max_tokens": 9}
    text_model = Parrot(lambda asked, seed: str(seed % 2))
    (block,) = run_task(task_of(**keys, votes=3), text_model, 1).block["rounds"]
    assert {how.temperature for how, _, _ in text_model.how} == {0.7}
    assert block["scores"]["exact"]["mean"] == pytest.approx(1 / 3)  # 0, 1, 0 are said to each: 0 wins
    assert block["scores"]["exact_single"]["mean"] == pytest.approx((2 / 3 + 1 / 3) / 3)
    greedy, hot = Parrot(), Parrot()
    run_task(task_of(**keys), greedy, 1)
    run_task(task_of(**keys, temperature=0.3), hot, 1)
    assert [(how.max_tokens, how.temperature) for how, _, _ in greedy.how + hot.how] == [(9, 0.0), (9, 0.3)]


def test_what_could_not_be_asked_is_counted(written):
    rows = [*open_questions(4), {"question": "no end", "answer": "x"}, {"question": "no end either", "answer": "x"}]
    task = task_of(kind="generate", path=written(rows), template=QA)
    text_model = Parrot(lambda asked, seed: None if "no end" in asked else "")
    result = run_task(task, text_model, 1)
    (problem,) = result.problems("tasks.qa.base")
    assert (problem.where, problem.n) == ("tasks.qa.base", 2)
    assert "does not fit into 64 tokens" in problem.what
    (block,) = result.block["rounds"]
    assert (result.block["n"], block["n"], block["n_without_answer"]) == (6, 4, 4)


def test_a_model_of_nan_leaves_a_block_without_figures(written):
    task = task_of(kind="choice", path=written(choices(3)), template=LINES)
    result = run_task(task, Parrot(like=lambda said: math.nan), 1)
    assert result.block["rounds"] == [{"shots": 0, "n": 0, "scores": {}, "chance": pytest.approx(1 / 3)}]
    assert result.problems("t")[0].n == 3
    assert compare(result, result) == [{"shots": 0, "n": 0}]


def result_of(values: list[float | None], metric: str = "exact") -> Result:
    outcomes = [Outcome(f"a:{i}", {} if value is None else {metric: value}) for i, value in enumerate(values)]
    return Result("generate", metric, [Round(0, outcomes, {})])


def test_the_tax_is_paired_and_mcnemars():
    base, tuned = result_of([1, 1, 1, 1, 1, 0, 1, None]), result_of([0, 0, 0, 0, 0, 0, 1, 1])
    (row,) = compare(tuned, base)
    assert (row["shots"], row["n"]) == (0, 7)
    assert row["mean"] == pytest.approx(-5 / 7)
    assert row["low"] < row["mean"] < row["high"] < 0
    assert row["p"] == pytest.approx(2 / 32)
    (other,) = compare(result_of([2.0, 3.0, 4.0], "f1"), result_of([1.0, 1.0, 1.0], "f1"))
    assert (other["mean"], other["p"]) == (pytest.approx(2), pytest.approx(2 / 8))


def test_intervals():
    assert interval([1.0, 1.0, 0.0, 1.0]) == pytest.approx((0.75, 0.3006, 0.9544), abs=1e-4)  # Wilson's
    assert interval([1.0] * 5).low < 0.6
    spread = interval([0.1, 0.5, 0.9] * 10)
    assert 0.3 < spread.low < spread.mean < spread.high < 0.7
    assert interval([0.5, 0.5]).low < 0.5 < interval([0.5, 0.5]).high


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"kind": "perplexity", "template": QA}, "template has no effect with kind: perplexity"),
        ({"kind": "perplexity", "shots": [1]}, "shots has no effect"),
        ({"kind": "choice", "template": LINES, "votes": 3}, "votes has no effect with kind: choice"),
        ({"kind": "choice", "template": LINES, "stride": 3}, "stride has no effect with kind: choice"),
        ({"kind": "choice"}, "template is missing"),
        ({"kind": "choice", "template": LINES, "metrics": ["exact"]}, "exact is none of choice; there are per_token"),
        ({"kind": "generate", "template": QA, "votes": 3, "temperature": 0}, "at temperature 0 are all equal"),
        ({"kind": "generate", "template": QA, "shots": [0, 0]}, r"shots = \[0, 0\]"),
        ({"kind": "generate", "template": QA, "shots": [-1]}, r"shots = \[-1\]"),
        ({"kind": "generate", "template": QA, "shots": []}, r"shots = \[\]"),
        ({"kind": "generate", "template": QA, "shots": [0, 1]}, "give examples, a separate file, or limit"),
        ({"kind": "rank"}, "kind = 'rank'"),
    ],
)
def test_a_recipe_that_cannot_work_is_told(keys, told):
    with pytest.raises(UserError, match=told):
        task_of(path="x.jsonl", **keys)


def test_a_resolved_recipe_is_a_recipe():
    """What a run writes as recipe.yaml has every key, those without effect too."""
    for keys in ({"kind": "perplexity"}, {"kind": "choice", "template": LINES, "shots": [0, 3], "limit": 4}):
        task = task_of(path="x.jsonl", **keys)
        assert task_of(**task.model_dump(mode="json")) == task


def test_letters_need_choices_and_not_too_many(written):
    letters = str(PROMPTS / "choice-letter.yaml")
    many = written([{"question": "q", "choices": [f"c{i}" for i in range(27)], "answer": 0}])
    with pytest.raises(UserError, match="27 choices, but 26 letters"):
        prepare(task_of(kind="choice", path=many, template=letters), 1)
    with pytest.raises(UserError, match=r"choice-letter\.yaml: answers = letter needs choices"):
        prepare(task_of(kind="generate", path=written(open_questions(2)), template=letters), 1)


# ---------------------------------------------------------------------------------------------------- real text


def shared(name: str) -> str:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return str(path)


def test_gsm8k_is_read_and_its_own_answers_are_right():
    path = shared("gsm8k-train-1000.jsonl.gz")
    task = task_of(kind="generate", path=path, template=str(PROMPTS / "gsm8k.yaml"), shots=[4], limit=200)
    rows = prepare(task, 1)
    answers = {one.text.strip(): one.answers[0] for one in rows.questions}
    text_model = Parrot(lambda asked, seed: answers[asked.split("Question: ")[-1].removesuffix("\nAnswer:").strip()])
    result = run_task(task, text_model, 1, rows)
    assert result.block["rounds"][0]["scores"]["exact"]["mean"] == 1
    assert all("####" in one for one in text_model.asked)
    direct = task_of(kind="generate", path=path, template=str(PROMPTS / "gsm8k-direct.yaml"), shots=[4], limit=200)
    numbers = {text: answer.rpartition("#### ")[2] for text, answer in answers.items()}
    text_model = Parrot(lambda asked, seed: numbers[asked.split("Question: ")[-1].removesuffix("\nAnswer:").strip()])
    assert run_task(direct, text_model, 1).block["rounds"][0]["scores"]["exact"]["mean"] == 1
    assert not any("####" in one for one in text_model.asked)


def test_wikitext_is_read(world):
    path = shared("wikitext2-valid.txt.gz")
    result = run_task(task_of(kind="perplexity", path=path, limit=2), text_model_of(world.base), 1)
    (block,) = result.block["rounds"]
    assert block["n"] == 2
    assert block["bytes"] > 1000
