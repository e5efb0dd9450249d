"""Perplexity of texts: per token, word and byte, and bits per byte.

A document starts after BOS (EOS for a model without BOS), as in training, so its first token is scored too; EOS at its
end is not. A document longer than the model's positions is read in overlapping windows: each moves by `stride` tokens
(default: half a window) and scores only new tokens. So after the first window every token has at least window - stride
tokens of context.

Tokens differ between tokenizers; words (separated by white space) and bytes do not. Every figure is a ratio of sums
over all documents, exp(-sum log p / sum of tokens); documents are resampled for its interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from align.stats.bootstrap import bootstrap_statistic, by_cluster
from align.tasks.results import Outcome, scored
from align.text.records import Document

AT_ONCE = 64  # documents

COUNTS = ("tokens", "words", "bytes")


class Window(NamedTuple):
    """Tokens start:end go through the model; tokens first:end are scored."""

    start: int
    first: int
    end: int


def windows(n: int, width: int, stride: int) -> Iterator[Window]:
    """The windows over n tokens. The first token is context only."""
    first = 1
    while first < n:
        end = min(n, width if first == 1 else first + stride)
        yield Window(max(0, end - width), first, end)
        first = end


def read_documents(documents: Sequence[Document], text_model: Any, stride: int | None) -> list[Outcome]:
    """One outcome per document: negative log-likelihood in nats, counts, bits per byte."""
    outcomes: list[Outcome] = []
    for begin in range(0, len(documents), AT_ONCE):
        now = documents[begin : begin + AT_ONCE]
        ids = text_model.prompt_ids([document.text for document in now])
        parts = [list(windows(len(row), text_model.max_tokens, stride_of(text_model, stride))) for row in ids]
        rows = [(row[w.start : w.first], row[w.first : w.end]) for row, ws in zip(ids, parts, strict=True) for w in ws]
        found = iter(text_model.logprobs(rows))
        for document, ws in zip(now, parts, strict=True):
            nll = -math.fsum(value for _ in ws for value in next(found))
            outcomes.append(_outcome(document, nll, sum(w.end - w.first for w in ws)))
    return outcomes


def stride_of(text_model: Any, stride: int | None) -> int:
    """Tokens by which a window moves; at least one token of context remains."""
    return min(stride or max(1, text_model.max_tokens // 2), text_model.max_tokens - 1)


def _outcome(document: Document, nll: float, n_tokens: int) -> Outcome:
    if not math.isfinite(nll):
        return Outcome(document.source, {}, "a document's log-likelihood is not a number; check the model's weights")
    n_words, n_bytes = len(document.text.split()), len(document.text.encode())
    scores = {"nll": nll, "tokens": float(n_tokens), "words": float(n_words), "bytes": float(n_bytes)}
    return Outcome(document.source, scores | {"bits_per_byte": nll / math.log(2) / n_bytes})


def perplexities(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A round's block: each figure with its interval over documents, and counts."""
    measured = scored(outcomes)
    block: dict[str, Any] = {"n": len(measured), "scores": {}}
    if not measured:
        return block
    columns = ("nll", *COUNTS)
    values = [outcome.scores[name] for outcome in measured for name in columns]
    places = np.arange(len(values))
    parts = by_cluster(places // len(columns), places % len(columns), values, len(columns))
    for index, name in enumerate(COUNTS, start=1):
        block["scores"][f"per_{name.removesuffix('s')}"] = _interval(parts, index, np.exp, len(measured))
        block[name] = int(parts[[index]].sum())
    block["scores"]["bits_per_byte"] = _interval(parts, 3, lambda nll: nll / math.log(2), len(measured))
    return block


def _interval(parts: Any, index: int, of: Callable[[Any], Any], n: int) -> dict[str, float | None]:
    found = bootstrap_statistic(parts, lambda sums: of(sums[:, 0] / sums[:, index]))
    if found is None:
        return {"mean": None, "low": None, "high": None}
    return found._asdict() if n > 1 else {"mean": found.mean, "low": None, "high": None}
