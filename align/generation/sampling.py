"""Sampling: batched decoding with a KV cache, temperature, top-k, top-p, stop at EOS; finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align.errors import UserError
from align.generation.kv_cache import DecodingMode, decoding_mode, plain_model, start_decoding
from align.models.load import max_positions
from align.text.batches import micro_batches


class Sampling(NamedTuple):
    """Sampling settings."""

    max_tokens: int  # of the longest answer, EOS included
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # keep the k likeliest tokens; 0 keeps all
    top_p: float = 1.0  # keep the likeliest tokens with this total probability; 1 keeps all
    batch_tokens: int = 65536  # rows x (prompt + answer) in the cache at once


class Answer(NamedTuple):
    """A sampled answer."""

    tokens: list[int]  # the last is EOS if `ended`
    logprobs: list[float]  # of each token, at the sampling temperature
    ended: bool  # EOS within max_tokens


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    how: Sampling,
    eos_ids: Sequence[int],
    forbidden_ids: Sequence[int],
    generator: torch.Generator,
) -> list[Answer]:
    """Sample one answer to each prompt (a list of token ids), in the order given. The model must be in eval mode.

    Prompts of one length share a batch where possible: without padding, attention takes its fast path. The answers
    depend only on the generator's state and on which prompts are sampled together. Raises `UserError` for prompts that
    are too long.
    """
    check_length(model, max(map(len, prompts), default=0) + how.max_tokens)
    answers: list[Answer | None] = [None] * len(prompts)
    for group in _batches([len(prompt) for prompt in prompts], how, decoding_mode(model)):
        decoding = _Decoding(model, [prompts[i] for i in group], how, eos_ids, forbidden_ids, generator)
        for _ in decoding.steps():
            pass
        for index, answer in zip(group, decoding.answers(), strict=True):
            answers[index] = answer
    return [answer for answer in answers if answer is not None]


@torch.no_grad()
def stream(
    model: Any,
    prompt: Sequence[int],
    how: Sampling,
    eos_ids: Sequence[int],
    forbidden_ids: Sequence[int],
    generator: torch.Generator,
) -> Iterator[int]:
    """Yield the tokens of `sample`'s answer to this prompt alone, each as soon as it is drawn.

    A token is computed when the caller asks for it; to stop, ask for no more.
    """
    check_length(model, len(prompt) + how.max_tokens)
    for tokens in _Decoding(model, [prompt], how, eos_ids, forbidden_ids, generator).steps():
        yield int(tokens[0])


def check_length(model: Any, n_tokens: int) -> None:
    """Raise `UserError` if prompt and answer have more tokens than the model has positions."""
    limit = max_positions(model.config)
    if limit is not None and n_tokens > limit:
        raise UserError(
            f"a prompt and its answer may have {n_tokens} tokens, and {type(plain_model(model)).__name__} has {limit} "
            "positions; lower sampling.max_tokens or rollout.max_tokens, or give shorter prompts"
        )


def _batches(lengths: Sequence[int], how: Sampling, mode: DecodingMode) -> list[list[int]]:
    """Batches of prompt indices: of similar length, or of one length if the mode requires it."""
    batches = micro_batches([n + how.max_tokens for n in lengths], how.batch_tokens)
    if mode.mixed:
        return batches
    return [list(alike) for batch in batches for _, alike in groupby(batch, key=lambda index: lengths[index])]


class _Decoding:
    """One batch being decoded. `self.rows` are unfinished; finished rows have left the batch."""

    def __init__(
        self,
        model: Any,
        prompts: list[Sequence[int]],
        how: Sampling,
        eos_ids: Sequence[int],
        forbidden_ids: Sequence[int],
        generator: torch.Generator,
    ) -> None:
        device = model.get_input_embeddings().weight.device
        self.how, self.generator = how, generator
        self.eos = torch.tensor(list(eos_ids), device=device)
        self.forbidden = torch.tensor(list(forbidden_ids), dtype=torch.long, device=device)
        self.rows = torch.arange(len(prompts), device=device)
        number = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        self.past = start_decoding(decoding_mode(model), model, list(number), how.max_tokens)
        # A prompt with several answers is read once. Each answer then gets a copy of the cache.
        repeated = len(number) < len(prompts)
        self.copies = torch.tensor([number[tuple(p)] for p in prompts], device=device) if repeated else None
        shape = (len(prompts), how.max_tokens)
        self.tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(shape, device=device)
        self.lengths = torch.full((len(prompts),), how.max_tokens, device=device)
        self.ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)

    def steps(self) -> Iterator[Tensor]:
        """Draw one token for every unfinished row at a time and yield them, (rows,)."""
        for time in range(self.how.max_tokens):
            tokens, logprobs = draw(self._next_logits(), self.how, self.generator)
            self.tokens[self.rows, time], self.logprobs[self.rows, time] = tokens, logprobs
            is_eos = torch.isin(tokens, self.eos)
            done = self.rows[is_eos]
            self.ended[done], self.lengths[done] = True, time + 1
            self.past.append(tokens)
            all_finished = len(done) and self._drop(~is_eos)
            yield tokens
            if all_finished:
                break

    def _next_logits(self) -> Tensor:
        """(rows, vocabulary) fp32 logits of the next token."""
        logits = self.past.next_logits()
        if self.copies is not None:
            self.past.keep(self.copies)
            logits, self.copies = logits[self.copies], None
        return logits.float().index_fill_(1, self.forbidden, float("-inf"))

    def _drop(self, unfinished: Tensor) -> bool:
        """Remove finished rows from the batch. Returns whether none is left."""
        kept = unfinished.nonzero()[:, 0]
        if len(kept):
            self.rows = self.rows[kept]
            self.past.keep(kept)
        return len(kept) == 0

    def answers(self) -> list[Answer]:
        """The finished answers."""
        columns = zip(
            self.tokens.tolist(), self.logprobs.tolist(), self.lengths.tolist(), self.ended.tolist(), strict=True
        )
        return [Answer(tokens[:n], logprobs[:n], ended) for tokens, logprobs, n, ended in columns]


def draw(logits: Tensor, how: Sampling, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a token for each row, with its log probability. logits: (rows, vocabulary) fp32; returns two (rows,)."""
    if how.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        logits = _filtered(logits / how.temperature if how.temperature != 1.0 else logits, how)
        choose = _by_inverse_cdf if logits.device.type == "cpu" else _by_gumbel_max
        tokens = choose(logits, generator)
    return tokens, logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def _by_gumbel_max(logits: Tensor, generator: torch.Generator) -> Tensor:
    """argmax p / E with E ~ Exp(1), for a GPU: it needs no cumulative sum. Returns (rows,)."""
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - noise.log_()).argmax(-1)


def _by_inverse_cdf(logits: Tensor, generator: torch.Generator) -> Tensor:
    """The first token whose cumulative probability reaches a uniform number, for a CPU. Returns (rows,).

    It needs one random number a row. A CPU draws random numbers one by one: a number for each token of the vocabulary
    took longer than a small model's pass. Sums are in fp64, exact enough for any vocabulary. The uniform number is
    above 0, so a token of probability 0 is never first; if the logits are not finite, the last token is taken.
    """
    cumulative = logits.softmax(-1).double().cumsum_(-1)
    uniform = 1 - torch.rand(len(logits), 1, generator=generator, dtype=torch.float64)  # in (0, 1]
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:])[:, 0].clamp(max=logits.shape[-1] - 1)


def _filtered(logits: Tensor, how: Sampling) -> Tensor:
    if how.top_k:
        kth = logits.topk(min(how.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if how.top_p < 1.0:
        ordered, order = logits.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # probability of all likelier tokens
        removed = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= how.top_p)
        logits = logits.masked_fill(removed, float("-inf"))
    return logits
