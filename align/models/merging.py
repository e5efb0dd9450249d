"""A whole model made of an adapter and its base, and held against the two.

What PEFT adds up is not taken on trust: layers may share a weight, and experts may be stacked in one. A merged model
must answer as the adapted one did, on a few ids from all over the vocabulary, or it is refused.
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

TOLERANCE = 1e-3  # of a merged model's outputs in fp32, of their spread


def merge(adapted: Any, folder: str) -> Any:
    """A PEFT model as a plain one, with its adapter's products added to the weights.

    A head that was adapted and shares its weight with the embedding gets one of its own; layers that share a weight and
    an adapter take it once. Raises `UserError` if the plain model answers otherwise than the adapted one.
    """
    if not hasattr(adapted, "merge_and_unload"):
        kind = adapted.peft_config[POLICY].peft_type.value
        raise UserError(f"{folder}: an adapter of the kind {kind} is no part of a whole model; give one of LoRA's kind")
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
            warnings.simplefilter("ignore", UserWarning)  # that they are tied no more
            merged = adapted.merge_and_unload().requires_grad_(True)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"{folder}: this adapter cannot be merged into its base: {first_line(error)}") from None
    check_same(_answer_or_none(merged, ids), expected, folder)
    return merged


def check_same(found: Tensor | None, expected: Tensor | None, folder: str) -> None:
    """Raises `UserError` unless a merged model answers as what it was made of. found, expected: (8, time, n).

    Some rows of eight may differ: where two experts are as good as equal, rounding decides between them. A wrong merge
    changes all.
    """
    if found is None or expected is None:
        return
    spread = float(expected.float().std())
    apart = (found.float().cpu() - expected.float().cpu()).square().flatten(1).mean(1).sqrt()
    if not float(apart.median()) <= TOLERANCE * spread:
        raise UserError(
            f"{folder}: a whole model made of this adapter and its base answers otherwise than the two did (by "
            f"{float(apart.max()):.3g}, where answers spread by {spread:.3g}), so none is written. The adapter is kept "
            "as it is: use it with PEFT on the base that it was trained on, or train one of plain LoRA"
        )


def check_trained(model: Any, adapter: str, merged: Any, folder: str) -> None:
    """Raises `UserError` unless a folder holds what a PEFT model's adapter is now, and `merged` answers like both.

    A base in low bits or bf16 answers otherwise than the whole one by its rounding; there the adapter's numbers alone
    are compared, which `merge` has held against the whole base.
    """
    tensors = fitting_tensors(model, adapter, folder)
    if any(not torch.equal(p.cpu(), tensors[name]) for name, p in adapter_parameters(model, adapter).items()):
        raise UserError(f"{folder}: what is written there is not the adapter that was trained; is the disk sound?")
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
    """(8, 8) ids from all over the vocabulary, none of them one that the configuration gives a meaning."""
    meanings = [value for name, value in model.config.to_dict().items() if name.endswith("token_id")]
    special = {word for value in meanings for word in (value if isinstance(value, list) else [value])}
    plain = [word for word in range(model.config.get_text_config().vocab_size) if word not in special]
    return torch.tensor([plain[i * len(plain) // 64] for i in range(64)], device=model.device).view(8, 8)


def answer(model: Any, ids: Tensor) -> Tensor:
    """Logits, or a trunk's last hidden state, in evaluation mode and as they are; (batch, time, n)."""
    was_training = [module for module in model.modules() if module.training]
    try:
        found = model.eval()(input_ids=ids, use_cache=False)
    finally:
        for module in was_training:
            module.training = True
    return found.logits if getattr(found, "logits", None) is not None else found.last_hidden_state


@torch.no_grad()
def _answer_or_none(model: Any, ids: Tensor) -> Tensor | None:
    """None, with a warning, from a model whose code does not run on this device."""
    try:
        return answer(model, ids)
    except Exception as error:  # whatever the code of a model raises
        warnings.warn(f"a merged model is not compared with its adapter: {first_line(error)}", stacklevel=2)
        return None


def _weight_holder(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module
