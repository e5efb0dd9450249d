"""Messages as a recipe wants them: system, same_role, first_assistant and thoughts of the data section."""

from __future__ import annotations

import pytest

from align.sections import Data
from align.text.load import load
from align.text.messages import UNASKED, Handling, answerable, handled, messages_of
from align.text.records import Message
from align.text.values import BadRow

S, S2 = Message("system", "Be brief."), Message("system", "Be kind.")
U, U2 = Message("user", "Hi"), Message("user", "Again")
A, A2 = Message("assistant", "Hello"), Message("assistant", "Bye")
TOOLS = Message("tools", "[]")
CALL = '[{{"type": "function", "function": {{"name": "{}", "arguments": {{}}}}}}]'


def changed(turns, answers=(), **how):
    return handled(tuple(turns), tuple(answers), Handling(**how))[:2]


@pytest.mark.parametrize(
    ("how", "turns", "after"),
    [
        ({}, [A, S, U, U2], [A, S, U, U2]),
        ({"system": "drop"}, [TOOLS, S, U, A, S2, U2], [TOOLS, U, A, U2]),
        ({"system": "merge"}, [S, U], [Message("user", "Be brief.\n\nHi")]),
        (
            {"system": "merge"},
            [TOOLS, S, S2, U, A, S, U2],
            [TOOLS, Message("user", "Be brief.\n\nBe kind.\n\nHi"), A, Message("user", "Be brief.\n\nAgain")],
        ),
        ({"same_role": "join"}, [U, U2, A, U], [Message("user", "Hi\n\nAgain"), A, U]),
        ({"same_role": "join"}, [S, S2, U], [Message("system", "Be brief.\n\nBe kind."), U]),
        ({"same_role": "join"}, [U, Message("tool", "1"), Message("tool", "2")], None),
        ({"system": "merge", "same_role": "join"}, [U, S, U2], [Message("user", "Hi\n\nBe brief.\n\nAgain")]),
        ({"first_assistant": "drop"}, [S, A, A2, U, A, U2], [S, U, A, U2]),
        ({"first_assistant": "drop"}, [U, A, U2], None),
        ({"thoughts": "drop"}, [U, A._replace(thoughts="Hm."), U2], [U, A, U2]),
        (
            {"thoughts": "inline"},
            [U, A._replace(thoughts="Hm."), A2, U2],
            [U, Message("assistant", "<think>\nHm.\n</think>\n\nHello"), A2, U2],
        ),
    ],
)
def test_turns_are_changed(how, turns, after):
    assert changed(turns, [A2], **how) == (tuple(turns if after is None else after), (A2,))


def test_an_answer_is_joined_with_what_stands_before_it():
    assert changed([U, A], [A2, A], same_role="join") == (
        (U,),
        (Message("assistant", "Hello\n\nBye"), Message("assistant", "Hello\n\nHello")),
    )


def test_calls_and_thoughts_are_joined_too():
    one = Message("assistant", "", thoughts="a", calls=CALL.format("f"))
    other = Message("assistant", "Hello", thoughts="b", calls=CALL.format("g"))
    (_, joined), _ = changed([U, one, other], same_role="join")
    assert joined.content == "Hello"
    assert joined.thoughts == "a\n\nb"
    assert joined.calls == CALL.format("f")[:-1] + ", " + CALL.format("g")[1:]


@pytest.mark.parametrize(
    ("how", "turns", "said"),
    [
        ({"same_role": "join"}, [U, A, A2._replace(learned=False)], "cannot be joined"),
        ({"system": "merge"}, [U, A, S], "no user message follows the system message"),
    ],
)
def test_what_cannot_be_changed(how, turns, said):
    with pytest.raises(BadRow, match=said):
        changed(turns, **how)


def test_two_answers_in_a_row_name_the_remedy():
    with pytest.raises(BadRow, match=r"this one ends with assistant; data\.same_role=join"):
        answerable((U, A))
    assert answerable((U, A, Message("tool", "7")))


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "user", "from": "gpt", "content": "a"}, "role and from differ"),
        ({"role": "user", "content": "a", "value": "b"}, "content and value differ"),
    ],
)
def test_a_turn_that_says_two_things(turn, said):
    with pytest.raises(BadRow, match=rf"message 1 of messages \(user\): {said}"):
        messages_of([turn], "messages")
    assert messages_of([{"role": "user", "from": "human", "content": "a", "value": "a"}], "messages")[0].content == "a"


def test_a_quick_look_reads_what_a_long_one_does():
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    longer = [{"from": turn["role"], "value": f" {turn['content']}\n", "id": 1} for turn in plain]
    assert messages_of(plain, "messages") == messages_of(longer, "messages") == (S, U)


def test_an_empty_system_turn_is_none():
    for empty in ("", " ", None):
        said = [{"role": "system", "content": empty or ""}, {"role": "user", "content": "Hi"}]
        assert messages_of(said, "messages") == (U,)


def test_in_training_and_validation_counted(write):
    turns = [turn.as_dict() for turn in (S, U, U2, A2._replace(thoughts="Hm."))]
    path = write("a.jsonl", [{"messages": turns, "system": "Be brief."}] * 2)
    how = {"system": "merge", "same_role": "join", "thoughts": "drop"}
    for kind in ("conversations", "prompts", "answers"):
        loaded = load(Data(path=path, validation=path, **how), kind, 1)
        for record in (*loaded.train, *loaded.validation):
            turns = record.prompt if kind == "answers" else record.messages
            assert turns[0] == Message("user", "Be brief.\n\nHi\n\nAgain")
        assert loaded.report.lines()[1:4] == [
            "  2 rows: a system message was merged into the next user message (data.system=merge)",
            "  2 rows: consecutive messages of one role were joined (data.same_role=join)",
            "  2 rows: thoughts were left out (data.thoughts=drop)",
        ]


@pytest.mark.parametrize(("turns", "n"), [([S, A, U, A2], 1), ([A, U, A2], 1), ([S, U, A], 0), ([U, A], 0)])
def test_an_answer_that_nobody_asked_for_is_counted(write, turns, n):
    path = write("rows.jsonl", [{"messages": [turn.as_dict() for turn in turns]}])
    (source,) = load(Data(path=path, validation=0), "conversations", 1).report.sources
    assert source.notes == ({UNASKED: 1} if n else {})
