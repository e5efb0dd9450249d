"""Loads models: any `AutoModelForCausalLM` folder or hub name, our own, or a PEFT adapter on its base.

An adapter that is found at the path is merged into its base first, in full precision. So what a stage starts from is
always one whole model, and "the adapter switched off" is exactly the model at step 0.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from align import sections
from align.errors import UserError
from align.models.adapters import POLICY, copy_adapter, misfit, tie_adapters, trunk_of
from align.models.language import check_causal
from align.models.lora import (
    add_lora,
    check_quantization,
    check_quantized,
    first_line,
    freeze_unreached,
    hold_idle_experts,
    merge,
    packed_as,
    quantization_config,
    unpacked,
    unpacking,
)
from align.models.purpose import Purpose, check_purpose

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_causal_lm(model: sections.Model, dtype: torch.dtype = torch.float32, n_tokens: int = 0) -> PreTrainedModel:
    """The model with its vocabulary head, its base quantised and with a fresh LoRA adapter if the recipe says so.

    Its embedding gets a row for each of the tokenizer's `n_tokens`, such as a pad token that the model lacked.
    """
    from transformers import AutoModelForCausalLM

    load_config(model, to="speak")
    return _load(AutoModelForCausalLM, model, dtype, n_tokens)


def load_trunk(model: sections.Model, dtype: torch.dtype = torch.float32, n_tokens: int = 0) -> PreTrainedModel:
    """The same without the vocabulary head: what a reward or value head stands on."""
    from transformers import AutoModel

    return _load(AutoModel, model, dtype, n_tokens)


def load_config(model: sections.Model, key: str = "model.path", to: Purpose | None = None) -> PretrainedConfig:
    """The model's configuration alone.

    Raises `UserError` if there is no model at its path, which `key` gave, or one that is not there `to` do this.
    """
    from transformers import AutoConfig

    path = _base_path(model.path)
    with _loading_errors(model.path, key):
        config = AutoConfig.from_pretrained(path, trust_remote_code=model.trust_remote_code)
    if packed_as(config, path, key):
        del config.quantization_config  # it is unpacked as it is loaded
    if to is not None:
        check_purpose(model.path, config, to, key)
    return config


def base_dtype(model: sections.Model, precision: str) -> torch.dtype:
    """What the base is kept in: fp32 if it is trained, the computing precision if it is frozen below an adapter."""
    return torch.bfloat16 if model.adapter == "lora" and precision == "bf16" else torch.float32


def max_positions(config: PretrainedConfig) -> int | None:
    """The longest sequence that the model has positions for; None if it says no limit.

    Rotary factors of the longrope kind (Phi-3, Phi-4) are others for every row of a batch whose longest row passes
    `original_max_position_embeddings`: beyond it what a row says would depend on its batch, so there the limit is.
    """
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if limit is not None and limit < 1:  # XLNet says -1
        return None
    if limit is not None and rope.get("rope_type") == "longrope":
        return min(limit, rope["original_max_position_embeddings"])
    return limit


def _load(auto_class: Any, model: sections.Model, dtype: torch.dtype, n_tokens: int) -> PreTrainedModel:
    quantizes = model.quantization != "none"
    if quantizes:
        check_quantization(model.quantization)
    # An adapter is merged, and what is packed otherwise unpacked, in full precision, and only then quantised.
    if quantizes and (is_adapter(model.path) or _packed(model.path, model)):
        with tempfile.TemporaryDirectory() as folder:
            load_whole(auto_class, model.path, model, n_tokens).save_pretrained(folder)
            base = _from_pretrained(auto_class, folder, model, dtype)
    elif quantizes:
        base = _from_pretrained(auto_class, model.path, model, dtype)
        fit_vocabulary(base, n_tokens)
    else:
        base = load_whole(auto_class, model.path, model, n_tokens, dtype)
    check_causal(base)
    if quantizes:
        check_quantized(base, model.quantization)
    if model.adapter == "lora":
        base = add_lora(base, model)
    else:
        freeze_unreached(base)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        hold_idle_experts(base)
    return base


def load_whole(
    auto_class: Any, path: str, model: sections.Model, n_tokens: int, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The plain model at `path`: with an adapter's weights, if that is what stands there, added to its base's."""
    if not is_adapter(path):
        plain = model.model_copy(update={"quantization": "none"})
        whole = _from_pretrained(auto_class, path, plain, dtype)
        fit_vocabulary(whole, n_tokens)
        return whole
    from peft import PeftModel
    from transformers import AutoModel, AutoModelForCausalLM

    settings = _adapter_settings(path)
    # An adapter that does not say what it was made for was made for what it is wanted for.
    of_language_model = settings.get("task_type") == "CAUSAL_LM" or auto_class is AutoModelForCausalLM
    base_class = AutoModelForCausalLM if of_language_model else AutoModel
    base = load_whole(base_class, settings["base_model_name_or_path"], model, n_tokens, torch.float32)
    with _loading_errors(path), torch.random.fork_rng():  # PEFT draws weights that it then overwrites
        try:
            adapted = PeftModel.from_pretrained(base, path)
        except RuntimeError as error:  # it lists each tensor whose size differs, after a headline
            raise misfit(path, str(error).strip().splitlines()[-1].strip().rstrip(".")) from None
        if settings["peft_type"] == "LORA":
            copy_adapter(adapted, POLICY, path)  # PEFT does not, if one stands on the whole model and one on its trunk
        tie_adapters(adapted, POLICY)
        merged = merge(adapted, path)
    wants_trunk = of_language_model and auto_class is AutoModel
    return (trunk_of(merged) if wants_trunk else merged).to(dtype)


