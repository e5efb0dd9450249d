"""Merges an adapter into its base, and checks the result against the two.

PEFT's merge is not trusted: layers may share a weight, and experts may be stacked in one. The merged model must give
the outputs of the adapted one on a few ids from all over the vocabulary, else it is refused.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from align.errors import UserError, first_line
from align.models.adapters import (
    POLICY,
    Role,
    adapted_weight,
    adapter_parameters,
    fitting_tensors,
    trunk_of,
    tuned_layers,
)

TOLERANCE = 1e-3  # of a merged model's fp32 outputs, relative to their spread


def merge(adapted: Any, folder: str) -> Any:
    """Merges a PEFT model's adapter into its weights and returns the plain model.

    An adapted head that shares its weight with the embedding gets its own weight. Layers that share a weight and an
    adapter are merged once. Raises `UserError` if the outputs of the plain model differ from those of the adapted one.
    """
    if not hasattr(adapted, "merge_and_unload"):
        kind = adapted.peft_config[POLICY].peft_type.value
        raise UserError(f"{folder}: an adapter of type {kind} cannot be merged into a model; give a LoRA adapter")
    ids = probe(adapted)
    expected = _answer_or_none(adapted, ids)
    places = Counter(id(p) for _, p in adapted.named_parameters(remove_duplicate=False))
    ends = [_weight_holder(adapted.get_input_embeddings()), _weight_holder(adapted.get_output_embeddings())]
    first: dict[int, Any] = {}
    for layer in tuned_layers(adapted):
        weight, holder = adapted_weight(layer), layer.get_base_layer()
        if places[id(weight)] > 1 and holder in ends:
            holder.weight = nn.Parameter(weight.detach().clone())
        elif first.setdefault(id(weight), layer) is not layer:
            layer.merged_adapters.extend(layer.active_adapters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about embeddings that are no longer tied
            merged = adapted.merge_and_unload().requires_grad_(True)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"{folder}: this adapter cannot be merged into its base: {first_line(error)}") from None
    check_same(_answer_or_none(merged, ids), expected, folder)
    return merged


def check_same(found: Tensor | None, expected: Tensor | None, folder: str) -> None:
    """Raises `UserError` if the outputs of a merged model differ from the expected ones. found, expected: (8, time, n).

    A few of the eight rows may differ, because rounding can decide between two nearly equal experts. A wrong merge
    changes all rows.
    """
    if found is None or expected is None:
        return
    spread = float(expected.float().std())
    apart = (found.float().cpu() - expected.float().cpu()).square().flatten(1).mean(1).sqrt()
    if not float(apart.median()) <= TOLERANCE * spread:
        raise UserError(
            f"{folder}: the merged model's outputs differ from those of the adapter on its base (by "
            f"{float(apart.max()):.3g}, with a spread of {spread:.3g}), so no merged model is written. The adapter is "
            "kept: use it with PEFT on its base, or train a plain LoRA adapter"
        )


def check_trained(model: Any, adapter: str, merged: Any, folder: str) -> None:
    """Raises `UserError` unless a folder has the tensors of a PEFT model's adapter and `merged` has its outputs.

    The outputs of a base in low bits or bf16 differ by rounding. There only the adapter's tensors are compared; `merge`
    has already checked them on the full-precision base.
    """
    tensors = fitting_tensors(model, adapter, folder)
    if any(not torch.equal(p.cpu(), tensors[name]) for name, p in adapter_parameters(model, adapter).items()):
        raise UserError(f"{folder}: the saved adapter is not the one that was trained; check the disk")
    role, whole = Role(), model.get_base_model()
    role.model, role.adapter = whole, adapter
    trained = whole if merged.get_output_embeddings() is not None else trunk_of(whole)
    exact = all(p.dtype == torch.float32 for p in whole.parameters())
    if not exact:
        return
    with role.active():
        expected = _answer_or_none(trained, probe(trained))
    check_same(_answer_or_none(merged, probe(merged)), expected, folder)


def probe(model: Any) -> Tensor:
    """(8, 8) ids from all over the vocabulary, without the special tokens of the configuration."""
    meanings = [value for name, value in model.config.to_dict().items() if name.endswith("token_id")]
    special = {word for value in meanings for word in (value if isinstance(value, list) else [value])}
    plain = [word for word in range(model.config.get_text_config().vocab_size) if word not in special]
    return torch.tensor([plain[i * len(plain) // 64] for i in range(64)], device=model.device).view(8, 8)


def answer(model: Any, ids: Tensor) -> Tensor:
    """Logits, or a trunk's last hidden state, in evaluation mode; (batch, time, n)."""
    was_training = [module for module in model.modules() if module.training]
    try:
        found = model.eval()(input_ids=ids, use_cache=False)
    finally:
        for module in was_training:
            module.training = True
    return found.logits if getattr(found, "logits", None) is not None else found.last_hidden_state


@torch.no_grad()
def _answer_or_none(model: Any, ids: Tensor) -> Tensor | None:
    """The outputs; None, with a warning, if the model's code does not run on this device."""
    try:
        return answer(model, ids)
    except Exception as error:  # a model's code may raise anything
        warnings.warn(f"the merged model is not checked against its adapter: {first_line(error)}", stacklevel=2)
        return None


def _weight_holder(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module
