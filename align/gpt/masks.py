"""Attention masks and positions: pure functions of an attention mask and the number of cached tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def token_positions(
    attention_mask: Tensor | None, n_past: int | Tensor, n_new: int, device: torch.device
) -> Tensor:  # (batch or 1, n_new)
    """Positions of the new tokens. A token's position is the number of real tokens before it, so padding has none.

    `attention_mask` is (batch, n_past + n_new), nonzero at real tokens. Without it all tokens are counted.
    """
    if attention_mask is None or attention_mask.dim() != 2:
        return torch.arange(n_new, device=device).unsqueeze(0) + n_past
    return ((attention_mask != 0).cumsum(-1) - 1).clamp_(min=0)[:, -n_new:]


def attention_bias(
    attention_mask: Tensor | None,
    n_past: int | Tensor,
    n_new: int,
    n_keys: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor | None:  # (batch or 1, 1, n_new, n_keys)
    """The bias on attention scores: 0 for visible keys, -inf for others. None if no mask is needed.

    None means plain causal attention, or one new token that sees every key; attention then takes its fast path. A given
    mask is never tested for being all ones, because that would stall a GPU. A mask of 4 dimensions is already such a
    bias (or a boolean, True = visible) and is returned unchanged.

    `n_keys` exceeds n_past + n_new in caches of fixed size; their empty tail is hidden.
    """
    if attention_mask is None:
        one_token_sees_all = n_new == 1 and isinstance(n_past, int) and n_keys == n_past + 1
        if n_keys == n_new or one_token_sees_all:
            return None
    elif attention_mask.dim() == 4:
        return attention_mask
    keys = torch.arange(n_keys, device=device)
    queries = (torch.arange(n_new, device=device) + n_past).unsqueeze(-1)  # (n_new, 1)
    visible = keys <= queries  # (n_new, n_keys)
    if attention_mask is not None:
        real = _widened(attention_mask != 0, n_past, n_new, n_keys)[:, None, None, :]
        # A padding token sees itself, because a softmax over nothing would be NaN. Its output is not used.
        visible = (visible & real) | (keys == queries)
    bias = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, float("-inf"))
    return bias if bias.dim() == 4 else bias[None, None]


def _widened(real: Tensor, n_past: int | Tensor, n_new: int, n_keys: int) -> Tensor:  # (batch, n_keys)
    """Extends the mask to all keys of the cache. Raises ValueError if it does not cover the cached and new tokens."""
    width = real.shape[-1]
    if real.dim() != 2 or (isinstance(n_past, int) and width != n_past + n_new):
        raise ValueError(
            f"attention_mask has shape {tuple(real.shape)}, but there are {n_past} cached and {n_new} new tokens: "
            f"give (batch, {n_past + n_new}), including the cached tokens, or a mask of 4 dimensions"
        )
    return torch.nn.functional.pad(real, (0, n_keys - width))
