"""Tokens and targets under every kind of chat template, with every family of tokenizers."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

import pytest

from align.errors import UserError
from align.text.encode import Encoded, decode_answer, encode_conversations, encode_prompt, encode_response
from align.text.records import Conversation, Message

from .kinds import BRIEF, CALL, CONVERSATIONS, KINDS, NAME, ONE, TOOLS, Rows, conversation_of, replaced, tokenizer_of
from .vocabularies import FAMILIES, NUMBERED

ROOM = 10_000
TWO_CALLS = json.dumps([*CALL, {"type": "function", "function": {"name": "time", "arguments": {}}}])


def stretches(tokenizer, row: Encoded) -> list[str]:
    """The stretches of targets, each as text."""
    found: list[list[int]] = []
    for place, token in enumerate(row.ids):
        if row.is_target[place]:
            if not (place and row.is_target[place - 1]):
                found.append([])
            found[-1].append(token)
    return [tokenizer.decode(ids) for ids in found]


def squeezed(text: str) -> str:
    """Without what the families write in their own ways: white space, and SentencePiece's sign for it."""
    return "".join(text.replace("▁", " ").split())


def as_read(family: str, rows: Rows) -> Rows:
    """Rows as a family decodes them."""
    if family == "bytes":
        return rows
    unknown = str.maketrans({"é": "<unk>", "日": "<unk>"} if family == "words" else {})
    return [[squeezed(text).translate(unknown) for text in row] for row in rows]


def theirs(name: str, family: str, turns: tuple[Message, ...], **options: Any) -> list[int]:
    """What transformers makes of turns that are given as the kind's template wants them."""
    kind, tools = KINDS[name], None
    turns = replaced(turns, kind.eos, "")
    if turns[0].role == "tools":
        tools, turns = json.loads(turns[0].content), turns[1:]
    given = [turn.as_dict() for turn in turns]
    for turn in given:
        if kind.parts:
            turn["content"] = [{"type": "text", "text": turn["content"]}]
        for call in turn.get("tool_calls", ()) if kind.json_arguments else ():
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    ids: list[int] = tokenizer_of(name, family).apply_chat_template(given, tools=tools, **options)["input_ids"]
    return ids


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_targets_and_tokens(family, name, conversation):
    kind, tokenizer, turns = KINDS[name], tokenizer_of(name, family), conversation_of(name, conversation)
    expected = kind.rows(conversation)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            encode_conversations(tokenizer, [Conversation(turns)], ROOM)
        return
    rows, _ = encode_conversations(tokenizer, [Conversation(turns)], ROOM)
    learned = [stretches(tokenizer, row) for row in rows]
    assert (learned if family == "bytes" else as_read(family, learned)) == as_read(family, expected)
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    for row, last in zip(rows, answers[-len(rows) :], strict=True):
        if not kind.cuts:
            whole = theirs(name, family, turns[: last + 1])
            if not kind.closes:
                whole = [*whole[: len(row.ids) - 1], row.ids[-1]]
            assert row.ids == whole[: len(row.ids)]
            assert squeezed(tokenizer.decode(whole[len(row.ids) :])) == squeezed(kind.after)
    for row, place in zip(rows if len(rows) > 1 else rows * len(answers), answers, strict=True):
        prompt = encode_prompt(tokenizer, turns[:place])
        assert prompt == theirs(name, family, turns[:place], add_generation_prompt=True)
        assert row.ids[: len(prompt)] == prompt
        assert row.is_target[len(prompt) - 1 : len(prompt) + 1] == [False, True]
    if conversation != "inline" and family in ("bytes", "pieces"):  # the others put spaces into marks
        assert decode_answer(tokenizer, row.ids[len(prompt) :], prompt) == (turns[-1].content, turns[-1].thoughts)
    if not turns[-1].thoughts:
        assert row.ids == prompt + encode_response(tokenizer, turns[:-1], turns[-1].content)
    [last], _ = encode_conversations(tokenizer, [Conversation(turns)], ROOM, last_only=True)
    assert last.ids == row.ids
    assert stretches(tokenizer, last) == learned[-1][-1:]


@pytest.mark.parametrize("answer", ["<b>4</b>", "e", "<"])
@pytest.mark.parametrize("name", KINDS)
def test_an_answer_that_is_like_a_piece_of_a_marker_is_learned_whole(name, answer):
    thoughts, before = ("", "") if KINDS[name].plain else ("e", "e\n</think>\n\n")
    turns, tokenizer = (NAME, Message("assistant", answer, thoughts)), tokenizer_of(name, "bytes")
    [row], _ = encode_conversations(tokenizer, [Conversation(turns)], ROOM)
    assert stretches(tokenizer, row) == [before + KINDS[name].answer.format(answer)]


def test_an_answer_may_be_thoughts_alone():
    tokenizer, turns = tokenizer_of("r1", "bytes"), (NAME, Message("assistant", "", "Hm."))
    [row], _ = encode_conversations(tokenizer, [Conversation(turns)], ROOM)
    assert stretches(tokenizer, row) == [f"Hm.\n</think>\n\n{KINDS['r1'].eos}"]
    with pytest.raises(UserError, match="opens a thought"):
        encode_response(tokenizer, turns[:1], "")


