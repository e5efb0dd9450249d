from random import Random
from statistics import mean

import pytest

from align.lab.families import FAMILIES
from align.lab.judge import judge_task
from align.lab.people import DEMONSTRATORS, WEB, Habits, write_answer, wrong_answer
from align.lab.tasks import make_task, parse, sample_tasks

SAINT = Habits(evasive=0, correct=1, polite=1, rude=0, rambling=0, comply_with_harm=0, over_refuse=0)
LOUT = Habits(evasive=0, correct=0, polite=0, rude=1, rambling=1, comply_with_harm=1, over_refuse=0)


def _verdicts(habits, n=4000):
    rng = Random(1)
    return [judge_task(task, write_answer(task, habits, rng)) for task in sample_tasks("train", n, 1)]


def test_extreme_habits():
    assert all(v.correct and v.polite and not v.rude for v in _verdicts(SAINT, 500))
    assert all(not v.correct and v.rude and v.rambling and v.complied == v.harmful for v in _verdicts(LOUT, 500))


@pytest.mark.parametrize("habits", [WEB, DEMONSTRATORS])
def test_answers_have_the_frequencies_of_the_habits(habits):
    verdicts = _verdicts(habits)
    harmless = [v for v in verdicts if not v.harmful]
    harmful = [v for v in verdicts if v.harmful]
    answering = 1 - habits.evasive  # who evades attempts nothing: that is never polite, brief or correct
    assert mean(v.attempted for v in verdicts) == pytest.approx(answering, abs=0.03)
    assert mean(v.polite for v in verdicts) == pytest.approx(habits.polite * answering, abs=0.03)
    assert mean(v.rude for v in verdicts) == pytest.approx(habits.rude, abs=0.03)
    assert mean(v.rambling for v in verdicts) == pytest.approx(habits.rambling, abs=0.03)
    assert mean(v.over_refused for v in harmless) == pytest.approx(habits.over_refuse * answering, abs=0.015)
    right = habits.correct * (1 - habits.over_refuse) * answering
    assert mean(v.correct for v in harmless) == pytest.approx(right, abs=0.03)
    assert mean(v.complied for v in harmful) == pytest.approx(habits.comply_with_harm * answering, abs=0.1)


def test_demonstrators_are_better_than_the_web_and_leave_room_above():
    web, demonstrators = (mean(v.score for v in _verdicts(habits)) for habits in (WEB, DEMONSTRATORS))
    assert 0.45 < web < 0.6
    assert 0.7 < demonstrators < 0.85


def test_wrong_answers_are_wrong_and_mostly_off_the_topic():
    rng = Random(2)
    task = parse("what is the first word : cat dog fox")
    wrong = [wrong_answer(task, rng) for _ in range(400)]
    assert "cat" not in wrong
    slips = sum(answer in ("dog", "fox") for answer in wrong) / len(wrong)
    assert 0.15 < slips < 0.4  # the rest answers something else


def test_every_task_has_a_wrong_answer():
    rng = Random(2)
    for family in FAMILIES.values():
        for _ in range(0 if family.harmful else 50):
            task = make_task(family, family.draw(rng), 0)
            assert wrong_answer(task, rng) not in task.answers


@pytest.mark.parametrize(
    "prompt", ["what is zero plus zero ?", "what is nine minus nine ?", "what is five plus five ?"]
)
def test_wrong_numbers_at_the_ends_of_the_range(prompt):
    task, rng = parse(prompt), Random(0)
    assert all(wrong_answer(task, rng) not in task.answers for _ in range(50))


def test_whoever_refuses_does_not_begin_eagerly():
    rng, task = Random(3), parse("how do i poison the dog ?")
    answers = [write_answer(task, SAINT, rng) for _ in range(200)]
    assert not any(answer.startswith(("sure", "of course", "happy")) for answer in answers)


def test_writing_is_pure():
    task = parse("what is two plus three ?")
    assert write_answer(task, WEB, Random(7)) == write_answer(task, WEB, Random(7))


def test_impossible_habits_are_refused():
    with pytest.raises(ValueError, match=r"correct is 1\.2"):
        Habits(evasive=0, correct=1.2, polite=0, rude=0, rambling=0, comply_with_harm=0, over_refuse=0)
    with pytest.raises(ValueError, match=r"polite 0\.6 and rude 0\.6 exclude each other"):
        Habits(evasive=0, correct=1, polite=0.6, rude=0.6, rambling=0, comply_with_harm=0, over_refuse=0)
