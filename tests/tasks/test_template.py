"""What a model reads, letter by letter; what is found in its answer; templates that cannot work are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import PROMPTS

from align.config import build
from align.errors import UserError
from align.tasks.questions import Question
from align.tasks.template import Template, load_template
from align.text.records import Message

CLIPS = Question("How many clips?", ("48/2 = 24\n48+24 = 72\n#### 72",), "g:1")
EGGS = Question("How many eggs? ", ("3 * 4 = 12\n#### 12",), "g:2")
CATS = Question("a cat is", ("an animal",), "c:1", ("a plant", "an animal"), 1)
DOGS = Question("a dog is", ("a {pet}",), "c:2", ("a {pet}", "a stone", "a song"), 0)


def template(**keys: object) -> Template:
    return build(Template, {"example": "Q: {question}\nA: {answer}"} | keys, "t.yaml")


def test_a_text_for_a_base_model():
    asked = template(instruction="Answer.").ask(EGGS, [CLIPS], plain=True)
    assert asked == (
        "Answer.\n\nQ: How many clips?\nA: 48/2 = 24\n48+24 = 72\n#### 72\n\nQ: How many eggs?\nA:"
    )  # and no space at the end: it belongs to the answer's first token
    assert template().ask(EGGS, [], plain=True) == "Q: How many eggs?\nA:"


def test_turns_for_a_chat_model():
    asked = template(instruction="Answer.", turn="({question})").ask(DOGS, [CATS, CATS], plain=False)
    assert asked == [
        Message("user", "Answer.\n\n(a cat is)"),
        Message("assistant", "an animal"),
        Message("user", "(a cat is)"),
        Message("assistant", "an animal"),
        Message("user", "(a dog is)"),
    ]


def test_chain_of_thought_is_in_the_examples_or_it_is_not():
    extract = [r"####\s*(\d+)"]
    assert template(extract=extract, cot=True).answer(CLIPS) == "48/2 = 24\n48+24 = 72\n#### 72"
    assert template(extract=extract).answer(CLIPS) == "72"
    assert template(extract=[r"nothing (like) it"]).answer(EGGS) == "3 * 4 = 12\n#### 12"


def test_choices_by_letter_and_by_text():
    by_letter = template(example="{question}\n{choices}\nA: {answer}", turn="{question}\n{choices}", answers="letter")
    assert by_letter.ask(DOGS, [CATS], plain=True) == (
        "a cat is\nA. a plant\nB. an animal\nA: B\n\na dog is\nA. a {pet}\nB. a stone\nC. a song\nA:"
    )
    assert [by_letter.continuation(DOGS, i, plain=True) for i in range(3)] == [" A", " B", " C"]
    assert [by_letter.continuation(DOGS, i, plain=False) for i in range(3)] == ["A", "B", "C"]
    assert template().continuation(CATS, 1, plain=True) == " an animal"
    assert template(example="{question}\n{answer}").continuation(CATS, 1, plain=True) == "an animal"
    written = template(example="{question}{choices}: {answer}", choice="({letter}) {choice}")
    assert written.ask(CATS, [], plain=True) == "a cat is(A) a plant\n(B) an animal:"


def test_the_final_answer_is_the_last_that_the_first_fitting_pattern_finds():
    t = template(extract=[r"####\s*(\d+)", r"answer is (\d+)"])
    assert t.extracted("so the answer is 3 ... #### 4\n#### 5") == "5"
    assert t.extracted("the answer is 3; no, the answer is 6.") == "6"
    assert t.extracted("twelve") is None
    assert template().extracted("  twelve ") == "twelve"
    assert template().extracted("  ") is None


def test_where_an_answer_stops():
    assert template().stops_at(plain=True) == "\n\n"
    assert template(stop="\n", separator="--").stops_at(plain=True) == "\n"
    assert template(separator="--").stops_at(plain=True) == "--"
    assert template().stops_at(plain=False) is None  # a chat model says EOS


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"example": "Q: {answer}"}, r"example = 'Q: \{answer\}': write \{question\} exactly once"),
        ({"example": "{question} {qestion} {answer}"}, r"example: \{qestion\} is not a placeholder here"),
        ({"example": "{answer} {question}"}, r"end it with \{answer\}"),
        ({"example": "{question}"}, r"end it with \{answer\}"),
        ({"turn": "no question"}, r"turn = 'no question': write \{question\} exactly once"),
        ({"answers": "letter"}, r"answers: letter needs \{choices\} exactly once"),
        ({"extract": ["(["]}, "is not a regular expression"),
        ({"extract": [r"\d+"]}, "has no group"),
        ({"cot": True}, "cot: true needs extract"),
        ({"separator": ""}, "separator: separator is empty"),
        ({"stop": ""}, "stop"),
        ({"shots": 3}, "shots = 3: unknown key"),
    ],
)
def test_what_cannot_work_is_told_with_file_and_key(keys, told):
    with pytest.raises(UserError, match=told) as raised:
        template(**keys)
    assert str(raised.value).startswith("t.yaml: 1 problem")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"missing\.yaml"):
        load_template(tmp_path / "missing.yaml")


TASKS = sorted(set(PROMPTS.glob("*.yaml")) - {PROMPTS / "judge.yaml"})


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_the_library_can_be_used(path: Path):
    t = load_template(path)
    question = DOGS if t.answers == "letter" else EGGS
    example = CATS if t.answers == "letter" else CLIPS
    assert path.read_text().startswith("# ")
    asked = str(t.ask(question, [example], plain=True))
    assert question.text.strip() in asked
    assert example.text.strip() in asked
    assert not asked.endswith(" ")
    assert question.text.strip() in t.ask(question, [example], plain=False)[-1].content


@pytest.mark.parametrize(
    ("name", "said", "found"),
    [
        ("gsm8k", "48/2 = 24\n48+24 = 72\n#### 72", "72"),
        ("gsm8k", "She earns $1,234.50. The answer is $1,234.50.", "$1,234.50"),
        ("gsm8k", "#### $ 5", None),
        ("gsm8k", "I do not know 12", None),
        ("gsm8k-direct", "It is 12 dollars.", "12"),
        ("gsm8k-direct", "#### -3", "-3"),
    ],
)
def test_gsm8k_answers_are_found(name, said, found):
    assert load_template(PROMPTS / f"{name}.yaml").extracted(said) == found
