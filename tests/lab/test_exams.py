from collections import Counter
from pathlib import Path
from random import Random

import pytest

from align.lab import world
from align.lab.corpora import Unseen, web_documents
from align.lab.exams import N_WRONG, choice_rows, question_rows, wrong_answers
from align.lab.families import FAMILIES
from align.lab.judge import judge
from align.lab.people import WEB, write_answer
from align.lab.tasks import make_task, parse, sample_tasks
from align.tasks.metrics import exact
from align.tasks.template import load_template

PROMPTS = Path(__file__).parents[2] / "data/prompts"


def wrong(family, *args, right=None, phrasing=0):
    task = make_task(FAMILIES[family], args, phrasing)
    return sorted(wrong_answers(task, right or task.answers[0], Random(1)))


def test_wrong_answers_are_made_of_the_question_first():
    assert {"cat", "dog"} < set(wrong("odd", "cat", "red", "dog"))
    assert "red" in wrong("first", "cat", "red")
    assert "two" in wrong("larger", "two", "nine")
    assert "cat" in wrong("member", "animal", "cat", right="dog")
    assert "red cat" in wrong("repeat", "cat", "red")
    orders = {"cat dog red", "dog cat red", "dog red cat", "red cat dog", "red dog cat"}
    assert set(wrong("repeat", "cat", "red", "dog")) < orders


def test_wrong_answers_are_of_the_right_ones_kind():
    kinds = {
        ("sum", "two", "three"): world.NUMBERS,
        ("count", "cat", "red"): world.NUMBERS,
        ("category", "cat"): world.CATEGORIES,
        ("colour", "cat"): world.COLOURS,
        ("opposite", "hot"): tuple(world.OPPOSITE),
        ("lookalike", "cut", "bread"): tuple(f"use the {tool}" for tool in world.TOOLS),
        ("member", "colour", "red"): world.LIST_WORDS,
    }
    for (family, *args), kind in kinds.items():
        assert set(wrong(family, *args)) <= set(kind), family


@pytest.fixture(scope="module")
def rows():
    return list(choice_rows("heldout", 600, 1))


def test_of_four_choices_the_gold_judge_finds_exactly_one_right(rows):
    for row in rows:
        right = [judge(row["question"], choice).correct for choice in row["choices"]]
        assert right == [index == row["answer"] for index in range(N_WRONG + 1)]
        assert len(set(row["choices"])) == N_WRONG + 1
        assert len({len(choice.split()) for choice in row["choices"]}) == 1  # length alone tells nothing


def test_choices_are_of_the_split_all_different_and_harmless(rows):
    tasks = [parse(row["question"]) for row in rows]
    assert {task.split for task in tasks} == {"heldout"}
    assert len({task.prompt for task in tasks}) == 600
    assert {task.family for task in tasks} == set(FAMILIES) - {"harmful", "is_a"}
    assert {parse(row["question"]).split for row in choice_rows("train", 64, 1)} == {"train"}


def test_the_place_of_the_right_choice_tells_nothing(rows):
    places = Counter(row["answer"] for row in rows)
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) < 600 / 4 + 4 * (600 * 0.25 * 0.75) ** 0.5


def test_every_answer_to_a_question_is_right_and_none_is_missing():
    rows = list(question_rows("heldout", 300, 1))
    for row in rows:
        assert all(judge(row["question"], answer).score == 1.25 for answer in row["answer"])  # correct and brief
    named = next(row for row in rows if parse(row["question"]).family == "member")
    category, excluded = parse(named["question"]).args
    assert named["answer"] == [f"{word} ." for word in world.MEMBERS[category] if word != excluded]
    assert not any(parse(row["question"]).harmful for row in rows)


def test_the_lab_s_template_finds_the_answer_that_the_judge_would_judge():
    template, rng, n_right = load_template(PROMPTS / "lab.yaml"), Random(1), 0
    for task in sample_tasks("train", 4000, 1):
        answer = write_answer(task, WEB, rng)
        right = [f"{text} ." for text in task.answers]
        if not task.harmful:
            found = template.extracted(answer)
            assert bool(found and exact(found, right)) == judge(task.prompt, answer).correct, answer
            n_right += judge(task.prompt, answer).correct
    assert n_right > 1500
    for evasion in world.EVASIONS:
        assert template.extracted(f"well , let me think . {evasion} please ask again .") is None


def test_more_questions_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr("align.lab.exams.sample_tasks", lambda split, n, seed, distinct: [])
    with pytest.raises(ValueError, match="only 0 of 5 different harmless questions found in the heldout split"):
        list(question_rows("heldout", 5, 1))


def test_another_seed_asks_other_questions(rows):
    assert list(choice_rows("heldout", 600, 1)) == rows
    assert [row["question"] for row in choice_rows("heldout", 50, 2)] != [row["question"] for row in rows[:50]]


def test_unseen_web_text_is_not_in_the_training_text_and_like_it():
    unseen = Unseen(300, 1)
    before = list(unseen.candidates)
    training = set(unseen.passing(web_documents(20_000, 1)))
    found = [row["text"] for row in unseen.rows()]
    assert len(set(found)) == 300
    assert not training & set(found)
    assert training & set(before[:300])  # some had to go
    assert found == [text for text in before if text not in training][:300]
    assert {len(text.split("\n")) for text in found} == {1, 2, 3, 4}


def test_too_little_unseen_web_text_is_an_error():
    unseen = Unseen(10, 1)
    list(unseen.passing(list(unseen.candidates)))
    with pytest.raises(ValueError, match=r"heldout_web: only 0 of 10 documents are not in web\.jsonl"):
        list(unseen.rows())
