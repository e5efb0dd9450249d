"""Files that people published, read whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.sections import Data
from align.text.load import load
from align.text.records import Message

FOLDER = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder with the published data sets is absent")


def loaded(name: str, kind, **keys):
    return load(Data(path=str(FOLDER / name), **keys), kind, 1)


def test_hh_rlhf():
    hh = loaded("hh-harmless-base.jsonl.gz", "rankings")
    assert hh.report.sources[0].format == "hh"
    assert hh.report.sources[0].left_out == {"a message of the transcript is empty": 2}
    assert len(hh.train) + len(hh.validation) == 1598
    assert 80 <= len(hh.validation) <= 130
    assert all(ranking.ranks == (1, 2) and ranking.prompt[-1].role == "user" for ranking in hh.train)
    assert not any("\n\nAssistant:" in text for ranking in hh.train for text in ranking.responses)
    conversations = loaded("hh-harmless-base.jsonl.gz", "conversations").train
    assert conversations[0].messages == (*hh.train[0].prompt, Message("assistant", hh.train[0].responses[0]))


def test_alpaca():
    alpaca = loaded("alpaca-en.json", "conversations", validation=0)
    assert alpaca.report.sources[0].format == "alpaca"
    assert len(alpaca.train) == 800
    assert {len(conversation.messages) for conversation in alpaca.train} == {2}


def test_gsm8k():
    gsm8k = loaded("gsm8k-train-1000.jsonl.gz", "conversations")
    assert gsm8k.report.sources[0].format == "question_answer"
    assert len(gsm8k.train) + len(gsm8k.validation) == 1000
    assert all("####" in conversation.messages[-1].content for conversation in gsm8k.train)


def test_wikitext():
    articles = loaded("wikitext2-valid.txt.gz", "documents")
    assert len(articles.train) + len(articles.validation) == 60
    assert len(articles.validation) >= 3
    assert all(document.text.startswith(" = ") for document in articles.train)


def test_they_encode(ours):
    from align.text.encode import Counts, decode_response, encode_conversations

    conversations = loaded("alpaca-en.json", "conversations", validation=0).train
    encoded, counts = encode_conversations(ours, conversations, 100_000)
    assert counts == Counts(800, 0, 0, 0)
    for row, conversation in zip(encoded, conversations, strict=True):
        answer = [token for token, learned in zip(row.ids, row.is_target, strict=True) if learned]
        assert decode_response(ours, answer) == conversation.messages[-1].content
