"""Decoding with a KV cache, or by recomputing whole rows for models without a usable one.

Models cache different things: keys and values, those of a window only, a recurrent state with or without keys; a state
inside the model, which two batches at once would share; or nothing. No list of architectures says which. So each model
is probed: a few made-up rows are decoded in each mode, and the first mode that agrees with plain forward passes over
the same rows is used (`decoding_mode`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from align.models.language import check_causal, made_up, rounding, scored_logits
from align.text.batches import pad_right
from align.train.parallel import say

CACHE_NAMES = (
    "past_key_values",
    "cache_params",
)  # arguments for a cache in transformers; the second for caches without keys


class DecodingMode(NamedTuple):
    """How a model decodes."""

    cached: bool  # with a cache; else each token is computed from its whole row
    mixed: bool  # rows of different lengths may share a batch

    def warning(self, model: Any) -> str:
        """A line for the user if this mode is slow; "" for the usual mode."""
        name = type(plain_model(model)).__name__
        if not self.cached:
            return f"{name} has no usable cache: each token is computed from its whole row, slower"
        if not self.mixed:
            return f"{name} does not mask padding on the left: each prompt length is sampled separately, slower"
        return ""


# From the fastest to the one that is always correct.
MODES = (DecodingMode(True, True), DecodingMode(True, False), DecodingMode(False, True))


class RoomyLayer(DynamicLayer):
    """Preallocated cache of one full-attention layer: no tensor is grown and copied at every token.

    Rows that are kept move to a spare tensor, and the tensor that they leave is the next spare one. So nothing is
    allocated while a batch shrinks: freed tensors of ever smaller sizes leave holes in the heap.
    """

    def __init__(self, capacity: int, spare: list[Tensor]) -> None:
        """`spare`: at most one flat tensor, which the layers of a cache share."""
        super().__init__()
        self.capacity, self.spare = capacity, spare

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys, self._values = self._room(key_states), self._room(value_states)
        self.keys, self.values = self._keys[:, :, :0], self._values[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (batch, heads, new, head_width) states; return views of all states."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows of the batch."""
        if not self.is_initialized:  # a layer that shares another layer's cache
            return
        assert self.keys is not None
        length = self.keys.shape[2]
        self._keys, self._values = self._moved(self._keys, beam_idx), self._moved(self._values, beam_idx)
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]

    def _moved(self, states: Tensor, rows: Tensor) -> Tensor:
        """These rows, as far as they are filled, in the spare tensor."""
        assert self.keys is not None
        length, shape = self.keys.shape[2], (len(rows), *states.shape[1:])
        spare = self.spare.pop() if self.spare else states.new_empty(0)
        if spare.numel() < prod(shape) or spare.dtype != states.dtype or spare.device != states.device:
            spare = states.new_empty(prod(shape))
        moved = spare[: prod(shape)].view(shape)
        torch.index_select(states[:, :, :length], 0, rows, out=moved[:, :, :length])
        self.spare.append(states.view(-1))
        return moved

    def _room(self, states: Tensor) -> Tensor:
        batch, heads, _, width = states.shape
        return torch.empty(batch, heads, self.capacity, width, dtype=states.dtype, device=states.device)


def new_cache(config: PretrainedConfig, capacity: int, padded: bool) -> Cache:
    """The model's transformers cache, with full-attention layers preallocated for `capacity` tokens.

    Raises ValueError if rows are padded and a custom cache layer (DeepSeek V4) might count the padding.
    """
    cache = DynamicCache(config=config)
    if padded and any(type(layer).__module__ != DynamicCache.__module__ for layer in cache.layers):
        raise ValueError("custom cache layers may count padding")
    spare: list[Tensor] = []
    cache.layers = [RoomyLayer(capacity, spare) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def plain_model(model: Any) -> Any:
    """The model without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class Cached:
    """A batch decoded with a cache. Padded on the left, so that all rows continue at the same column."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], room: int, mixed: bool = True) -> None:
        """`room`: the most tokens that will be appended. Without `mixed` all prompts must have one length.

        The model then numbers positions itself: some start with a number other than 0 (RoBERTa).
        """
        device = model.get_input_embeddings().weight.device
        self.model = model
        self.mixed = mixed
        self.takes = inspect.signature(plain_model(model).forward).parameters
        width = max(len(prompt) for prompt in prompts)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self.ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
        self.mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
        self.padded = bool((lengths < width).any())  # without padding, attention takes its fast path
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.cache = new_cache(model.config, width + room, self.padded)
        self.cache_name = next(name for name in CACHE_NAMES if name in self.takes)

    def next_logits(self) -> Tensor:
        """(rows, vocabulary) logits of the next token."""
        given = {"logits_to_keep": 1} | ({"position_ids": self.positions} if self.mixed else {})
        logits = self.model(
            input_ids=self.ids,
            attention_mask=self.mask if self.padded else None,
            use_cache=True,
            **{self.cache_name: self.cache},
            **{name: value for name, value in given.items() if name in self.takes},
        ).logits
        return logits[:, -1]

    def append(self, tokens: Tensor) -> None:
        """Append one token to each row. tokens: (rows,)."""
        self.ids = tokens[:, None]
        self.positions = self.positions[:, -1:] + 1
        if self.padded:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)

    def keep(self, rows: Tensor) -> None:
        """Keep these rows only; a row that is named twice is copied. rows: indices, (n_kept,)."""
        self.ids, self.mask, self.positions = self.ids[rows], self.mask[rows], self.positions[rows]
        self.cache.reorder_cache(rows)  # type: ignore[arg-type]


