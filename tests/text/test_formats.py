"""Every format: what is recognised, what becomes of a row, and what is said of a bad one."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from align.errors import UserError
from align.sections import Data, Format
from align.text.extra_keys import BAD_ANSWER
from align.text.formats import LAYOUTS, MAKERS, check_columns, check_kind, make, map_columns, parts_of, recognise
from align.text.keys import yes_or_no
from align.text.load import load
from align.text.messages import Handling
from align.text.parsers import (
    AFTER_ANSWER,
    DIFFER_EARLIER,
    EMPTY_TURN,
    NO_SHARED_PROMPT,
    REPEATED,
    SAME_ANSWER,
    TRANSCRIPT,
    BadRow,
    LeftOut,
)
from align.text.records import Answers, Conversation, Document, Message, Prompt, Ranking
from align.text.rows import Cell


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
ASK = Message("user", "Name a colour.")
HH = "\n\nHuman: Name a colour.\n\nAssistant: {}"
SHARE = [{"from": "human", "value": "Name a colour."}]

# Every row asks for a colour; the (best) answer is Red, the other one Blue.
ROWS = {
    "prompt_completion": {"prompt": "Name a colour.", "completion": " Red"},
    "prompt_completion, messages": {"prompt": [user("Name a colour.")], "completion": [assistant("Red")]},
    "prompt_completion, string and messages": {"prompt": "Name a colour.", "completion": [assistant("Red")]},
    "messages": {"messages": [user("Name a colour."), assistant("Red")], "id": 7},
    "messages, in parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Name a colour."}]}, assistant("Red")]
    },
    "alpaca": {"instruction": "Name a colour.", "output": "Red", "text": "Below is an instruction."},
    "alpaca, no input": {"instruction": "Name a colour.", "input": " ", "output": "Red"},
    "sharegpt": {"conversations": [*SHARE, {"from": "gpt", "value": "Red"}]},
    "question_answer": {"question": "Name a colour.", "answer": "Red"},
    "sharegpt_preference": {
        "conversations": SHARE,
        "chosen": {"from": "gpt", "value": "Red"},
        "rejected": {"from": "gpt", "value": "Blue"},
    },
    "hh": {"chosen": HH.format("Red"), "rejected": HH.format("Blue")},
    "hh, prompt apart": {"prompt": HH.format(""), "chosen": " Red", "rejected": " Blue"},
    "preference": {"prompt": "Name a colour.", "chosen": "Red", "rejected": "Blue"},
    "preference, implicit": {"chosen": "Name a colour. Red", "rejected": "Name a colour. Blue"},
    "preference, messages": {
        "prompt": [user("Name a colour.")],
        "chosen": [assistant("Red")],
        "rejected": [assistant("Blue")],
    },
    "preference, implicit messages": {
        "chosen": [user("Name a colour."), assistant("Red")],
        "rejected": [user("Name a colour."), assistant("Blue")],
    },
    "preference, messages that repeat the prompt": {
        "prompt": "Name a colour.",
        "chosen": [user("Name a colour."), assistant("Red")],
        "rejected": [user("Name a colour."), assistant("Blue")],
        "messages": [user("Name a colour."), assistant("Red")],
    },
    "preference, null prompt": {"prompt": None, "chosen": "Name a colour. Red", "rejected": "Name a colour. Blue"},
    "ranking": {"prompt": "Name a colour.", "responses": ["Blue", "Red"], "ranks": [2, 1]},
    "ranking, in a CSV": {"prompt": "Name a colour.", "responses": Cell('["Blue", "Red"]'), "ranks": Cell("[2, 1]")},
}
ROWS |= {
    "dolly": {"instruction": "Name a colour.", "context": "", "response": "Red", "category": "open_qa"},
    "ranking, scores": {"prompt": "Name a colour.", "responses": ["Blue", "Red"], "scores": [0.5, 2]},
    "arena": {
        "conversation_a": [user("Name a colour."), assistant("Blue")],
        "conversation_b": [user("Name a colour."), assistant("Red")],
        "winner": "model_b",
    },
    "arena_pairs": {"prompt": "Name a colour.", "response_a": "Red", "response_b": "Blue", "winner": "model_a"},
    "arena_pairs, flags": {
        "prompt": ["Name a colour."],
        "response_a": ["Blue"],
        "response_b": ["Red"],
        "winner_model_a": 0,
        "winner_model_b": 1,
        "winner_tie": 0,
    },
    "shp": {"history": "Name a colour.", "human_ref_A": "Red", "human_ref_B": "Blue", "labels": 1},
    "helpsteer2": {
        "prompt": "Name a colour.",
        "response_1": "Blue",
        "response_2": "Red",
        "preference_strength": 2,
    },
    "helpsteer3": {
        "context": [user("Name a colour.")],
        "response1": "Red",
        "response2": "Blue",
        "overall_preference": -1,
    },
}
ORDERED = [name for name in ROWS if "rankings" in LAYOUTS[name.split(",")[0]].kinds]


def made(row, kind, columns=None):
    """The record in a row whose format is recognised, and its note."""
    row = map_columns(row, columns or {})
    return make(row, recognise(row, kind, "here"), kind, "here")


def test_every_format_of_a_recipe_is_there():
    assert {*LAYOUTS, "auto"} == set(get_args(Format))


@pytest.mark.parametrize("name", ROWS)
def test_recognised(name):
    assert recognise(ROWS[name], "conversations", "here") == name.split(",")[0]


@pytest.mark.parametrize("name", ROWS)
def test_conversations_take_the_best_answer(name):
    record, note = made(ROWS[name], "conversations")
    assert record == Conversation((ASK, Message("assistant", "Red")), "here")
    assert note == ()


@pytest.mark.parametrize("name", ROWS)
def test_prompts_are_what_comes_before_the_last_answer(name):
    assert made(ROWS[name], "prompts")[0] == Prompt((ASK,), "here")


@pytest.mark.parametrize("name", [name for name in ROWS if name != "alpaca"])
def test_documents_are_the_turns_with_blank_lines_between(name):
    assert made(ROWS[name], "documents")[0] == Document("Name a colour.\n\nRed", "here")


def test_a_text_column_is_the_document_whatever_else_there_is():
    assert made(ROWS["alpaca"], "documents")[0] == Document("Below is an instruction.", "here")
    assert made({"text": "  as it is \n"}, "documents")[0] == Document("  as it is \n", "here")


@pytest.mark.parametrize("name", ORDERED)
def test_rankings(name):
    ranking, _ = made(ROWS[name], "rankings")
    assert ranking.prompt == (ASK,)
    assert sorted(zip(ranking.ranks, ranking.responses, strict=True)) == [(1, "Red"), (2, "Blue")]


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ORDERED])
def test_rankings_cannot_be_made_without_an_order(name):
    with pytest.raises(UserError, match=r"here: the format .* has no rankings; formats that have are ranking, "):
        check_kind(recognise(ROWS[name], "rankings", "here"), "rankings", "here")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("text", {"documents"}), ("prompt", {"documents", "prompts"}), ("messages", set(MAKERS) - {"rankings"})],
)
def test_which_kinds_a_format_can_become(name, kinds):
    for kind in MAKERS:
        if kind in kinds:
            check_kind(name, kind, "here")
        else:
            with pytest.raises(UserError, match=f"the format {name} has no {kind}"):
                check_kind(name, kind, "here")


def test_more_than_two_answers_with_ties_and_an_annotator():
    row = {
        "prompt": [SYSTEM, user("Hi")],
        "responses": ["a", "b ", "", "d"],
        "ranks": [2, 0, 7.0, 2],
        "annotator": "ann",
    }
    prompt = (Message("system", "Be brief."), Message("user", "Hi"))
    assert made(row, "rankings")[0] == Ranking(prompt, ("a", "b", "", "d"), (2, 1, 3, 2), "ann", "here")
    assert made(row, "conversations")[0].messages[-1] == Message("assistant", "b")


@pytest.mark.parametrize("name", ROWS)
def test_answers_are_all_that_there_are(name):
    answers, _ = made(ROWS[name], "answers")
    assert answers.prompt == (ASK,)
    assert dict(zip(answers.responses, answers.ranks or (1,), strict=True)) == (
        {"Red": 1, "Blue": 2} if name in ORDERED else {"Red": 1}
    )


def test_answers_need_no_ranks_to_be_scored():
    row = {"prompt": "Hi", "responses": ["a ", ""], "model": "m"}
    assert made(row, "answers")[0] == Answers((Message("user", "Hi"),), ("a", ""), (), "here")
    with pytest.raises(BadRow, match="this row has no answer"):
        made(row, "conversations")  # nobody has said yet which one is good
    for responses in ("a", [1, 2], []):
        with pytest.raises(BadRow, match="this row has no answer to score"):
            made(row | {"responses": responses}, "answers")


def test_every_row_with_an_order_may_name_annotator_source_and_margin():
    besides = {"annotator": 7, "source": "helpful", "margin": 2}
    for name in ORDERED:
        ranking, _ = made({**ROWS[name], **besides}, "rankings")
        assert (ranking.annotator, ranking.origin, ranking.margin) == ("7", "helpful", 2.0)
        assert ranking.source == "here"
    plain, _ = made({**ROWS["preference"], "annotator": None, "margin": None}, "rankings")
    assert (plain.annotator, plain.origin, plain.margin) == ("", "", None)


def test_marks_and_margins_may_stand_in_a_cell():
    for mark, said in (("1.0", True), ("True", True), ("0.0", False), ("nan", None)):
        assert yes_or_no(Cell(mark)) is said
    assert made({**ROWS["preference"], "margin": Cell("1.5")}, "rankings")[0].margin == 1.5
    assert made({**ROWS["preference"], "margin": Cell("")}, "rankings")[0].margin is None


@pytest.mark.parametrize("margin", [-1, "large", "1.5", True, float("nan"), float("inf"), 10**400, Cell("1e999")])
def test_a_margin_is_a_number_from_0_on(margin):
    with pytest.raises(BadRow, match="margin must be a number of at least 0"):
        made({**ROWS["preference"], "margin": margin}, "rankings")


def test_answers_without_ranks_are_prompts():
    row = {"prompt": "Hi", "responses": ["a", "b"], "ranks": None}
    assert made(row, "prompts")[0] == Prompt((Message("user", "Hi"),), "here")
    with pytest.raises(BadRow, match="these answers have no ranks"):
        made(row, "rankings")


def test_a_prompt_alone():
    for prompt in ("Hi", [user("Hi")]):
        assert made({"prompt": prompt}, "prompts")[0] == Prompt((Message("user", "Hi"),), "here")
    assert made({"prompt": "Hi"}, "documents")[0] == Document("Hi", "here")


def test_alpaca_with_an_input_a_system_turn_and_a_history():
    row = {"instruction": "Add.", "input": "2 and 2", "output": "4", "system": "Count.", "history": [["Hi", "Hello"]]}
    turns = [
        ("system", "Count."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Add.\n\n2 and 2"),
        ("assistant", "4"),
    ]
    assert made(row, "conversations")[0].messages == tuple(Message(*turn) for turn in turns)


def test_a_history_may_be_turns():
    row = {"instruction": "c", "output": "d", "input": math.nan, "system": None, "history": [user("a"), assistant("b")]}
    assert [turn.content for turn in made(row, "conversations")[0].messages] == list("abcd")


@pytest.mark.parametrize(
    "history", ["none", [["a", "b", "c"]], [user("a")], [user("a"), user("b")], [None], {"a": "b"}]
)
def test_a_history_that_is_no_list_of_pairs(history):
    with pytest.raises(BadRow, match=r"history must be a list of \[question, answer\], found"):
        made({"instruction": "c", "output": "d", "history": history}, "conversations")


@pytest.mark.parametrize("name", ["prompt", "prompt_completion", "preference", "ranking"])
def test_a_transcript_in_the_prompt_is_turns_in_every_format(name):
    rows = {"prompt": {}, "prompt_completion": {"completion": "d"}, "preference": {"chosen": "d", "rejected": "e"}}
    rows["ranking"] = {"responses": ["d", "e"], "ranks": [1, 2]}
    row = {"prompt": "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", **rows[name]}
    record, note = make(row, name, "prompts", "here")
    assert [(turn.role, turn.content) for turn in record.messages] == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert note == (TRANSCRIPT,)


def test_several_turns_are_kept():
    turns = [SYSTEM, user("a"), assistant("b"), user("c"), assistant("d")]
    assert [turn.content for turn in made({"messages": turns}, "conversations")[0].messages[1:]] == list("abcd")
    assert [turn.content for turn in made({"messages": turns}, "prompts")[0].messages[1:]] == list("abc")


def test_turns_that_end_with_the_user():
    row = {"messages": [user("a"), assistant("b"), user("c")]}
    assert [turn.content for turn in made(row, "prompts")[0].messages] == list("abc")
    record, note = made(row, "conversations")
    assert [turn.content for turn in record.messages] == list("ab")
    assert note == (AFTER_ANSWER,)


def test_columns_can_be_mapped():
    row = {"question": "Name a colour.", "best": "Red", "worst": "Blue", "id": 3}
    columns = {"prompt": "question", "chosen": "best", "rejected": "worst"}
    assert made(row, "rankings", columns)[0] == Ranking((ASK,), ("Red", "Blue"), (1, 2), "", "here")
    with pytest.raises(UserError, match="maps prompt to query, but the file's columns are question, best, worst, id"):
        check_columns(row, {"prompt": "query"}, "here")


def test_unknown_columns_tell_what_was_found_and_what_exists():
    with pytest.raises(UserError) as caught:
        recognise({"query": "a", "reply": "b"}, "conversations", "data.csv:2")
    said = str(caught.value)
    assert said.startswith("data.csv:2: no format has the columns query, reply; map them with data.columns")
    assert "  preference: chosen, rejected" in said
    assert "  alpaca: instruction, output" in said


class TestTranscripts:
    """HH-RLHF: the shared turns are the prompt, the first answers that differ are compared."""

    def test_several_turns(self):
        shared = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: "
        ranking, note = made({"chosen": shared + "d", "rejected": shared + "e"}, "rankings")
        assert [turn.content for turn in ranking.prompt] == list("abc")
        assert (ranking.responses, note) == (("d", "e"), ())

    def test_more_than_the_last_turn_differs(self):
        row = {"chosen": HH.format("Red\n\nHuman: x\n\nAssistant: y"), "rejected": HH.format("Blue")}
        assert made(row, "rankings") == (Ranking((ASK,), ("Red", "Blue"), (1, 2), "", "here"), (DIFFER_EARLIER,))

    def test_a_human_turn_at_the_end_is_left_out(self):
        row = {"chosen": HH.format("Red\n\nHuman: thanks"), "rejected": HH.format("Blue")}
        assert made(row, "rankings") == (Ranking((ASK,), ("Red", "Blue"), (1, 2), "", "here"), (AFTER_ANSWER,))

    def test_the_same_answer_twice_is_a_tie(self):
        row = {"chosen": HH.format("Red"), "rejected": HH.format("Red")}
        assert made(row, "rankings") == (Ranking((ASK,), ("Red", "Red"), (1, 1), "", "here"), (SAME_ANSWER,))

    @pytest.mark.parametrize(
        ("chosen", "rejected"),
        [
            ("\n\nHuman: a\n\nAssistant: x", "\n\nHuman: b\n\nAssistant: y"),
            (HH.format("Red"), HH.format("Red\n\nHuman: x\n\nAssistant: y")),
        ],
        ids=["another question", "one goes on"],
    )
    def test_no_two_answers_to_one_prompt(self, chosen, rejected):
        with pytest.raises(LeftOut, match=NO_SHARED_PROMPT):
            made({"chosen": chosen, "rejected": rejected}, "rankings")

    def test_words_before_the_first_turn_are_not_dropped(self):
        with pytest.raises(
            BadRow, match=r'a transcript must begin with "Human:", found "Be brief.*remove the text before it'
        ):
            made({"chosen": HH.format("Red"), "rejected": "Be brief." + HH.format("Blue")}, "rankings")

    def test_nor_where_they_begin_the_first_row(self):
        row = {"chosen": "Be brief." + HH.format("Red"), "rejected": "Be brief." + HH.format("Blue")}
        assert recognise(row, "rankings", "here") == "hh"
        with pytest.raises(BadRow, match="remove the text before it"):
            made({"prompt": "Be brief." + HH.format(""), "completion": "Red"}, "conversations")

    def test_messages_may_answer_a_transcript(self):
        row = {"prompt": HH.format(""), "chosen": [assistant("Red")], "rejected": [assistant("Blue")]}
        assert made(row, "rankings")[0] == Ranking((ASK,), ("Red", "Blue"), (1, 2), "", "here")

    def test_a_prompt_column_that_the_transcripts_repeat(self):
        row = {"prompt": HH.format(""), "chosen": HH.format("Red"), "rejected": HH.format("Blue")}
        assert made(row, "rankings")[0] == Ranking((ASK,), ("Red", "Blue"), (1, 2), "", "here")

    def test_an_empty_turn(self):
        with pytest.raises(LeftOut, match=EMPTY_TURN):
            made({"chosen": HH.format("Red"), "rejected": HH.format("")}, "rankings")

    def test_two_turns_of_one_speaker_are_one(self):
        asked = "\n\nHuman: a\n\nHuman: b\n\nAssistant: "
        ranking, _ = made({"chosen": asked + "c", "rejected": asked + "d"}, "rankings")
        assert ranking.prompt == (Message("user", "a\n\nb"),)

    def test_a_word_with_a_colon_is_no_turn(self):
        ranking, _ = made({"chosen": HH.format("Red: Human: x"), "rejected": HH.format("Blue")}, "rankings")
        assert ranking.responses[0] == "Red: Human: x"


def test_the_shared_beginning_of_strings_is_cut_to_whole_words():
    ranking, _ = made({"chosen": "The sky is bright blue", "rejected": "The sky is brown"}, "rankings")
    assert ranking.prompt == (Message("user", "The sky is"),)
    assert ranking.responses == ("bright blue", "brown")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "answers"),
    [
        ("Name a colour.", "Name a colour. Red", "Name a colour.\nBlue", ("Red", "Blue")),
        ("Name a colour", "Name a colour Red", "Name a colour Blue", ("Red", "Blue")),
        ("Name a colour", "Name a colourful bird", "Name a colour Blue", None),
        ("Name a colour.", "Name a colour. Red", "Blue", None),
        ("Red", "Red it is", "Red or blue", None),
    ],
)
def test_answers_that_both_repeat_the_prompt_lose_it(prompt, chosen, rejected, answers):
    ranking, note = made({"prompt": prompt, "chosen": chosen, "rejected": rejected}, "rankings")
    assert ranking.responses == (answers or (chosen, rejected))
    assert note == ((REPEATED,) if answers else ())


def test_code_after_a_shared_beginning_keeps_its_indentation():
    both = [f"def f():\n    x = {n}\n    return x\n" for n in (1, 2)]
    ranking, _ = made({"chosen": both[0], "rejected": both[1].replace("x", "y")}, "rankings")
    assert ranking.prompt == (Message("user", "def f():"),)
    assert ranking.responses == ("    x = 1\n    return x", "    y = 2\n    return y")


def test_messages_that_differ_before_the_last_turn_are_handled_as_transcripts_are():
    chosen = [user("a"), assistant("b"), user("c"), assistant("d")]
    rejected = [user("a"), assistant("x"), user("y"), assistant("z")]
    ranking, note = made({"chosen": chosen, "rejected": rejected}, "rankings")
    assert (ranking.prompt, ranking.responses) == ((Message("user", "a"),), ("b", "x"))
    assert note == (DIFFER_EARLIER,)


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("documents", {"text": " "}, "text is empty"),
        ("documents", {"text": 3}, "text must be a string, found 3"),
        ("documents", {"text": "\ud800"}, "text is not valid Unicode"),
        ("prompts", {"prompt": 3}, "prompt must be a string or a list of messages, found 3"),
        ("prompts", {"prompt": ""}, "prompt is empty"),
        ("prompts", {"prompt": None}, "prompt is null"),
        ("prompts", {"prompt": []}, r"prompt must be a list of messages, found \[\]"),
        ("prompts", {"prompt": [SYSTEM]}, "must end with a user or tool message; this one ends with system"),
        ("prompts", {"prompt": [user("a"), assistant("b")]}, "this one ends with assistant"),
        ("conversations", {"prompt": "a", "completion": ""}, "completion is empty"),
        ("conversations", {"prompt": "a", "completion": [user("a")]}, "this row has no answer"),
        ("conversations", {"messages": [user("a")]}, "this row has no answer"),
        ("conversations", {"messages": [assistant("a")]}, "must end with a user or tool message; this one is empty"),
        ("conversations", {"messages": "a"}, 'messages must be a list of messages, found "a"'),
        ("conversations", {"messages": ["a"]}, "message 1 of messages must be an object with role and content"),
        (
            "conversations",
            {"messages": [user("a"), {"role": "judge", "content": "b"}]},
            'message 2 of messages has the role "judge"',
        ),
        (
            "conversations",
            {"messages": [user("a"), {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
            r"message 2 of messages \(assistant\): tool_calls must be objects with a named function",
        ),
        ("conversations", {"messages": [user("a"), assistant(" ")]}, r"message 2 of messages \(assistant\) is empty"),
        (
            "conversations",
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, assistant("b")]},
            "message 1 of messages has content that is not text",
        ),
        ("conversations", {"instruction": "a", "output": ""}, "output is empty"),
        ("conversations", {"instruction": "a", "input": "b", "output": None}, "output is null"),
        (
            "conversations",
            {"conversations": [{"from": "human"}]},
            r"message 1 of conversations \(human\) has no content",
        ),
        ("conversations", {"question": "", "answer": "b"}, "question is empty"),
        ("rankings", {"prompt": "a", "chosen": "b", "rejected": ""}, "rejected is empty"),
        ("rankings", {"prompt": "a", "chosen": "b", "rejected": [assistant("c")]}, "both be strings or both lists"),
        ("rankings", {"prompt": "a", "chosen": 1, "rejected": 2}, "must be a list of messages, found 1"),
        ("rankings", {"chosen": "Red", "rejected": "Blue"}, "add a prompt column"),
        ("rankings", {"conversations": SHARE, "chosen": SHARE[0], "rejected": SHARE[0]}, "no assistant message"),
        ("rankings", {"prompt": "a", "responses": ["b"], "ranks": [1]}, r"at least 2 answers, found \[\"b\"\]"),
        ("rankings", {"prompt": "a", "responses": "b", "ranks": [1]}, 'at least 2 answers, found "b"'),
        ("rankings", {"prompt": "a", "responses": ["b", "c"], "ranks": [1]}, "2 responses need as many ranks"),
        ("rankings", {"prompt": "a", "responses": ["b", "c"], "ranks": ["1", 2]}, 'a whole number, found "1"'),
        ("rankings", {"prompt": "a", "responses": ["b", "c"], "ranks": [1.5, 2]}, "a whole number, found 1.5"),
        ("rankings", {"prompt": "a", "responses": ["b", "c"], "ranks": [True, 2]}, "a whole number, found true"),
        ("rankings", {"prompt": "a", "responses": ["b", "c"], "ranks": [float("nan"), 2]}, "a whole number, found NaN"),
        (
            "rankings",
            {"prompt": "a", "responses": ["b", None], "ranks": [1, 2]},
            "response must be a string, found null",
        ),
        ("conversations", {"prompt": "a", "responses": ["", "c"], "ranks": [1, 2]}, "the best answer is empty"),
    ],
)
def test_bad_rows(kind, row, said):
    with pytest.raises(BadRow, match=said):
        made(row, kind)


def test_a_named_format_asks_for_its_columns():
    with pytest.raises(BadRow, match="no column 'messages'; the columns are prompt, completion"):
        make(ROWS["prompt_completion"], "messages", "conversations", "here")
    with pytest.raises(BadRow, match='a transcript must begin with "Human:", found "Red"'):
        make({"chosen": "Red", "rejected": "Blue"}, "hh", "rankings", "here")


class TestVerdicts:
    """Arena, SHP and HelpSteer say in their own ways which of two answers is better."""

    @pytest.mark.parametrize(
        ("name", "verdict", "ranks"),
        [
            ("arena", {"winner": "model_a"}, (1, 2)),
            ("arena", {"winner": "tie"}, (1, 1)),
            ("arena", {"winner": "tie (bothbad)"}, (1, 1)),
            ("arena", {"winner": "both_bad"}, (1, 1)),
            ("arena_pairs, flags", {"winner_model_b": "0", "winner_tie": "1"}, (1, 1)),
            ("shp", {"labels": 0}, (2, 1)),
            ("helpsteer2", {"preference_strength": 0}, (1, 1)),
            ("helpsteer2", {"preference_strength": Cell("-3")}, (1, 2)),
            ("helpsteer3", {"overall_preference": 1}, (2, 1)),
        ],
    )
    def test_ties_and_either_side(self, name, verdict, ranks):
        assert made({**ROWS[name], **verdict}, "rankings")[0].ranks == ranks

    @pytest.mark.parametrize(
        ("name", "verdict", "said"),
        [
            ("arena", {"winner": "nobody"}, 'winner must be model_a, model_b or tie, found "nobody"'),
            ("arena_pairs", {"winner": 1}, "winner must be model_a, model_b or tie, found 1"),
            ("arena_pairs, flags", {"winner_tie": 1}, "one of winner_model_a, winner_model_b and winner_tie must be 1"),
            ("arena_pairs, flags", {"response_b": ["Red", "Blue"]}, "1 prompts need as many answers, found 1 and 2"),
            ("shp", {"labels": 2}, r"labels must be 1 \(human_ref_A is better\) or 0, found 2"),
            ("helpsteer2", {"preference_strength": None}, "preference_strength is null"),
            ("helpsteer3", {"overall_preference": "much"}, 'overall_preference must be a number, found "much"'),
            ("ranking, scores", {"scores": [1]}, r"2 responses need as many scores, found \[1\]"),
            ("ranking, scores", {"scores": [1, None]}, "a score must be a number, found null"),
            ("dolly", {"response": ""}, "response is empty"),
        ],
    )
    def test_bad_ones(self, name, verdict, said):
        with pytest.raises(BadRow, match=said):
            made({**ROWS[name], **verdict}, "answers")

    @pytest.mark.parametrize("name", ["arena", "arena_pairs"])
    def test_two_bad_answers_are_no_demonstration(self, name):
        row = {**ROWS[name], "winner": "tie (bothbad)"}
        for kind in ("conversations", "documents"):
            with pytest.raises(LeftOut, match=BAD_ANSWER):
                made(row, kind)
        assert made(row, "answers")[0].good is False

    def test_answers_that_nobody_has_judged_yet(self):
        row = {"prompt": "a", "response_a": "b", "response_b": "c"}
        assert made(row, "answers")[0] == Answers((Message("user", "a"),), ("b", "c"), (), "here")
        assert made(row, "prompts")[0].messages == (Message("user", "a"),)
        with pytest.raises(BadRow, match="these answers have no ranks"):
            made(row, "rankings")

    def test_scores_against_the_label_are_no_margin(self):
        row = {**ROWS["shp"], "score_A": 1, "score_B": 3}
        with pytest.raises(BadRow, match="the better answer has the lower score"):
            make(row, "shp", "rankings", "here", Handling(margins="scores"))

    def test_strengths_are_margins(self):
        assert made(ROWS["helpsteer2"], "rankings")[0].margin == 2
        assert made(ROWS["helpsteer3"], "rankings")[0].margin == 1

    def test_equal_scores_are_ties(self):
        row = {"prompt": "a", "responses": ["b", "c", "d"], "scores": [1, 3.5, 1]}
        assert made(row, "rankings")[0].ranks == (2, 1, 2)
        assert made({**row, "ranks": [1, 2, 3]}, "rankings")[0].ranks == (1, 2, 3)

    def test_the_same_answer_twice_is_a_tie(self):
        row = {**ROWS["shp"], "human_ref_B": "Red"}
        assert made(row, "rankings") == (Ranking((ASK,), ("Red", "Red"), (1, 1), "", "here"), (SAME_ANSWER,))

    def test_several_turns_of_a_battle(self):
        row = {"prompt": ["a", "b"], "response_a": ["x", "y"], "response_b": ["x", "z"], "winner": "model_b"}
        ranking, _ = made(row, "rankings")
        assert [turn.content for turn in ranking.prompt] == ["a", "x", "b"]
        assert (ranking.responses, ranking.ranks) == (("y", "z"), (2, 1))

    def test_a_prompt_with_another_answer_names_the_remedy(self):
        row = {"prompt": "Name a colour.", "response": "Red"}
        with pytest.raises(UserError, match=r"map the column with the answer, such as data.columns={completion: resp"):
            check_kind(recognise(row, "conversations", "here"), "conversations", "here")

    def test_rated_answers_are_scored_and_not_learned(self):
        row = {"prompt": "Name a colour.", "response": "Red", "helpfulness": 4}
        assert made(row, "answers")[0] == Answers((ASK,), ("Red",), (), "here")
        with pytest.raises(
            UserError, match=r"have ratings, but no label good or bad. data.columns={completion: response}"
        ):
            check_kind(recognise(row, "conversations", "here"), "conversations", "here")
        assert made(row, "conversations", {"completion": "response"})[0].messages[1].content == "Red"


def reply(text, rank=None, replies=(), role="assistant", **more):
    return {"text": text, "role": role, "rank": rank, "replies": list(replies), "deleted": False, **more}


FOLLOWED = reply("b", 0, [reply("c", None, [reply("f", 1), reply("e", 0)], "prompter")])
GONE = [reply("x", 2, deleted=True), reply("y", None, review_result=False)]
ASKED = reply("a", None, [reply("d", 1), FOLLOWED, *GONE], "prompter")
TREE = {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": ASKED}


class TestTrees:
    """OpenAssistant: ranked replies and best paths."""

    def records(self, kind, tree):
        name = recognise(tree, kind, "here")
        return [make(part, name, kind, "here")[0] for part in parts_of(tree, name, kind)]

    def test_the_best_path(self):
        (record,) = self.records("conversations", TREE)
        assert [turn.content for turn in record.messages] == ["a", "b", "c", "e"]
        (record,) = self.records("prompts", TREE)
        assert [turn.content for turn in record.messages] == ["a", "b", "c"]

    def test_ranked_replies(self):
        first, second = self.records("rankings", TREE)
        assert (first.prompt, first.responses, first.ranks) == ((Message("user", "a"),), ("b", "d"), (1, 2))
        assert [turn.content for turn in second.prompt] == ["a", "b", "c"]
        assert (second.responses, second.ranks) == (("e", "f"), (1, 2))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"tree_state": "aborted_low_grade"}, "not ready for export"),
            ({"prompt": reply("a", role="prompter")}, "no reply that was kept, or no two ranked ones"),
            ({"prompt": reply("a", None, [reply("b")], "prompter", deleted=True)}, "no reply that was kept"),
        ],
    )
    def test_trees_that_are_left_out(self, change, said):
        for kind in ("conversations", "rankings"):
            with pytest.raises(LeftOut, match=said):
                self.records(kind, TREE | change)

    def test_bad_trees(self):
        with pytest.raises(BadRow, match='prompt must be the first message of a tree, found "a"'):
            self.records("conversations", TREE | {"prompt": "a"})
        for replies, said in ((5, "replies must be a list of messages, found 5"), ([reply("b", "0")], "whole number")):
            for kind in ("conversations", "rankings"):
                with pytest.raises(BadRow, match=said):
                    self.records(kind, TREE | {"prompt": {**ASKED, "replies": replies}})
        with pytest.raises(BadRow, match=r"message 2 of messages .* is empty"):
            self.records("conversations", TREE | {"prompt": reply("a", None, [reply(" ")], "prompter")})

    def test_single_messages_are_refused(self):
        row = {"message_id": "2", "parent_id": "1", "text": "a", "role": "prompter", "rank": 0}
        with pytest.raises(UserError, match="use the file with one tree in each row"):
            recognise(row, "rankings", "here")

    def test_a_bad_tree_is_skipped_with_its_line(self, write):
        path = write("a.jsonl", [TREE, TREE | {"prompt": {**ASKED, "replies": 5}}])
        (broken,) = load(Data(path=path, validation=0, on_error="skip"), "rankings", 1).report.skipped
        assert broken.source.endswith(":2")

    def test_one_row_may_be_several_records(self, write):
        path = write("a.jsonl", [TREE, TREE | {"tree_state": "growing"}, TREE])
        loaded = load(Data(path=path, validation=0, limit=3), "rankings", 1)
        assert [record.source.rpartition(":")[2] for record in loaded.train] == ["1", "1", "3"]
        assert loaded.report.sources[0].left_out == {"the tree is not ready for export (tree_state)": 1}


@pytest.mark.parametrize("begun", ["\n    x = 1\n    y = 2", "     x = 1\n    y = 2"])
def test_code_in_a_transcript_keeps_its_indentation(begun):
    row = {"chosen": f"\n\nHuman: Hi\n\nAssistant:{begun}", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    assert made(row, "rankings")[0].responses == ("    x = 1\n    y = 2", "No.")


@pytest.mark.parametrize(
    ("asks", "answers"),
    [("prompt", "completion"), ("instruction", "output"), ("instruction", "response"), ("question", "answer")],
)
def test_transcripts_are_read_alike_in_every_column(asks, answers):
    row = {asks: "\n\nHuman: Hi\n\nAssistant: a\n\nHuman: Ho\n\nAssistant:", answers: "b"}
    record, notes = made(row, "conversations")
    assert [turn.content for turn in record.messages] == ["Hi", "a", "Ho", "b"]
    assert notes == (TRANSCRIPT,)
    with pytest.raises(BadRow, match="remove the text before it"):
        made({**row, asks: f"Be brief.{row[asks]}"}, "conversations")


@pytest.mark.parametrize("name", ["arena_pairs", "shp", "helpsteer2", "ranking"])
def test_transcripts_are_read_alike_in_comparisons(name):
    row = {**ROWS[name], LAYOUTS[name].asks: "\n\nHuman: Hi\n\nAssistant:"}
    record, notes = made(row, "rankings")
    assert (record.prompt, notes) == ((Message("user", "Hi"),), (TRANSCRIPT,))


def test_transcripts_are_read_alike_wherever_they_stand_in_a_file(write):
    said = "\n\nHuman: Hi\n\nAssistant:"
    apart = {"prompt": said, "chosen": " a", "rejected": " b"}
    whole = {"chosen": f"{said} a", "rejected": f"{said} b"}
    for row in (apart, whole, {**whole, "prompt": said}):
        path = write("a.jsonl", [{"prompt": "x", "chosen": "y", "rejected": "z"}, row])
        ranking = load(Data(path=path, validation=0), "rankings", 1).train[1]
        assert (ranking.prompt, ranking.responses) == ((Message("user", "Hi"),), ("a", "b"))


def test_turns_may_repeat_the_prompt_but_not_change_it():
    completion = [user("Hi"), assistant("a")]
    assert made({"prompt": "Hi", "completion": completion}, "conversations")[0].messages == (
        Message("user", "Hi"),
        Message("assistant", "a"),
    )
    row = {"chosen": [user("Hi"), assistant("a")], "rejected": [user("Hi"), assistant("b")]}
    assert len(made({**row, "prompt": [SYSTEM, user("Hi")]}, "rankings")[0].prompt) == 2
    with pytest.raises(BadRow, match=r'the messages do not contain the prompt.s last one, "Ho"'):
        made({**row, "prompt": "Ho"}, "rankings")


@pytest.mark.parametrize("name", ["question", "messages"])
def test_another_column_that_may_be_the_prompt(name):
    for row in (
        {"chosen": "The red", "rejected": "The blue"},
        {"chosen": [assistant("a")], "rejected": [assistant("b")]},
    ):
        asking = {**row, name: [user("Hi")] if name == "messages" else "Hi"}
        with pytest.raises(BadRow, match=rf"data.columns={{prompt: {name}}}, else data.columns="):
            made(asking, "rankings")
        assert made(asking, "rankings", {"prompt": name})[0].prompt == (Message("user", "Hi"),)
