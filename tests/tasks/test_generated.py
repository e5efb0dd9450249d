"""Answers in words: where they are cut, what is found in them, how samples vote."""

from __future__ import annotations

from typing import Any

import pytest
from asking import PROMPTS, Parrot, text_model_of

from align.config import build
from align.generation.sampling import Sampling
from align.tasks.generate import ask_questions, outcome_of
from align.tasks.questions import Question
from align.tasks.template import Template, load_template

CLIPS = Question("How many clips?", ("48/2 = 24\n#### 1,072",), "g:1")
COLOUR = Question("What colour?", ("dark red", "crimson"), "g:2")
GREEDY = Sampling(8, 0.0)
WORDS = build(Template, {"example": "{question} {answer}"}, "t.yaml")
GSM8K = load_template(PROMPTS / "gsm8k.yaml")


def ask(questions: list[Question], model: Any, template: Template = WORDS, votes: int = 1, **keys: Any) -> list[Any]:
    shown: list[list[Question]] = [[] for _ in questions]
    metrics = keys.get("metrics", ("exact", "f1"))
    return ask_questions(questions, shown, template, model, GREEDY, votes, metrics, keys.get("seed", 1))


def test_right_and_wrong():
    said = {"How many clips?": "1,072", "What colour?": "A dark colour."}
    template = build(Template, {"example": "{question} {answer}", "extract": [r"####\s*([\d,]+)", "(.+)"]}, "t.yaml")
    clips, colour = ask([CLIPS, COLOUR], Parrot(lambda asked, seed: said[asked]), template)
    assert clips.scores == {"exact": 1.0, "f1": 1.0}
    assert colour.scores == {"exact": 0.0, "f1": pytest.approx(0.5)}
    assert (colour.prediction, colour.found, colour.place) == ("A dark colour.", "A dark colour.", "g:2")


def test_samples_vote_each_from_a_seed_of_its_own():
    texts = ["#### 5", "it is hard", "#### 1072", "... #### $1,072.00", "#### 6"]
    text_model = Parrot(lambda asked, seed: texts[seed % 1000])
    (outcome,) = ask([CLIPS], text_model, GSM8K, votes=5, seed=3, metrics=("exact",))
    assert outcome.scores == {"exact": 1.0, "exact_single": pytest.approx(2 / 5)}
    assert outcome.prediction == "#### 1072"
    assert [seed for _, seed, _ in text_model.how] == [3000, 3001, 3002, 3003, 3004]
    assert {stop for _, _, stop in text_model.how} == {"\n\n"}


def test_an_answer_without_an_answer_is_wrong_and_seen():
    (outcome,) = ask([CLIPS], Parrot(lambda asked, seed: "I wonder"), GSM8K, metrics=("exact", "f1", "rouge_l"))
    assert outcome.scores == {"exact": 0.0, "f1": 0.0, "rouge_l": 0.0}
    assert (outcome.found, outcome.prediction) == (None, "I wonder")
    (empty,) = ask([COLOUR], Parrot(lambda asked, seed: ""))
    assert (empty.scores["exact"], empty.found) == (0.0, None)


def test_a_question_that_is_too_long_is_left_out_and_told():
    text_model = Parrot(lambda asked, seed: None if "clips" in asked else "dark red")
    clips, colour = ask([CLIPS, COLOUR], text_model, votes=2)
    assert clips.scores == {}
    assert "does not fit into 64 tokens" in clips.reason
    assert colour.scores["exact"] == 1.0


def test_a_summary_is_measured_by_rouge():
    outcome = outcome_of(COLOUR, ["red and dark"], WORDS, ("rouge_l",))
    assert outcome.scores["rouge_l"] == pytest.approx(2 * 1 / (2 + 3))


def test_a_real_model_is_asked(path):
    """Greedy, so that the model's own words are the right answer."""
    text_model = text_model_of(path)
    asked = WORDS.ask(COLOUR, [], True)
    (said,) = text_model.answer([asked], GREEDY, 1, "\n\n")
    assert said is not None
    assert said.text
    right, long = ask([COLOUR._replace(answers=(said.text,)), COLOUR._replace(text="red cat " * 60)], text_model)
    assert right.scores["exact"] == 1.0
    assert "does not fit into 64 tokens" in long.reason
    chat = text_model_of(path, plain=False)
    (outcome,) = ask([COLOUR], chat)
    assert outcome.scores.keys() == {"exact", "f1"}
