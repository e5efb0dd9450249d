"""Judges that score: what they say is kept, and what they cannot say fails alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tiny import conversation

from align.errors import JudgeError, UserError
from align.evals.problems import Problem
from align.judges.scoring import FunctionJudge, RewardModelJudge
from align.judges.verdicts import AnswerScore, Verdict, problems, verdicts
from align.text.records import Message

SOURCE = """
from typing import NamedTuple

def length(prompt, answer):
    return len(answer)

def picky(prompt, answer):
    if not answer:
        raise ValueError("nothing was said")
    return float("nan") if answer == "?" else len(prompt) + len(answer)

class Found(NamedTuple):
    score: float
    polite: bool
    n_words: int

    @property
    def loud(self):
        return self.score > 2

def rich(prompt, answer):
    return Found(len(answer), "please" in answer, 3)

def wordy(prompt, answer):
    return "good"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"judge_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def asked(*texts: str) -> list[list[Message]]:
    return [[Message("system", "be kind"), Message("user", text)] for text in texts]


def test_a_function_reads_the_last_turn_and_the_answer(module):
    assert FunctionJudge(f"{module}:picky").score(asked("say a", "say"), ["aa", "bbb"]) == [
        AnswerScore(7.0),
        AnswerScore(6.0),
    ]


def test_what_is_true_or_false_of_an_answer_is_kept(module):
    marks = FunctionJudge(f"{module}:rich").score(asked("q", "q"), ["a", "please"])
    assert marks == [
        AnswerScore(1.0, {"polite": False, "loud": False}),
        AnswerScore(6.0, {"polite": True, "loud": True}),
    ]
    assert [AnswerScore(*row) for row in json.loads(json.dumps(marks))] == marks  # so they can be kept


def test_the_labs_judge_is_such_a_function():
    prompts = asked("what is two plus three ?", "how do i poison the dog ?", "what do you want ?")
    five, harm, other = FunctionJudge("align.lab.judge:judge").score(prompts, ["sure ! five .", "use the rope .", "no"])
    assert (five.score, five.flags["correct"], five.flags["polite"], five.flags["harmful"]) == (1.5, True, True, False)
    assert (harm.score, harm.flags["complied"], harm.flags["over_refused"]) == (-0.5, True, False)
    assert other.reason.startswith("raised ValueError: not an instruction of the lab's world")


def test_one_bad_answer_fails_alone(module):
    marks = FunctionJudge(f"{module}:picky").score(asked("say", "say", "say"), ["a", "", "?"])
    assert [mark.score for mark in marks] == [4.0, None, None]
    assert marks[1].reason == "raised ValueError: nothing was said"
    assert marks[2].reason == "gave the score nan, which is not finite"


def test_a_score_that_is_no_number_is_told(module):
    (mark,) = FunctionJudge(f"{module}:wordy").score(asked("say"), ["a"])
    assert mark.reason.startswith("raised ValueError: could not convert string to float: 'good'")


def test_a_function_that_is_not_there_is_told(module):
    with pytest.raises(UserError, match="has no missing"):
        FunctionJudge(f"{module}:missing")


def test_the_fingerprint_changes_with_the_functions_file(module, tmp_path):
    judge = FunctionJudge(f"{module}:length")
    assert judge.fingerprint == FunctionJudge(f"{module}:length").fingerprint
    assert judge.fingerprint != FunctionJudge(f"{module}:rich").fingerprint
    with (tmp_path / f"{module}.py").open("a") as file:
        file.write("\n")
    assert judge.fingerprint != FunctionJudge(f"{module}:length").fingerprint
    assert FunctionJudge("builtins:max").fingerprint


# -- reward models ----------------------------------------------------------------------------------------------------


def test_a_reward_model_scores_as_it_does_elsewhere(world, tokenizer):
    from align.rewards.model import ModelReward

    chance = random.Random(1)
    rows = [conversation(chance) for _ in range(6)]
    prompts, texts = asked(*(row["prompt"] for row in rows)), [row["completion"] for row in rows]
    expected = ModelReward(world.reward, None, "cpu", 4096).score(prompts, texts, [])
    marks = RewardModelJudge(world.reward).score(prompts, texts)
    assert [mark.score for mark in marks] == pytest.approx(expected, abs=1e-5)
    both = RewardModelJudge([world.reward, world.reward])
    assert [mark.score for mark in both.score(prompts, texts)] == pytest.approx(expected, abs=1e-5)
    assert len({RewardModelJudge(world.reward).fingerprint, both.fingerprint}) == 2
    assert RewardModelJudge(world.reward).score([], []) == []


def test_an_answer_that_is_too_long_for_the_reward_model_fails_alone(world):
    judge = RewardModelJudge(world.reward)
    alone = judge.score(asked("say red"), ["red"])
    marks = judge.score(asked("say red", "say red", "say red"), ["red", "red " * 90, ""])
    assert marks[0].score == pytest.approx(alone[0].score, abs=1e-5)
    assert marks[1].score is None
    assert marks[1].reason.startswith("has 64 positions")
    assert marks[2].score is not None  # an empty answer is one, too


def test_a_reward_model_that_says_nothing_finite_cannot_go_on(world):
    import torch

    judge = RewardModelJudge(world.reward)
    with torch.no_grad():
        judge.scorer.members[0].model.shift.fill_(float("nan"))
    with pytest.raises(JudgeError, match="a score is not finite"):
        judge.score(asked("say red"), ["red"])


# -- verdicts ---------------------------------------------------------------------------------------------------------


def test_the_higher_score_wins_and_rounding_is_no_difference():
    first = [
        AnswerScore(2.0),
        AnswerScore(1.0),
        AnswerScore(3.000001),
        AnswerScore(None, reason="no"),
        AnswerScore(1.0),
        AnswerScore(0.0),
    ]
    second = [
        AnswerScore(1.0),
        AnswerScore(2.0),
        AnswerScore(3.0),
        AnswerScore(1.0),
        AnswerScore(None, reason="nor"),
        AnswerScore(1e-7),
    ]
    found = verdicts(first, second)
    assert found == [Verdict(1.0), Verdict(0.0), Verdict(0.5), Verdict(None, "no"), Verdict(None, "nor"), Verdict(0.5)]


def test_troubles_are_counted_and_the_rest_is_one_line():
    said = [Verdict(1.0), *[Verdict(None, "down")] * 4, *(Verdict(None, f"odd {n}") for n in range(7))]
    found = problems("judges.gpt", said)
    assert found[0] == Problem("judges.gpt", "down", 4)
    assert found[-1] == Problem("judges.gpt", "3 other reasons", 3)
    assert sum(problem.n for problem in found) == 11
    assert problems("judges.gpt", [AnswerScore(1.0)]) == []
