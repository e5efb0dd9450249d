"""Our GPT as a stock Hugging Face GPT-2 and back: a folder that loads where this package is not installed.

    python -m align.gpt.export runs/sft/model exported/

The computation is the same, so the logits are. What differs is bookkeeping: GPT-2's class keeps its matrices
transposed (`Conv1D`: input x output) and has one dropout rate for each place where we have one for all.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

from align.errors import UserError, exit_on_user_error
from align.gpt.config import GPTConfig
from align.gpt.model import GPTForCausalLM

Model = TypeVar("Model", bound=PreTrainedModel)

_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# "gelu_pytorch_tanh" is "gelu_new", computed in one kernel.
_ACTIVATIONS = {"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu"}


def export_gpt2(model: GPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path) -> None:
    """Writes `model` to `folder` as a `GPT2LMHeadModel` (config, safetensors, generation defaults), and the tokenizer.

    Special ids that the configuration leaves open are the tokenizer's. Raises UserError for what GPT-2's class cannot
    hold: another class, unmerged adapters, or a tokenizer with more tokens than the model has rows for.
    """
    if type(model) is not GPTForCausalLM:
        raise UserError(
            f"only GPTForCausalLM can become a GPT-2, and this is {type(model).__name__}; "
            "where it is a PEFT model, give model.merge_and_unload()"
        )
    if tokenizer is not None and len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {model.config.vocab_size} rows for them: "
            "give the tokenizer that the model was trained with, or call model.resize_token_embeddings first"
        )
    special_ids = {name: _special_id(name, model.config, tokenizer) for name in _SPECIAL_IDS}
    stock = _with_weights(GPT2LMHeadModel, _gpt2_config(model.config, special_ids), model.state_dict())
    stock.generation_config = copy.deepcopy(model.generation_config)
    stock.generation_config.update(**special_ids)
    stock.save_pretrained(folder)
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder)


def import_gpt2(hf_model: GPT2LMHeadModel) -> GPTForCausalLM:
    """A copy of a stock GPT-2 as our model, with equal logits. Raises UserError for variants that ours lacks."""
    config = hf_model.config
    if problems := _import_problems(config):
        raise UserError("this GPT-2 cannot be imported: " + "; ".join(problems))
    ours = GPTConfig(
        vocab_size=config.vocab_size,
        n_positions=config.n_positions,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        activation=_ACTIVATIONS[config.activation_function],
        dropout=config.resid_pdrop,
        layer_norm_epsilon=config.layer_norm_epsilon,
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_word_embeddings,
        **{name: getattr(config, name) for name in _SPECIAL_IDS},
    )
    model = _with_weights(GPTForCausalLM, ours, hf_model.state_dict())
    model.generation_config = copy.deepcopy(hf_model.generation_config)
    return model


def _special_id(name: str, config: GPTConfig, tokenizer: PreTrainedTokenizerBase | None) -> int | list[int] | None:
    configured = getattr(config, name)
    return configured if configured is not None or tokenizer is None else getattr(tokenizer, name)


def _gpt2_config(config: GPTConfig, special_ids: dict[str, Any]) -> GPT2Config:
    return GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.n_positions,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        activation_function=config.activation,  # GPT2Config's default is the tanh form, off by 2.5e-5 for erf models
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        layer_norm_epsilon=config.layer_norm_epsilon,
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_word_embeddings,
        **special_ids,  # even where None: GPT2Config's default is 50256, beyond a small vocabulary
    )


def _import_problems(config: GPT2Config) -> list[str]:
    """What of GPT-2's many switches our model does not have."""
    found = []
    if config.activation_function not in _ACTIVATIONS:
        found.append(f"activation_function = {config.activation_function!r}, not one of {', '.join(_ACTIVATIONS)}")
    if config.n_inner not in (None, 4 * config.n_embd):
        found.append(f"n_inner = {config.n_inner}, not 4 x n_embd = {4 * config.n_embd}")
    dropouts = {name: getattr(config, name) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(set(dropouts.values())) > 1:
        found.append(f"{dropouts} differ; set them to one rate first")
    wanted = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
    found += [f"{name} is not {value}" for name, value in wanted.items() if getattr(config, name) != value]
    return found


def _with_weights(model_class: type[Model], config: Any, state: dict[str, Tensor]) -> Model:
    """A model of `model_class` that holds copies of the tensors of `state`, with the `Conv1D` matrices turned round."""
    turned = {
        name: value.t().contiguous() if name.endswith(_TRANSPOSED) else value.clone() for name, value in state.items()
    }
    with torch.device("meta"):  # neither memory nor time for weights that are replaced at once
        model = model_class(config)
    model.load_state_dict(turned, assign=True)
    model.tie_weights()
    return model.eval()


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Without `token_type_ids`: GPT-2's class would add their token embeddings to the input, and change the logits."""
    saved = copy.deepcopy(tokenizer)
    saved.model_input_names = ["input_ids", "attention_mask"]
    saved.save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m align.gpt.export", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model_folder", type=Path, help="a model of ours, such as runs/sft/model")
    parser.add_argument("out_folder", type=Path, help="where the stock GPT-2 goes")
    folders = parser.parse_args(argv)
    model_folder, out_folder = folders.model_folder, folders.out_folder
    if out_folder.is_file() or out_folder.resolve() == model_folder.resolve():
        raise UserError(f"{out_folder}: give another folder for the export, which would overwrite this one")
    model = _load(model_folder)
    has_tokenizer = (model_folder / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(model_folder) if has_tokenizer else None
    export_gpt2(model, tokenizer, out_folder)
    with_tokenizer = "with its tokenizer" if has_tokenizer else "without a tokenizer"
    print(f"{out_folder}: a GPT2LMHeadModel of {model.num_parameters():,} parameters, {with_tokenizer}")


def _load(folder: Path) -> GPTForCausalLM:
    """The model of a folder. Raises UserError where there is none, or not ours, or not whole."""
    _check_is_ours(folder)
    try:
        loaded: Any = GPTForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: the model does not load: {error}") from error
    model, report = loaded
    wrong = {kind: sorted(keys) for kind, keys in report.items() if keys}
    if wrong:
        raise UserError(f"{folder}: its weights are not those of a GPTForCausalLM: {wrong}")
    return model


def _check_is_ours(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder}: this is a LoRA adapter; merge it into its base (merge_and_unload) and save that")
    config_file = folder / "config.json"
    try:
        model_type = json.loads(config_file.read_text(encoding="utf-8")).get("model_type")
    except OSError as error:
        raise UserError(f"{config_file}: {error.strerror}; give a folder that holds a model of ours") from error
    except (ValueError, AttributeError) as error:
        raise UserError(f"{config_file}: this is not the JSON of a model's configuration: {error}") from error
    if model_type != GPTConfig.model_type:
        raise UserError(f"{config_file}: model_type is {model_type!r}, and only {GPTConfig.model_type!r} is exported")


if __name__ == "__main__":
    exit_on_user_error(main)