@pytest.mark.parametrize(
    ("name", "turns", "words"),
    [
        ("gemma", (BRIEF, *ONE), r"\(system, user\): System role not supported; .*data\.system"),
        ("mistral v1", (ONE[1], *ONE), r"\(assistant, user\): .* must alternate .*data\.first_assistant"),
        ("llama 2", (NAME, *ONE), r"\(user, user\): .* must alternate .*data\.same_role"),
        ("zephyr", (NAME, Message("assistant", "Red.", "Roses."), *ONE), r"Roses\..*data\.thoughts"),
        (
            "llama 3.1",
            (*CONVERSATIONS["tools"][:2], Message("assistant", "", calls=TWO_CALLS)),
            r"time.*data\.template",
        ),
        ("qwen 3 that does not think", CONVERSATIONS["inline"][:2], r"data\.template_options .* remove the thoughts"),
        ("chatglm 2", (NAME, Message("assistant", "Red."), BRIEF, *ONE), r"Be brief\..*data\.system"),
        ("mistral v3", (NAME, Message("assistant", "", calls=json.dumps(CALL).replace("fghi", ""))), r"length 9"),
    ],
)
def test_a_refusal_says_what_helps(name, turns, words):
    with pytest.raises(UserError, match=rf"rows\.jsonl:7: .*{words}"):
        encode_conversations(tokenizer_of(name, "bytes"), [Conversation(turns, "rows.jsonl:7")], ROOM)


@pytest.mark.parametrize("family", FAMILIES[:3])
def test_a_space_that_ends_the_prompt_is_not_written_twice(family):
    tokenizer = copy.deepcopy(tokenizer_of("zephyr", family))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    [row], _ = encode_conversations(tokenizer, [Conversation(ONE)], ROOM)
    assert row.ids[: sum(not learned for learned in row.is_target)] == encode_prompt(tokenizer, ONE[:1])
    assert tokenizer.decode(row.ids).endswith("assistant: Red is a colour.</s>")


WORD = r"k\d\dq"
SPACES = (" ", "  ", "\n", "\n\n", "\n    ", "\t")


def drawn(chance: random.Random, name: str) -> tuple[Message, ...]:
    """A conversation in which no word comes twice, with odd white space, thoughts, calls, and answers as context."""
    kind, words = KINDS[name], chance.sample(NUMBERED, len(NUMBERED))

    def text() -> str:
        said = chance.choice(SPACES).join(words.pop() for _ in range(chance.randint(1, 3)))
        return chance.choice(("", "<", *SPACES)) + said + chance.choice(("", *SPACES))

    def answer(calls: str = "") -> Message:
        thinks = not kind.plain or (not isinstance(kind.thoughts, str) and chance.random() < 0.5)
        thoughts = text().strip() if thinks else ""
        return Message("assistant", "" if calls else text(), thoughts, calls, learned=chance.random() < 0.6)

    called = not isinstance(kind.tools, str) and chance.random() < 0.4
    turns = [Message("tools", json.dumps(TOOLS))] if called else []
    turns += [Message("system", text())] if kind.system and chance.random() < 0.3 else []
    for _ in range(chance.randint(1, 4)):
        turns.append(Message("user", text()))
        if called and chance.random() < 0.5:
            calls = json.dumps(CALL).replace("RoEOSme", words.pop())
            turns += [
                answer(calls),
                Message("tool", json.dumps({"at": words.pop()}), name="weather", call_id="abcdefghi"),
            ]
        turns.append(answer())
    taught = chance.choice([place for place, turn in enumerate(turns) if turn.role == "assistant"])
    turns[taught] = turns[taught]._replace(learned=True)
    return tuple(turns)


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("name", KINDS)
def test_each_word_to_be_learned_is_a_target_once_and_no_other_is(name, seed):
    turns, family = drawn(random.Random(f"{name} {seed}"), name), FAMILIES[seed % len(FAMILIES)]
    tokenizer = tokenizer_of(name, family)
    rows, _ = encode_conversations(tokenizer, [Conversation(turns)], ROOM)
    learned = [place for place, turn in enumerate(turns) if turn.role == "assistant" and turn.learned]
    targets = " ".join(text for row in rows for text in stretches(tokenizer, row))
    said = " ".join(turns[place].thoughts + " " + turns[place].text for place in learned)
    assert sorted(re.findall(WORD, targets)) == sorted(re.findall(WORD, said))
    for place in learned:
        prompt = encode_prompt(tokenizer, turns[:place])
        assert tokenizer.decode(prompt) == tokenizer.decode(
            theirs(name, family, turns[:place], add_generation_prompt=True)
        )
        begun = [row for row in rows if row.ids[: len(prompt)] == prompt]
        assert [False, True] in [row.is_target[len(prompt) - 1 : len(prompt) + 1] for row in begun]
