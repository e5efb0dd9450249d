"""Converts between our GPT and Hugging Face's stock GPT-2. Runs save the stock form, which every tool reads.

The computation and the logits are the same. The stock class stores its matrices transposed (`Conv1D`: input x output)
and has three dropout rates where we have one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model

from align.gpt.config import GPTConfig
from align.gpt.model import GPTForCausalLM, GPTForSequenceClassification, GPTModel

_STOCK: dict[type, type] = {
    GPTForCausalLM: GPT2LMHeadModel,
    GPTModel: GPT2Model,
    GPTForSequenceClassification: GPT2ForSequenceClassification,
}
_OURS = {stock: ours for ours, stock in _STOCK.items()}
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
# "gelu_pytorch_tanh" is "gelu_new", computed in one kernel.
_ACTIVATIONS = {"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu"}
# These have the same names in both configurations. The last ones belong to classifiers.
_SHARED = (
    *("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon", "initializer_range"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "problem_type"),
)


def as_stock(model: Any, empties: bool = False) -> Any:
    """Our model as the equivalent stock class. Any other model is returned unchanged.

    Weights that are not transposed are shared. With `empties` all weights move, and `model` cannot be used afterwards.
    """
    if type(model) not in _STOCK:
        return model
    config = model.config
    settings = dict.fromkeys(_DROPOUTS, config.dropout) | {"activation_function": config.activation}
    settings |= {"score_shift": config.score_shift} if hasattr(config, "score_shift") else {}
    return _converted(_STOCK[type(model)], GPT2Config(**_shared(config), **settings), model, empties)


def as_ours(stock: Any) -> Any:
    """A stock GPT-2 as our class, which is faster. Any other model, and unsupported variants, are returned unchanged.

    The weights move: `stock` is empty afterwards, so they are never in memory twice.
    """
    ours = config_as_ours(stock.config) if type(stock) in _OURS else stock.config
    if not isinstance(ours, GPTConfig) or type(stock) not in _OURS:
        return stock
    return _converted(_OURS[type(stock)], ours, stock, True)


def config_as_ours(config: Any) -> Any:
    """The configuration of a stock GPT-2 as ours. Any other, and unsupported variants, are returned unchanged."""
    if type(config) is not GPT2Config or not _is_supported(config):
        return config
    settings: dict[str, Any] = {"activation": _ACTIVATIONS[config.activation_function], "dropout": config.resid_pdrop}
    ours = GPTConfig(**_shared(config), **settings)
    ours._name_or_path, ours.dtype, ours.architectures = config._name_or_path, config.dtype, config.architectures
    return ours


def _shared(config: Any) -> dict[str, Any]:
    return {name: copy.deepcopy(getattr(config, name)) for name in _SHARED}


def _is_supported(config: GPT2Config) -> bool:
    """Whether our model supports all options that this GPT-2 uses."""
    return (
        config.activation_function in _ACTIVATIONS
        and config.n_inner in (None, 4 * config.n_embd)
        and len({getattr(config, name) for name in _DROPOUTS}) == 1
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
        and not config.add_cross_attention
        and not hasattr(config, "quantization_config")
    )


def _converted(model_class: type, config: Any, model: Any, empties: bool) -> Any:
    """A model of `model_class` with the weights of `model`; the `Conv1D` matrices are transposed."""
    weights = model.state_dict()
    generation, training = getattr(model, "generation_config", None), model.training
    if empties:
        model.to("meta")
    for name in weights:
        if name.endswith(_TRANSPOSED):
            weights[name] = weights[name].t().contiguous()
    with torch.device("meta"):  # no memory or time for initial weights that are replaced at once
        converted: Any = model_class(config)
    converted.load_state_dict(weights, assign=True)
    converted.tie_weights()
    if generation is not None:
        converted.generation_config = copy.deepcopy(generation)
    return converted.train(training)
