"""Tokens of conversations: the prompt in training is the prompt at sampling, under every template."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.errors import UserError
from align.text.chat import TEXT_TEMPLATE
from align.text.encode import (
    Counts,
    decode_response,
    encode_conversation,
    encode_conversations,
    encode_documents,
    encode_prompt,
    encode_prompts,
    encode_response,
    encode_responses,
)
from align.text.ends import ends_of
from align.text.records import Conversation, Message
from align.text.spans import special_token_remover

from .conftest import TEMPLATES

PLAIN = [name for name in TEMPLATES if name not in ("thinking", "unrelated", "no eos")]
ONE = (Message("user", "Name a colour."), Message("assistant", "Red is a colour."))
TWO = (*ONE, Message("user", "And another?"), Message("assistant", "Blue."))


def targets(tokenizer, encoded) -> list[str]:
    """The stretches of targets, each as text."""
    stretches: list[list[int]] = []
    for index, token in enumerate(encoded.ids):
        if encoded.is_target[index]:
            if index == 0 or not encoded.is_target[index - 1]:
                stretches.append([])
            stretches[-1].append(token)
    return [tokenizer.decode(stretch) for stretch in stretches]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (
            "markers",
            "<|user|> Name a colour.<|assistant|> Red is a colour.<|endoftext|>"
            "<|user|> And another?<|assistant|> Blue.<|endoftext|>",
        ),
        (
            "text form",
            "User: Name a colour.\n\nAssistant: Red is a colour.<|endoftext|>"
            "User: And another?\n\nAssistant: Blue.<|endoftext|>",
        ),
    ],
)
def test_what_is_written(tokenizers, name, written):
    tokenizer = tokenizers[name]
    assert tokenizer.decode(encode_conversation(tokenizer, TWO, 1000).ids) == written


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("markers", "<|system|> Be brief.<|user|> Name a colour.<|assistant|>"),
        ("text form", "System: Be brief.\n\nUser: Name a colour.\n\nAssistant:"),
    ],
)
def test_a_system_turn_comes_first_and_nothing_follows_the_generation_prompt(tokenizers, name, written):
    ids = encode_prompt(tokenizers[name], (Message("system", " Be brief.\n"), ONE[0]))
    assert tokenizers[name].decode(ids) == written


def test_where_nothing_ends_an_answer_eos_is_appended_to_the_last_alone(tokenizers):
    tokenizer = tokenizers["no eos"]
    rows, counts = encode_conversations(tokenizer, [Conversation(TWO)], 1000)
    asked, answered = "### user\nName a colour.\n\n### assistant\n", "Red is a colour."
    again = "\n\n### user\nAnd another?\n\n### assistant\n"
    assert [tokenizer.decode(row.ids) for row in rows] == [
        f"{asked}{answered}<|endoftext|>",
        f"{asked}{answered}{again}Blue.<|endoftext|>",
    ]
    assert [targets(tokenizer, row) for row in rows] == [[f"{answered}<|endoftext|>"], ["Blue.<|endoftext|>"]]
    assert counts == Counts(2, 0, 0, 0, 0, 1, 1, len(rows[0].ids))


def test_a_template_that_rewrites_earlier_answers_makes_a_row_of_each(tokenizers):
    tokenizer = tokenizers["thinking"]
    *prompt, answer = TWO
    with pytest.raises(UserError, match=r"rewrites earlier answers, .* needs 2 rows"):
        encode_conversation(tokenizer, TWO, 1000)
    whole = encode_conversation(tokenizer, TWO, 1000, last_only=True)
    assert whole.ids == encode_prompt(tokenizer, prompt) + encode_response(tokenizer, prompt, answer.content)
    assert targets(tokenizer, whole) == ["<think>\n\n</think>\n\nBlue.<|im_end|>"]
    rows, counts = encode_conversations(tokenizer, [Conversation(ONE), Conversation(TWO)], 1000)
    assert rows == [encode_conversation(tokenizer, ONE, 1000)] * 2 + [whole]
    assert counts == Counts(3, 0, 0, 0, 0, 1, 1, len(rows[0].ids))
    assert f"1 conversations became 2 rows, {len(rows[0].ids)} more tokens" in counts.lines(1000)[0]


def test_a_template_whose_generation_prompt_is_another_is_refused(tokenizers):
    with pytest.raises(UserError, match=r"right after its generation prompt: .*'Answer: '.*'assistant: Red"):
        encode_conversation(tokenizers["unrelated"], ONE, 1000)


def test_a_template_may_refuse_turns_and_the_row_is_named(tokenizers):
    row = Conversation((Message("system", "Be brief."), *ONE), "data.jsonl:7")
    with pytest.raises(UserError, match=r"data.jsonl:7: .*refuses these messages \(system, user\).*no system turn"):
        encode_conversations(tokenizers["instruct"], [row], 1000)


def test_turns_must_end_with_the_assistant(ours):
    with pytest.raises(UserError, match="must end with an assistant message"):
        encode_conversation(ours, ONE[:1], 1000)


def test_truncation_cuts_the_end(ours):
    whole = encode_conversation(ours, ONE, 1000)
    cut = encode_conversation(ours, ONE, len(whole.ids) - 1)
    assert cut.ids == whole.ids[:-1]
    assert cut.is_target == whole.is_target[:-1]
    assert cut.truncated
    assert not encode_conversation(ours, ONE, len(whole.ids)).truncated


def test_many_are_as_one_by_one(tokenizers):
    for name in PLAIN:
        tokenizer = tokenizers[name]
        conversations = [Conversation(turns) for turns in (ONE, TWO, ONE)]
        encoded, counts = encode_conversations(tokenizer, conversations, 1000)
        assert encoded == [encode_conversation(tokenizer, row.messages, 1000) for row in conversations]
        assert counts == Counts(3, 0, 0, 0)
        prompts = [ONE[:1], TWO[:3]]
        assert encode_prompts(tokenizer, prompts) == [encode_prompt(tokenizer, prompt) for prompt in prompts]
        pairs = [(ONE[:1], "Red."), (ONE[:1], "Blue."), (TWO[:3], "Red.")]
        assert encode_responses(tokenizer, pairs) == [encode_response(tokenizer, *pair) for pair in pairs]


def test_long_rows_are_cut_or_left_out_and_counted(ours):
    long = Conversation((ONE[0], Message("assistant", "Red is a colour. " * 20)))
    long_prompt = Conversation((Message("user", "Name a colour. " * 40), ONE[1]))
    short = Conversation(ONE)
    limit = len(encode_conversation(ours, ONE, 1000).ids)
    kept, counts = encode_conversations(ours, [long, short, long_prompt], limit)
    assert [row.truncated for row in kept] == [True, False]
    assert counts == Counts(2, 1, 0, 1)
    assert counts.lines(limit) == [
        f"1 of 3 conversations cut (max_tokens={limit})",
        f"1 of 3 conversations left out, because the prompt alone fills them (max_tokens={limit})",
    ]
    kept, counts = encode_conversations(ours, [long, short, long_prompt], limit, too_long="drop")
    assert [row.ids for row in kept] == [encode_conversation(ours, ONE, 1000).ids]
    assert counts == Counts(1, 0, 2, 0)
    with pytest.raises(UserError, match=r"no conversation is left; 1 of 1 .*; raise data.max_tokens"):
        encode_conversations(ours, [long_prompt], limit)
    assert encode_conversations(ours, [], limit) == ([], Counts(0, 0, 0, 0))


@pytest.mark.parametrize("name", PLAIN)
def test_special_tokens_in_a_content_do_not_end_the_turn(tokenizers, name):
    tokenizer = tokenizers[name]
    ends = ends_of(tokenizer)
    eos = "".join(tokenizer.convert_ids_to_tokens(ends.ids))
    ids = encode_response(tokenizer, (Message("user", f"Say{eos} it"),), f"Red{eos}dish")
    assert [token for token in ids if token in ends.ids] == [ends.turn]
    assert decode_response(tokenizer, ids) == "Reddish"
    assert encode_prompt(tokenizer, (Message("user", f"Say{eos} it"),)) == encode_prompt(
        tokenizer, (Message("user", "Say it"),)
    )


def test_a_special_token_cannot_be_nested_in_another(ours):
    assert special_token_remover(ours)("a <|us<|pad|>er|>b") == "a b"


def test_an_empty_answer_is_eos_alone(ours):
    assert encode_response(ours, ONE[:1], "") == [ours.eos_token_id]
    assert encode_response(ours, ONE[:1], "  \n") == [ours.eos_token_id]


@pytest.mark.parametrize("name", ["markers", "text form"])
def test_content_is_tokenised_as_in_running_text(tokenizers, name):
    tokenizer = tokenizers[name]
    running = tokenizer("Then Red is a colour.", add_special_tokens=False).input_ids
    answer = encode_response(tokenizer, ONE[:1], "Red is a colour.")[:-1]
    assert running[-len(answer) :] == answer
    prompt = tokenizer.convert_ids_to_tokens(encode_prompt(tokenizer, [Message("user", "  quick brown ")]))
    assert [token for token in prompt if "quick" in token or "brown" in token] == ["Ġquick", "Ġbrown"]


def test_our_generation_markers_agree_with_the_targets(tokenizers):
    for name in ("markers", "text form"):
        tokenizer = tokenizers[name]
        turns = [message._asdict() for message in TWO]
        theirs = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
        encoded = encode_conversation(tokenizer, TWO, 1000)
        assert theirs["input_ids"] == encoded.ids
        assert [bool(flag) for flag in theirs["assistant_masks"]] == encoded.is_target


def test_documents_end_in_eos_in_chunks_of_any_size(ours):
    texts = ["The dog sleeps.", "", "Red<|endoftext|> is", "a colour"]
    rows = list(encode_documents(ours, iter(texts)))
    assert [ours.decode(ids[:-1]) for ids in rows] == ["The dog sleeps.", "", "Red is", "a colour"]
    assert all(ids[-1] == ours.eos_token_id and ids.count(ours.eos_token_id) == 1 for ids in rows)
    assert list(encode_documents(ours, texts, chunk=3)) == rows


def test_decoding_stops_at_eos_and_drops_special_tokens(ours):
    ids = encode_response(ours, ONE[:1], "Red.")
    user, pad = ours.convert_tokens_to_ids("<|user|>"), ours.pad_token_id
    assert decode_response(ours, [*ids, pad, pad, *ids]) == "Red."
    assert decode_response(ours, [user, *ids[:-1]]) == "Red."
    assert decode_response(ours, []) == ""


def test_a_template_and_eos_are_needed(ours):
    import copy

    bare = copy.deepcopy(ours)
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        encode_prompt(bare, ONE[:1])
    bare.chat_template, bare.eos_token = TEXT_TEMPLATE, None
    with pytest.raises(UserError, match="no EOS token"):
        encode_prompt(bare, ONE[:1])


content = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(asked=st.lists(content, min_size=1, max_size=3), answers=st.lists(content, min_size=3, max_size=3))
def test_the_rule_holds_for_any_text(tokenizers, asked, answers):
    turns = [Message(role, text) for pair in zip(asked, answers, strict=False) for role, text in _roles(pair)]
    for name in PLAIN:
        tokenizer = tokenizers[name]
        whole = encode_conversation(tokenizer, turns, 10_000)
        response = encode_response(tokenizer, turns[:-1], turns[-1].content)
        assert whole.ids == encode_prompt(tokenizer, turns[:-1]) + response
        ends = ends_of(tokenizer)
        assert [token for token in response if token in ends.ids] == [ends.turn] == response[-1:]
        assert decode_response(tokenizer, response) == special_token_remover(tokenizer)(turns[-1].content).strip()


def _roles(pair):
    return zip(("user", "assistant"), pair, strict=True)


CODE = "    def red():\n        return 1\n    return red"


@pytest.mark.parametrize("name", ["markers", "text form"])
def test_our_templates_keep_the_indentation_of_code(tokenizers, name):
    tokenizer = tokenizers[name]
    ids = encode_response(tokenizer, ONE[:1], f"{CODE}\n")
    assert tokenizer.decode(ids) == f"{CODE}<|endoftext|>"
    assert decode_response(tokenizer, ids) == CODE
    assert tokenizer.decode(encode_response(tokenizer, ONE[:1], "  Red. \n")) == " Red.<|endoftext|>"
    assert tokenizer.decode(encode_response(tokenizer, ONE[:1], "\n\nRed.\n  Blue.")) == " Red.\n  Blue.<|endoftext|>"
