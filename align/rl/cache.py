"""A key-value cache with room for the whole answer from the start: no tensor is grown and copied at every token."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """The cache of one attention layer. Works in every transformers model whose layers see the whole past."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys, self._values = self._room(key_states), self._room(value_states)
        self.keys, self.values = self._keys[:, :, :0], self._values[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends (batch, heads, new, head_width) states; returns views of all that are held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows of the batch."""
        assert self.keys is not None
        length = self.keys.shape[2]
        self._keys, self._values = self._keys[indices], self._values[indices]
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]

    def _room(self, states: Tensor) -> Tensor:
        batch, heads, _, width = states.shape
        return torch.empty(batch, heads, self.capacity, width, dtype=states.dtype, device=states.device)


def new_cache(config: PretrainedConfig, capacity: int) -> Cache:
    """A cache for `capacity` tokens; models with other than full attention keep the one transformers gives them."""
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return DynamicCache(config=config)
    return Cache(layer_class_to_replicate=partial(RoomyLayer, capacity))  # type: ignore[arg-type]