class Uncached:
    """A batch decoded without a cache: each token is computed from its whole row, padded on the right."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], room: int) -> None:
        device = model.get_input_embeddings().weight.device
        self.model = model
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self.ids = pad_right([[*prompt, *[0] * room] for prompt in prompts]).to(device)

    def next_logits(self) -> Tensor:
        """(rows, vocabulary) logits of the next token."""
        width = int(self.lengths.max()) + 1
        is_next = torch.arange(width, device=self.ids.device) == self.lengths[:, None]
        return scored_logits(self.model, self.ids[:, :width], is_next)

    def append(self, tokens: Tensor) -> None:
        """Append one token to each row. tokens: (rows,)."""
        self.ids = self.ids.scatter(1, self.lengths[:, None], tokens[:, None])
        self.lengths = self.lengths + 1

    def keep(self, rows: Tensor) -> None:
        """Keep these rows only; a row that is named twice is copied. rows: indices, (n_kept,)."""
        self.ids, self.lengths = self.ids[rows], self.lengths[rows]


def start_decoding(mode: DecodingMode, model: Any, prompts: Sequence[Sequence[int]], room: int) -> Cached | Uncached:
    """Start decoding `prompts` in this mode, by at most `room` tokens."""
    return Cached(model, prompts, room, mode.mixed) if mode.cached else Uncached(model, prompts, room)


_modes: WeakKeyDictionary[Any, DecodingMode] = WeakKeyDictionary()


def decoding_mode(model: Any) -> DecodingMode:
    """The fastest mode whose logits agree with plain passes. A model is probed once; it must be in eval mode."""
    plain = plain_model(model)
    if plain not in _modes:
        _modes[plain] = _probed(model)
        if line := _modes[plain].warning(model):
            say(line)
    return _modes[plain]


N_MORE = 4  # tokens that are decoded after a made-up prompt


@torch.no_grad()
def _probed(model: Any) -> DecodingMode:
    check_causal(plain_model(model))
    device_type = model.get_input_embeddings().weight.device.type
    with torch.autocast(device_type, enabled=False):  # its rounding would hide differences
        for mode in MODES[:-1]:
            lengths = (2, 5, 3) if mode.mixed else (4, 4, 5)
            rows = made_up(model, [length + N_MORE for length in lengths])
            expected = _plain_pass(model, rows, lengths)
            with suppress(Exception):  # a model without this mode may fail in any way
                if _agree(_decoded(mode, model, rows, lengths), expected, rounding(plain_model(model))):
                    return mode
    return MODES[-1]


def _plain_pass(model: Any, rows: list[list[int]], lengths: Sequence[int]) -> list[Tensor]:
    """Log probabilities of each token after the prompts, (N_MORE, vocabulary) for each row, from one plain pass."""
    ids = pad_right(rows).to(model.get_input_embeddings().weight.device)
    is_more = pad_right([[0] * n + [1] * N_MORE for n in lengths]).bool().to(ids.device)
    return list(scored_logits(model, ids, is_more).float().log_softmax(-1).split(N_MORE))


def _decoded(mode: DecodingMode, model: Any, rows: list[list[int]], lengths: Sequence[int]) -> list[Tensor]:
    """The same, decoded: two batches alternate; halfway a row leaves the first, and its other row is copied."""
    prompts = [row[:n] for row, n in zip(rows, lengths, strict=True)]
    batches = [
        (start_decoding(mode, model, prompts[:2], N_MORE), [0, 1]),
        (start_decoding(mode, model, prompts[2:], N_MORE), [2]),
    ]
    found: list[list[Tensor]] = [[] for _ in rows]
    for time in range(N_MORE):
        for batch, members in batches:
            logits_of = dict(zip(members, batch.next_logits(), strict=True))  # of a doubled row its copy's
            for member, logits in logits_of.items():
                found[member].append(logits.float().log_softmax(-1))
            tokens = torch.tensor([rows[member][lengths[member] + time] for member in members])
            batch.append(tokens.to(logits.device))
        if time == N_MORE // 2 - 1:
            batches[0][0].keep(torch.tensor([1, 1], device=logits.device))
            batches[0][1][:] = [1, 1]
    return [torch.stack(logprobs) for logprobs in found]


def _agree(found: list[Tensor], expected: list[Tensor], tolerance: float) -> bool:
    """Whether log probabilities differ by rounding alone: at most `tolerance` of their spread over tokens."""
    varies = float(torch.cat(expected).std(0).mean())
    gap = max(float((a - b[: len(a)]).abs().mean()) for a, b in zip(found, expected, strict=True))
    return gap <= tolerance * varies