def fit_vocabulary(model: PreTrainedModel, n_tokens: int) -> None:
    """Gives the embedding a row for each token of the tokenizer, such as a pad token that the model lacked."""
    embedding: Any = model.get_input_embeddings()
    if embedding.weight.shape[0] < n_tokens:
        model.resize_token_embeddings(n_tokens)


def _from_pretrained(auto_class: Any, path: str, model: sections.Model, dtype: torch.dtype) -> PreTrainedModel:
    arguments: dict[str, Any] = {"dtype": dtype, "trust_remote_code": model.trust_remote_code}
    if model.quantization != "none":
        arguments["quantization_config"] = quantization_config(model.quantization, dtype)
    packed = _packed(path, model)
    if packed:
        arguments |= unpacking(packed)
    transformers_logging.disable_progress_bar()  # a run has its own progress line
    with _loading_errors(path), _without_report():
        loaded, found = auto_class.from_pretrained(path, output_loading_info=True, **arguments)
    _no_random_trunk(path, auto_class, found["missing_keys"])
    if packed:
        return unpacked(loaded, dtype)
    for module in loaded.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On such CPUs bitsandbytes repacks 4-bit weights at the first forward without gradients, for a kernel that
            # has no backward: from then on gradients are 0 or wrong (0.50.2, nn/modules.py, Linear4bit.forward).
            module.support_avx512bf16_for_cpu = False
    if model.quantization != "none":
        _let_go_of_files(loaded)
    return loaded


def _let_go_of_files(model: torch.nn.Module) -> None:
    """Copies what was not quantised: as a view of its file it would keep the whole file's pages in memory."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()


def _packed(path: str, model: sections.Model) -> str:
    """How the weights of a whole model are packed into low bits in its files; "" if they are not."""
    from transformers import AutoConfig

    with _loading_errors(path):
        return packed_as(
            AutoConfig.from_pretrained(path, trust_remote_code=model.trust_remote_code), path, "model.path"
        )


@contextmanager
def _without_report() -> Iterator[None]:
    """No table of keys that were not read: a trunk leaves its head, of words or of scores, where it lies."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _no_random_trunk(path: str, auto_class: Any, missing: set[str]) -> None:
    """Raises `UserError` for weights that the files lack and transformers has drawn at random."""
    if missing:
        names = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"model.path = {path!r}: its files lack {len(missing)} of the weights that {auto_class.__name__} needs "
            f"({names}), which would begin at random; give a whole model"
        )


def is_adapter(path: str | Path) -> bool:
    """Whether a folder holds a PEFT adapter and not a whole model."""
    return (Path(path) / "adapter_config.json").is_file()


def _adapter_settings(path: str | Path) -> dict[str, Any]:
    return json.loads((Path(path) / "adapter_config.json").read_text(encoding="utf-8"))


def adapter_base(path: str | Path) -> str:
    """What the adapter in a folder stands on."""
    return str(_adapter_settings(path)["base_model_name_or_path"])


def adapter_shape(path: str | Path) -> sections.Lora:
    """The shape of the adapter in a folder."""
    saved = _adapter_settings(path)
    modules = saved["target_modules"]
    return sections.Lora(
        rank=saved["r"],
        alpha=saved["lora_alpha"],
        dropout=saved["lora_dropout"],
        target_modules=sorted(modules) if isinstance(modules, list) else None,
    )


def _base_path(path: str) -> str:
    """The whole model at the bottom of a path, below all adapters."""
    while is_adapter(path):
        path = _adapter_settings(path)["base_model_name_or_path"]
    return path


def merge_adapter(auto_class: Any, adapter: str | Path, base: sections.Model, n_tokens: int = 0) -> PreTrainedModel:
    """The base in full precision with the weights of the adapter in a folder added."""
    return load_whole(auto_class, str(adapter), base, n_tokens)


@contextmanager
def _loading_errors(path: str, key: str = "model.path") -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        if not Path(path).exists() and path.count("/") != 1:  # a hub name is owner/name
            raise UserError(f"{key} = {path!r}: there is no such folder; train it first, or name another") from None
        raise UserError(
            f"{key} = {path!r}: no model can be loaded from it ({first_line(error)}). Give a folder with config.json "
            "and model.safetensors, an adapter folder, or a hub name that this machine can reach"
        ) from None
