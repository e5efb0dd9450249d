"""Perplexity equals a plain Hugging Face computation, window by window; no token is scored twice or left out."""

import math

import pytest
from asking import Parrot, cross_entropy, hugging_face, text_model_of
from tiny import sentences

from align.tasks.perplexity import perplexities, read_documents, stride_of, windows
from align.text.records import Document

LONG = " ".join(sentences(30))  # several windows of 64 positions
TEXTS = [LONG, "red", " the cat  is\n\nblue . ", LONG[:400]]
DOCUMENTS = [Document(text, f"here:{i}") for i, text in enumerate(TEXTS)]


def test_windows_by_hand():
    assert list(windows(10, 4, 2)) == [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]
    assert list(windows(5, 4, 3)) == [(0, 1, 4), (1, 4, 5)]  # the last window is whole too, and scores one token
    assert list(windows(4, 4, 1)) == [(0, 1, 4)]
    assert list(windows(1, 4, 2)) == []  # BOS alone


@pytest.mark.parametrize(("n", "width", "stride"), [(100, 16, 8), (101, 16, 15), (37, 5, 1), (16, 16, 8), (2, 16, 8)])
def test_every_token_is_scored_once_with_the_context_that_is_promised(n, width, stride):
    found = list(windows(n, width, stride))
    assert [i for window in found for i in range(window.first, window.end)] == list(range(1, n))
    assert all(window.end - window.start <= width for window in found)
    assert all(window.first - window.start >= width - stride for window in found[1:])


def test_it_equals_hugging_face(path):
    text_model, (model, tokenizer) = text_model_of(path), hugging_face(path)
    for document, outcome in zip(DOCUMENTS, read_documents(DOCUMENTS, text_model, None), strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(document.text, add_special_tokens=False)["input_ids"]]
        nll = sum(cross_entropy(model, ids[w.start : w.end], w.first - w.start) for w in windows(len(ids), 64, 32))
        n_tokens = len(ids) - 1
        assert outcome.scores["tokens"] == n_tokens
        assert outcome.scores["nll"] / n_tokens == pytest.approx(nll / n_tokens, abs=1e-4)
        assert math.exp(outcome.scores["nll"] / n_tokens) == pytest.approx(math.exp(nll / n_tokens), rel=1e-4)
        assert outcome.scores["bits_per_byte"] == pytest.approx(nll / math.log(2) / len(document.text.encode()))


def test_more_context_changes_what_later_tokens_cost(path):
    text_model = text_model_of(path)
    little, much = (read_documents(DOCUMENTS[:1], text_model, stride)[0].scores for stride in (63, 1))
    assert little["tokens"] == much["tokens"]
    assert abs(little["nll"] - much["nll"]) > 1e-2


def test_figures_by_hand():
    text_model = Parrot(like=lambda text: -2.0 * len(text.encode()), max_tokens=64)  # 2 nats a byte, a byte a token
    outcomes = read_documents([Document("ab cd", "a:1"), Document("é f gh", "a:2")], text_model, None)
    block = perplexities(outcomes)
    assert (block["n"], block["tokens"], block["words"], block["bytes"]) == (2, 12, 5, 12)
    assert block["scores"]["per_token"]["mean"] == pytest.approx(math.exp(2))
    assert block["scores"]["per_byte"]["mean"] == pytest.approx(math.exp(2))
    assert block["scores"]["per_word"]["mean"] == pytest.approx(math.exp(24 / 5))
    assert block["scores"]["bits_per_byte"]["mean"] == pytest.approx(2 / math.log(2))


def test_intervals_are_over_documents():
    dear, cheap = Document("xx xx", "a:1"), Document("yy yy", "a:2")
    text_model = Parrot(like=lambda text: -float(text.count("x")) * 3 - 1)
    one = perplexities(read_documents([dear], text_model, None))["scores"]["per_token"]
    assert (one["low"], one["high"]) == (None, None)  # a single document says nothing of others
    many = perplexities(read_documents([dear, cheap] * 20, text_model, None))["scores"]["per_token"]
    assert many["low"] < many["mean"] < many["high"]
    assert math.log(many["mean"]) == pytest.approx((13 + 1) / 10)


def test_what_is_not_a_number_is_left_out_and_told():
    text_model = Parrot(like=lambda text: math.nan if "bad" in text else -1.0)
    outcomes = read_documents([Document("bad", "a:1"), Document("good", "a:2")], text_model, None)
    assert outcomes[0].scores == {}
    assert "not a number" in outcomes[0].reason
    assert perplexities(outcomes)["n"] == 1
    assert perplexities(outcomes[:1]) == {"n": 0, "scores": {}}


def test_a_stride_leaves_context():
    assert stride_of(Parrot(max_tokens=64), None) == 32
    assert stride_of(Parrot(max_tokens=64), 16) == 16
    assert stride_of(Parrot(max_tokens=64), 1000) == 63
