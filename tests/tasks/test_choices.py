"""Choices by log-likelihood: equal to plain Hugging Face, and what dividing by tokens and by bytes decides."""

from __future__ import annotations

import math

import pytest
from asking import Parrot, cross_entropy, hugging_face, text_model_of

from align.config import build
from align.tasks.choice import ask_choices, chance, choice_rows, outcome_of, softmax
from align.tasks.questions import Question
from align.tasks.template import Template

ONE = Question("red cat", ("blue bird .",), "a:1", ("dog", "blue bird .", "green"), 1)
TWO = Question("the sun and", ("salt",), "a:2", ("salt", "moon moon"), 0)


def template(**keys: object) -> Template:
    return build(Template, {"example": "{question} {answer}"} | keys, "t.yaml")


def test_it_equals_hugging_face_on_text(path):
    text_model, (model, tokenizer) = text_model_of(path), hugging_face(path)
    t = template(instruction="say")
    for question in (ONE, TWO):
        (rows,) = choice_rows([question], [t.ask(question, [TWO], True)], t, text_model)
        found = text_model.logprobs(rows)
        for choice, (given, scored), values in zip(question.choices, rows, found, strict=True):
            text = f"say\n\nthe sun and salt\n\n{question.text}"
            before = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
            whole = [tokenizer.bos_token_id, *tokenizer(f"{text} {choice}", add_special_tokens=False)["input_ids"]]
            assert (given, scored) == (before, whole[len(before) :])
            assert sum(values) == pytest.approx(-cross_entropy(model, whole, len(before)), abs=1e-4)


def test_it_equals_hugging_face_on_turns(path):
    text_model, (model, tokenizer) = text_model_of(path, plain=False), hugging_face(path)
    t = template()
    (rows,) = choice_rows([ONE], [t.ask(ONE, [TWO], False)], t, text_model)
    turns = [
        {"role": "user", "content": TWO.text},
        {"role": "assistant", "content": "salt"},
        {"role": "user", "content": ONE.text},
    ]
    before = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    for choice, (given, scored), values in zip(ONE.choices, rows, text_model.logprobs(rows), strict=True):
        assert given == before
        assert tokenizer.decode(scored) == f" {choice}"  # and no EOS
        assert sum(values) == pytest.approx(-cross_entropy(model, given + scored, len(given)), abs=1e-4)


def test_an_outcome_has_the_models_sums(path):
    text_model, t = text_model_of(path), template()
    (outcome,) = ask_choices([ONE], [[]], t, text_model)
    (rows,) = choice_rows([ONE], [t.ask(ONE, [], True)], t, text_model)
    sums = [math.fsum(values) for values in text_model.logprobs(rows)]
    assert outcome.probabilities == pytest.approx(softmax(sums))
    assert outcome.scores["raw"] == (sums.index(max(sums)) == 1)


def test_the_three_ways_to_be_likeliest_can_differ():
    # Over 2, 4 and 3 tokens -3, -2, -3; over 12, 14 and 20 bytes -0.5, -0.57, -0.45.
    found = outcome_of(ONE, [-6.0, -8.0, -9.0], [2, 4, 3], [12, 14, 20])
    assert found.scores == {"raw": 0.0, "per_token": 1.0, "per_byte": 0.0}
    assert found.prediction == "blue bird ."
    assert outcome_of(ONE, [-6.0, -8.0, -9.0], [2, 4, 3], [12, 14, 20], "raw").prediction == "dog"
    assert outcome_of(ONE, [-6.0, -8.0, -9.0], [2, 4, 3], [12, 14, 20], "per_byte").prediction == "green"
    assert found.probabilities == pytest.approx([0.843795, 0.114195, 0.042010], abs=1e-6)
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.right == 1


def test_letters_are_scored_and_counted_as_letters():
    t = template(example="{question}\n{choices}\nA: {answer}", turn="{question} {choices}", answers="letter")
    text_model = Parrot(like=lambda said: {" A": -3.0, " B": -1.0, " C": -2.0}[said])
    (outcome,) = ask_choices([ONE], [[]], t, text_model)
    assert outcome.scores == {"raw": 1.0, "per_token": 1.0, "per_byte": 1.0}
    assert outcome.probabilities == pytest.approx(softmax([-3, -1, -2]))


def test_a_token_over_the_border_is_scored_whole():
    """Where the text's end and the choice make one token, what all choices share is given, and the rest is scored."""

    class Merging(Parrot):
        def prompt_ids(self, asked):
            merged = [text.replace("xy", "M").replace("xz", "N") for text in asked]
            return super().prompt_ids(merged)

    (rows,) = choice_rows(
        [Question("wx", ("y",), "a:1", ("y", "z", "q"), 0)], ["wx"], template(example="{question}{answer}"), Merging()
    )
    assert rows == [([0, *b"w"], [*b"M"]), ([0, *b"w"], [*b"N"]), ([0, *b"w"], [*b"xq"])]


def test_a_question_that_is_too_long_is_left_out_and_told():
    text_model = Parrot(like=lambda said: -float(len(said)), max_tokens=24)
    long = ONE._replace(text="red cat " * 20)
    first, second, third = ask_choices([long, ONE, TWO], [[], [], [TWO]], template(), text_model)
    assert (first.scores, "does not fit into 24 tokens" in first.reason) == ({}, True)
    assert second.scores["raw"] == 0.0  # the others are asked: "dog" is shorter than the right one
    assert "with 1 example it does not fit" in third.reason


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_not_a_number_is_told(value):
    text_model = Parrot(like=lambda said: value if "bird" in said else -1.0)
    (outcome,) = ask_choices([ONE], [[]], template(), text_model)
    assert outcome.scores == {}
    assert "not a number" in outcome.reason


def test_a_choice_that_leaves_no_token_is_told(path):
    (outcome,) = ask_choices(
        [ONE._replace(choices=("dog", "<|endoftext|>", "green"))], [[]], template(), text_model_of(path, plain=False)
    )
    assert "no token of its own" in outcome.reason


def test_chance():
    assert chance([ONE, TWO]) == pytest.approx((1 / 3 + 1 / 2) / 2)
