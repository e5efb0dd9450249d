"""Every key that means something: honoured or refused by name, for conversations, prompts, rankings and answers."""

from __future__ import annotations

import json

import pytest

from align.sections import Data
from align.text.extra_keys import BAD_ANSWER, NOT_LEARNED, UNREAD_LABEL
from align.text.formats import LAYOUTS, NOTHING_LEARNED, make, map_columns, reads, recognise
from align.text.keys import OF_MESSAGES, OF_ROWS, Unread
from align.text.load import load
from align.text.messages import Handling
from align.text.records import Message, plain
from align.text.values import BadRow, LeftOut

ASK, RED, BLUE = Message("user", "Name a colour."), Message("assistant", "Red"), Message("assistant", "Blue")
USER = {"role": "user", "content": "Name a colour."}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Red", "Blue"))

# A row of each format that has turns: it asks for a colour, and the (best) answer is Red.
ROWS = {
    "prompt_completion": {"prompt": "Name a colour.", "completion": "Red"},
    "messages": {"messages": [USER, GOOD]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Red"}]},
    "alpaca": {"instruction": "Name a colour.", "output": "Red"},
    "dolly": {"instruction": "Name a colour.", "response": "Red"},
    "question_answer": {"question": "Name a colour.", "answer": "Red"},
    "preference": {"prompt": "Name a colour.", "chosen": "Red", "rejected": "Blue"},
    "preference of turns": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "ranking": {"prompt": "Name a colour.", "responses": ["Red", "Blue"], "ranks": [1, 2]},
}
PAIR = ROWS["preference"]
ORDERED = [name for name in ROWS if name.split(" ")[0] in ("preference", "ranking")]
ONE_ANSWER = [name for name in ROWS if name not in ORDERED]
ONE_TEXT = ["prompt_completion", "alpaca", "dolly", "question_answer", "preference", "ranking"]


def made(row, kind, **how):
    return make(row, recognise(row, kind, "here"), kind, "here", Handling(**how))[0]


def prompt_in(row, kind):
    record = made(row, kind)
    return (
        record.prompt if kind in ("rankings", "answers") else tuple(t for t in record.messages if t.role != "assistant")
    )


def kinds_of(name):
    return ["conversations", "prompts", "answers", *(["rankings"] if name in ORDERED else [])]


@pytest.mark.parametrize("name", ROWS)
def test_a_system_column_is_the_first_turn_of_every_kind(name):
    for kind in kinds_of(name):
        for key in ("system", "system_prompt"):
            assert prompt_in({**ROWS[name], key: " Be brief. "}, kind) == (Message("system", "Be brief."), ASK)
        assert prompt_in({**ROWS[name], "system": ""}, kind) == (ASK,)
        with pytest.raises(BadRow, match="system must be a string, found 3"):
            made({**ROWS[name], "system": 3}, kind)


def test_a_system_column_and_another_system_turn():
    turns = [{"role": "system", "content": "Be brief."}, USER, GOOD]
    assert len(made({"system": "Be brief.", "messages": turns}, "prompts").messages) == 2
    with pytest.raises(BadRow, match=r'system = "Be long\.", but the messages begin with system "Be brief\."'):
        made({"system": "Be long.", "messages": turns}, "prompts")
    asked = made({"system": "Be brief.", "messages": [{"role": "tools", "content": "[]"}, USER, GOOD]}, "prompts")
    assert [turn.role for turn in asked.messages] == ["tools", "system", "user"]
    with pytest.raises(BadRow, match="system and system_prompt differ"):
        made({"system": "a", "system_prompt": "b", "messages": [USER, GOOD]}, "prompts")


@pytest.mark.parametrize("name", ROWS)
def test_tools_are_the_first_turn_of_every_kind(name):
    schema = {"name": "paint", "parameters": {"type": "object"}}
    for given in ([schema], json.dumps([schema]), [{"type": "function", "function": schema}], schema):
        for kind in kinds_of(name):
            tools, *turns = prompt_in({**ROWS[name], "tools": given}, kind)
            assert (tools.role, json.loads(tools.content)) == ("tools", [{"type": "function", "function": schema}])
            assert turns == [ASK]
    for given, said in (
        ("paint", "tools must be JSON"),
        (["paint"], "tools must be objects with a named function"),
    ):
        with pytest.raises(BadRow, match=said):
            made({**ROWS[name], "tools": given}, "prompts")


@pytest.mark.parametrize("name", ONE_TEXT)
def test_context_and_options_stand_around_the_question(name):
    row = ROWS[name]
    for kind in kinds_of(name):
        (turn,) = prompt_in({**row, "context": "It is sunset."}, kind)
        assert turn.content == "It is sunset.\n\nName a colour."
        for options in (["Red", "Blue"], {"A": "Red", "B": "Blue"}, {"text": ["Red", "Blue"], "label": ["A", "B"]}):
            (turn,) = prompt_in({**row, "options": options, "context": ""}, kind)
            assert turn.content == "Name a colour.\nA. Red\nB. Blue"
    (turn,) = prompt_in({**row, "options": ["(a) Red", "(b) Blue"]}, "prompts")
    assert turn.content == "Name a colour.\n(a) Red\n(b) Blue"
    for options, said in (({"text": ["Red"], "label": ["A", "B"]}, "1 texts and 2 letters"), (["x"] * 27, "27 texts")):
        with pytest.raises(BadRow, match=f"options has {said}"):
            made({**row, "options": options}, "prompts")
    with pytest.raises(BadRow, match="options must be a list of texts, found"):
        made({**row, "options": "Red or blue"}, "prompts")
    with pytest.raises(BadRow, match=r'context must be a string, found \["a"\]'):
        made({**row, "context": ["a"]}, "prompts")


@pytest.mark.parametrize("name", ["messages", "sharegpt", "preference of turns"])
def test_context_beside_turns_is_refused(name):
    with pytest.raises(
        BadRow, match=r"context is only read with a prompt that is one text; .* set data.columns=\{_context: context\}"
    ):
        made({**ROWS[name], "context": "It is sunset."}, "prompts")


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("key", [name for key in OF_ROWS if key.refused for name in key.spellings])
def test_refused_keys_of_rows(name, key):
    for kind in ("documents", *kinds_of(name)):
        if key not in LAYOUTS[name.split(" ")[0]].optional:
            with pytest.raises(BadRow, match=rf'{key} = \["x"\]: .* set data.columns=\{{_{key}: {key}\}}'):
                made({**ROWS[name], key: ["x"]}, kind)
        assert made({**ROWS[name], key: []}, kind) == made({**ROWS[name], key: None}, kind) == made(ROWS[name], kind)
    assert make(map_columns({**ROWS[name], key: ["x"]}, {f"_{key}": key}), name.split(" ")[0], "prompts", "")[
        0
    ].messages


@pytest.mark.parametrize("key", [name for key in OF_MESSAGES if key.refused for name in key.spellings])
def test_refused_keys_of_turns(key):
    for row in ({"messages": [{**USER, key: ["x"]}, GOOD]}, {"prompt": [{**USER, key: ["x"]}], "completion": [GOOD]}):
        with pytest.raises(BadRow, match=rf'message 1 of \w+ \(user\): {key} = \["x"\]: '):
            made(row, "conversations")
    assert made({"messages": [{**USER, key: None}, GOOD]}, "conversations").messages == (ASK, RED)


class TestLearningMarks:
    """OpenAI's weight, axolotl's train, verl's trainable, LLaMA-Factory's loss_mask and loss_weight."""

    KEYS = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight")

    @pytest.mark.parametrize("key", KEYS)
    def test_an_answer_that_is_context_only(self, key):
        for no, yes in ((0, 1), (False, True), (0.0, 1.0)):
            turns = [USER, {**BAD, key: no}, USER, {**GOOD, key: yes}]
            messages = made({"messages": turns}, "conversations").messages
            assert messages == (ASK, BLUE._replace(learned=False), ASK, RED)

    def test_the_last_answer_may_be_context_only(self):
        messages = made({"messages": [USER, GOOD, USER, {**BAD, "weight": 0}]}, "conversations").messages
        assert [turn.learned for turn in messages] == [True, True, True, False]

    def test_other_words_for_it(self):
        for mark in ({"masked": True}, {"label": False}):
            row = {"messages": [USER, {**BAD, **mark}, USER, GOOD]}
            assert not made(row, "conversations").messages[1].learned

    def test_nothing_to_learn(self):
        with pytest.raises(LeftOut, match=NOTHING_LEARNED):
            made({"messages": [USER, {**BAD, "weight": 0}]}, "conversations")

    @pytest.mark.parametrize(
        ("turn", "said"),
        [
            ({**BAD, "weight": 0.5}, r"\(assistant\): weight must be 1 or true .* found 0.5"),
            ({**BAD, "loss_mask": [1, 0]}, r"loss_mask must be 1 or true .* found \[1, 0\]"),
            ({**USER, "train": True}, r"\(user\) is marked to be learned; only assistant messages can be"),
        ],
    )
    def test_bad_marks(self, turn, said):
        with pytest.raises(BadRow, match=said):
            made({"messages": [USER, turn]}, "conversations")

    @pytest.mark.parametrize("name", ROWS)
    def test_a_row_that_is_not_to_be_learned(self, name):
        for kind in kinds_of(name):
            row = {**ROWS[name], "weight": 0}
            if kind in ("conversations", "rankings"):
                with pytest.raises(LeftOut, match=NOT_LEARNED):
                    made(row, kind)
            elif kind == "answers":
                assert made(row, kind) == made(ROWS[name], kind)._replace(learned=False)
            else:
                assert made(row, kind) == made(ROWS[name], kind)
            assert made({**row, "weight": 1}, kind) == made(ROWS[name], kind)
            with pytest.raises(BadRow, match=r"weight must be 1 or true .* found 0.3; to ignore it, set data.columns"):
                made({**row, "weight": 0.3}, kind)

    def test_a_marked_answer_is_not_compared(self):
        row = {"prompt": "Name a colour.", "chosen": [{**GOOD, "weight": 0}], "rejected": [BAD]}
        with pytest.raises(LeftOut, match=NOT_LEARNED):
            made(row, "rankings")
        assert not made(row, "answers").learned

    def test_nemos_mask_names_a_role(self):
        assert made({**ROWS["sharegpt"], "mask": "User"}, "conversations").messages == (ASK, RED)
        with pytest.raises(BadRow, match='mask = "Assistant": only User can be masked'):
            made({**ROWS["sharegpt"], "mask": "Assistant"}, "conversations")


@pytest.mark.parametrize("name", ONE_ANSWER)
@pytest.mark.parametrize("label", [False, 0, "0", "false"])
def test_bad_answers_are_no_demonstrations(name, label):
    row = {**ROWS[name], "label": label}
    for kind in ("conversations", "documents"):
        with pytest.raises(LeftOut, match=BAD_ANSWER):
            made(row, kind)
    assert made(row, "prompts") == made(ROWS[name], "prompts")
    assert made(row, "answers") == made(ROWS[name], "answers")._replace(good=False)
    assert made({**row, "label": True}, "conversations").messages == (ASK, RED)
    assert make({**row, "label": "art"}, name, "conversations", "")[1] == (UNREAD_LABEL,)


@pytest.mark.parametrize("name", ORDERED)
@pytest.mark.parametrize("label", [0, 1])
def test_a_label_beside_an_order_is_refused(name, label):
    for kind in ("rankings", "answers"):
        with pytest.raises(BadRow, match=f"label = {label}: the answers are ranked"):
            made({**ROWS[name], "label": label}, kind)


class TestThoughts:
    KEYS = ("reasoning_content", "reasoning", "thinking", "thoughts", "thought")

    @pytest.mark.parametrize("key", KEYS)
    def test_of_a_turn(self, key):
        messages = made({"messages": [USER, {**GOOD, key: " Warm. "}]}, "conversations").messages
        assert messages == (ASK, RED._replace(thoughts="Warm."))
        with pytest.raises(
            BadRow, match=rf"message 1 of messages \(user\) has {key}, which only assistant messages may have"
        ):
            made({"messages": [{**USER, key: "Warm."}, GOOD]}, "conversations")
        with pytest.raises(BadRow, match=rf"{key} must be a string, found 3"):
            made({"messages": [USER, {**GOOD, key: 3}]}, "conversations")

    @pytest.mark.parametrize("name", ONE_ANSWER)
    def test_of_a_row_with_one_answer(self, name):
        assert made({**ROWS[name], "thinking": "Warm."}, "conversations").messages[-1].thoughts == "Warm."
        with pytest.raises(BadRow, match=r'reasoning = "on" is a switch; set data\.template_options'):
            made({**ROWS[name], "reasoning": "on"}, "conversations")

    @pytest.mark.parametrize("name", ORDERED)
    def test_of_a_row_with_several(self, name):
        with pytest.raises(BadRow, match="thinking does not say which answer it belongs to"):
            made({**ROWS[name], "thinking": "Warm."}, "rankings")

    def test_answers_to_rank_are_texts(self):
        row = {"prompt": "Name a colour.", "chosen": [{**GOOD, "thinking": "Warm."}], "rejected": [BAD]}
        for kind in ("rankings", "answers"):
            with pytest.raises(BadRow, match=r"cannot have thoughts; set data\.thoughts to inline or drop"):
                made(row, kind)
            assert made(row, kind, thoughts="inline").responses == ("<think>\nWarm.\n</think>\n\nRed", "Blue")
            assert made(row, kind, thoughts="drop").responses == ("Red", "Blue")
        with pytest.raises(BadRow, match="a document cannot hold thoughts"):
            made(row, "documents")


CALL = {"name": "paint", "arguments": {"colour": "red"}}
CALLS = [{"type": "function", "function": CALL}]


class TestToolCalls:
    """OpenAI's form, its old one, and ShareGPT's roles."""

    @pytest.mark.parametrize(
        "turn",
        [
            {"content": None, "tool_calls": CALLS},
            {"content": "", "tool_calls": [{"id": None, "function": {**CALL, "arguments": '{"colour": "red"}'}}]},
            {"content": None, "function_call": {**CALL, "arguments": '{"colour": "red"}'}},
            {"content": None, "tool_calls": json.dumps([CALL])},
        ],
    )
    def test_openais(self, turn):
        turns = [USER, {"role": "assistant", **turn}, {"role": "tool", "content": "", "name": "paint"}, GOOD]
        _, called, result, last = made({"messages": turns}, "conversations").messages
        assert (called.role, called.content, json.loads(called.calls)) == ("assistant", "", CALLS)
        assert (result, last) == (Message("tool", "", name="paint"), RED)
        assert made({"messages": turns[:3]}, "prompts").messages[-1] == result
        assert len(made({"messages": turns[:2]}, "conversations").messages) == 2

    def test_sharegpts(self):
        said = [("human", "Paint."), ("function_call", json.dumps(CALL)), ("observation", "done"), ("gpt", "Red")]
        row = {"conversations": [{"from": role, "value": value} for role, value in said]}
        _, called, result, last = made(row, "conversations").messages
        assert (called.content, json.loads(called.calls), result.role, last) == ("", CALLS, "tool", RED)

    @pytest.mark.parametrize(
        ("turn", "said"),
        [
            (
                {"role": "assistant", "tool_calls": [{"id": 1}]},
                "tool_calls must be objects with a named function",
            ),
            ({"role": "assistant", "function_call": {"name": "f", "arguments": "{"}}, "arguments must be JSON"),
            (
                {"role": "assistant", "function_call": {"name": "f", "arguments": "[1]"}},
                "arguments must be an object, found",
            ),
            (
                {"role": "assistant", "function_call": {"name": "f", "arguments": '{"x": NaN}'}},
                "that JSON cannot express",
            ),
            ({"role": "function_call", "content": "paint red"}, r"\(function_call\) must be JSON"),
            (
                {"role": "user", "content": "a", "tool_calls": CALLS},
                "tool_calls, which only assistant messages may have",
            ),
        ],
    )
    def test_bad_calls(self, turn, said):
        with pytest.raises(BadRow, match=said):
            made({"messages": [USER, turn]}, "conversations")

    def test_answers_to_rank_call_no_tools(self):
        row = {"prompt": "Paint.", "chosen": [{**GOOD, "tool_calls": CALLS}], "rejected": [BAD]}
        for kind in ("rankings", "answers"):
            with pytest.raises(BadRow, match="an answer that calls a tool can be learned in a conversation"):
                made(row, kind)


@pytest.mark.parametrize("key", ["question", "instruction", "post"])
def test_the_words_that_answers_share_are_no_prompt_beside_another_text(key):
    pair = {"chosen": "The sky is blue", "rejected": "The sky is red"}
    for row in ({key: "What colour is the sky?", **pair}, {key: "What?", "chosen": [GOOD], "rejected": [BAD]}):
        with pytest.raises(
            BadRow, match=rf"no column prompt, but {key}; if that is the prompt, set .*\{{prompt: {key}\}}"
        ):
            made(row, "rankings")
    row = map_columns({key: "What colour is the sky?", **pair}, {"prompt": key})
    assert made(row, "rankings").responses == ("The sky is blue", "The sky is red")
    row = map_columns({key: "What colour is the sky?", **pair}, {f"_{key}": key})
    assert made(row, "rankings").responses == ("blue", "red")


class TestMargins:
    """From a column, or from scores."""

    def margin(self, row, margins="scores"):
        return made(row, "rankings", margins=margins).margin

    def test_scores_where_they_are_asked_for(self):
        row = {**PAIR, "score_chosen": 8.5, "score_rejected": 6, "margin": 1}
        assert (self.margin(row), self.margin(row, "column")) == (2.5, 1.0)
        assert self.margin({"prompt": "a", "responses": ["b", "c", "d"], "scores": [1, 4, 2]}) == 3

    def test_bad_scores(self):
        with pytest.raises(BadRow, match="no score_chosen and score_rejected"):
            self.margin(PAIR)
        with pytest.raises(BadRow, match="score_chosen = 1 is below score_rejected = 2"):
            self.margin({**PAIR, "score_chosen": 1, "score_rejected": 2})
        with pytest.raises(BadRow, match='score_rejected must be a number, found "low"'):
            self.margin({**PAIR, "score_chosen": 1, "score_rejected": "low"})


def test_what_is_not_read_is_named_once_with_its_count(write):
    turns = [{**USER, "lang": "en", "id": 1}, GOOD]
    rows = [{"messages": turns, "language": "en", "id": n} for n in range(1200)]
    rows += [{"messages": [USER, GOOD], "language": "en", "difficulty": 3, "_old": 1, "tools": []}]
    report = load(Data(path=write("a.jsonl", rows), validation=0), "conversations", 1).report
    assert report.lines()[1:3] == [
        "  not read: language (1,201 rows), difficulty (1 rows)",
        "  not read in messages: lang (1,200 messages)",
    ]


def test_scores_are_named_as_unread_unless_they_are_the_margins(write):
    path = write("a.jsonl", [{**PAIR, "score_chosen": 2, "score_rejected": 1}])
    for margins, told in (("column", ["  not read: score_chosen (1 rows), score_rejected (1 rows)"]), ("scores", [])):
        assert load(Data(path=path, validation=0, margins=margins), "rankings", 1).report.lines()[1:-1] == told


def test_what_we_write_of_a_prompt_is_read_as_it_was():
    """`plain` is how generate, export and the label import write a prompt."""
    called = Message("assistant", "", "Hm.", json.dumps(CALLS), learned=False)
    tools = Message("tools", json.dumps([{"type": "function", "function": {"name": "paint", "x": "ä"}}]))
    prompt = (tools, Message("system", "Be brief."), ASK, called, Message("tool", "7", name="paint", call_id="1"))
    row = json.loads(json.dumps({"prompt": plain(prompt), "responses": ["Red", "Blue"], "ranks": [1, 2]}))
    again = made(row, "rankings").prompt
    assert again[1:] == prompt[1:]
    assert json.loads(again[0].content) == json.loads(tools.content)
    assert made({"prompt": plain(again)}, "prompts").messages == again


def test_two_spellings_may_say_the_same_and_names_of_rows_may_differ():
    turns = [{**USER, "id": 1, "index": 2}, {**GOOD, "weight": 1, "train": True}]
    row = {"messages": turns, "system": "Be brief.", "system_prompt": "Be brief.", "id": 1, "idx": 2, "model": "m"}
    assert made({**row, "temperature": 1.0}, "conversations").messages == (Message("system", "Be brief."), ASK, RED)
    with pytest.raises(BadRow, match="weight and train differ"):
        made({"messages": [USER, {**GOOD, "weight": 1, "train": False}]}, "conversations")


def test_no_name_has_two_meanings():
    for table in (OF_ROWS, OF_MESSAGES):
        names = [name for key in table for name in key.spellings]
        assert len(set(names)) == len(names)
        assert all(key.name == key.spellings[0] for key in table)


def test_a_text_says_nothing_else():
    unread = Unread(reads())
    unread.add({"text": "a", "system": "b", "source": "c", "": "0"}, "text")
    assert unread.lines() == ["not read: system (1 rows), a column without a name (1 rows)"]
