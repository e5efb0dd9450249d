"""Loads models: any `AutoModelForCausalLM` folder or hub name, or a PEFT adapter on its base. A GPT-2 becomes our GPT.

An adapter at the path is first merged into its base, in full precision. So a stage always starts from one whole model,
and the model with its new adapter switched off is exactly the model at step 0.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from align import sections
from align.errors import UserError, first_line
from align.gpt.stock import as_ours, config_as_ours
from align.models.adapters import POLICY, copy_adapter, misfit, tie_adapters, trunk_of
from align.models.language import check_causal
from align.models.lora import add_lora, freeze_unreached, hold_idle_experts
from align.models.low_bits import (
    check_quantization,
    check_quantized,
    packed_as,
    quantization_config,
    unpacked,
    unpacking,
)
from align.models.merging import merge
from align.models.purpose import Purpose, check_purpose
from align.text.tokenizer import stored_at

# Our adapters set fan_in_fan_out for a stock GPT-2 base with transposed matrices; PEFT warns that ours are not.
warnings.filterwarnings("ignore", "fan_in_fan_out is set to")

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_causal_lm(model: sections.Model, dtype: torch.dtype = torch.float32, n_tokens: int = 0) -> PreTrainedModel:
    """The model with its vocabulary head. The recipe may quantise the base and add a new LoRA adapter.

    Its embedding gets a row for each of the tokenizer's `n_tokens`, such as a pad token that the model lacks.
    """
    from transformers import AutoModelForCausalLM

    load_config(model, to="generate")
    return _load(AutoModelForCausalLM, model, dtype, n_tokens)


def load_trunk(model: sections.Model, dtype: torch.dtype = torch.float32, n_tokens: int = 0) -> PreTrainedModel:
    """The same without the vocabulary head, for a reward or value head."""
    from transformers import AutoModel

    return _load(AutoModel, model, dtype, n_tokens)


def load_config(model: sections.Model, key: str = "model.path", to: Purpose | None = None) -> PretrainedConfig:
    """The configuration of the model as it is loaded.

    Raises `UserError`, which names `key`, if there is no model at its path or if it has another purpose than `to`.
    """
    config = stored_config(model, key)
    if to is not None:
        check_purpose(model.path, config, to, key)
    return config_as_ours(config)


def stored_config(model: sections.Model, key: str = "model.path") -> PretrainedConfig:
    """The configuration in the model's files."""
    path = _base_path(model.path)
    config = _read_config(path, model, key)
    if packed_as(config, path, key):
        del config.quantization_config  # the weights are unpacked at loading
    return config


def _read_config(path: str, model: sections.Model, key: str = "model.path") -> Any:
    """The configuration of a whole model. An invalid pad id is removed."""
    from transformers import AutoConfig

    source, gguf = stored_at(path)
    with _loading_errors(path, key):
        config = AutoConfig.from_pretrained(source, trust_remote_code=model.trust_remote_code, **gguf)
    if gguf and hasattr(config, "quantization_config"):  # the weights are unpacked at loading
        del config.quantization_config
    text = config.get_text_config()
    pad, n_rows = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if pad is not None and n_rows is not None and not 0 <= pad < n_rows:  # -1 for "none", or from a larger tokenizer
        text.pad_token_id = None
    return config


def stored_dtype(model: sections.Model) -> torch.dtype:
    """The dtype of the stored weights, for an adapter that of its base; fp32 for weights that are not floats."""
    config = stored_config(model)
    found = config.dtype or config.get_text_config().dtype or _dtype_of_files(Path(_base_path(model.path)))
    dtype = getattr(torch, found) if isinstance(found, str) else found
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32


def _dtype_of_files(folder: Path) -> torch.dtype | None:
    """The dtype of the largest tensor in the first of a folder's safetensors."""
    for path in sorted(folder.glob("*.safetensors"))[:1]:
        with safe_open(path, "pt") as file:
            slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 (not a dict)
            largest: Any = max(slices, key=lambda tensor: math.prod(tensor.get_shape()))
            return {"BF16": torch.bfloat16, "F16": torch.float16}.get(largest.get_dtype())
    return None


def round_to(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Rounds a model's weights in place, except those that its class keeps in fp32."""
    kept = set(model._keep_in_fp32_modules_strict or ())
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not kept.intersection(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def base_dtype(model: sections.Model, precision: str) -> torch.dtype:
    """The dtype of the base: fp32 if it is trained, the computing precision if it is frozen below an adapter."""
    return torch.bfloat16 if model.adapter == "lora" and precision == "bf16" else torch.float32


def max_positions(config: PretrainedConfig) -> int | None:
    """The longest sequence that the model has positions for; None if it has no limit.

    Rotary factors of the type longrope (Phi-3, Phi-4) change for a whole batch if its longest row exceeds
    `original_max_position_embeddings`. A row's output would then depend on its batch, so that is the limit.
    """
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if limit is not None and limit < 1:  # XLNet has -1
        return None
    if limit is not None and rope.get("rope_type") == "longrope":
        return min(limit, rope["original_max_position_embeddings"])
    return limit


def _load(auto_class: Any, model: sections.Model, dtype: torch.dtype, n_tokens: int) -> PreTrainedModel:
    quantizes = model.quantization != "none"
    if quantizes:
        check_quantization(model.quantization)
    if quantizes and _is_rebuilt(model):  # first in full precision, then quantised
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


def _is_rebuilt(model: sections.Model) -> bool:
    """Whether the files have other matrices than the loaded model: an adapter, a stock GPT-2, packed weights."""
    if is_adapter(model.path) or model.path.endswith(".gguf"):
        return True
    stored = _read_config(model.path, model)
    return bool(packed_as(stored, model.path, "model.path")) or config_as_ours(stored) is not stored


def load_whole(
    auto_class: Any, path: str, model: sections.Model, n_tokens: int, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The plain model at `path`. An adapter is merged into its base."""
    if not is_adapter(path):
        plain = model.model_copy(update={"quantization": "none"})
        whole = _from_pretrained(auto_class, path, plain, dtype)
        fit_vocabulary(whole, n_tokens)
        return whole
    from peft import PeftModel
    from transformers import AutoModel, AutoModelForCausalLM

    path, settings = stored_at(path)[0], _adapter_settings(path)
    # An adapter without a task_type is taken for what is being loaded.
    of_language_model = settings.get("task_type") == "CAUSAL_LM" or auto_class is AutoModelForCausalLM
    base_class = AutoModelForCausalLM if of_language_model else AutoModel
    base = load_whole(base_class, settings["base_model_name_or_path"], model, n_tokens, torch.float32)
    with _loading_errors(path), torch.random.fork_rng():  # PEFT draws random weights before it reads the saved ones
        try:
            adapted = PeftModel.from_pretrained(base, path)
        except RuntimeError as error:  # after a first line it lists each tensor of another size
            raise misfit(path, str(error).strip().splitlines()[-1].strip().rstrip(".")) from None
        if settings["peft_type"] == "LORA":
            copy_adapter(adapted, POLICY, path)  # PEFT skips tensors of a trunk's adapter on the whole model
        tie_adapters(adapted, POLICY)
        merged = merge(adapted, path)
    wants_trunk = of_language_model and auto_class is AutoModel
    return (trunk_of(merged) if wants_trunk else merged).to(dtype)


def fit_vocabulary(model: PreTrainedModel, n_tokens: int) -> None:
    """Grows the embedding to a row for each token of the tokenizer, such as a pad token that the model lacks."""
    embedding: Any = model.get_input_embeddings()
    if embedding.weight.shape[0] < n_tokens:
        model.resize_token_embeddings(n_tokens)


def _from_pretrained(auto_class: Any, path: str, model: sections.Model, dtype: torch.dtype) -> PreTrainedModel:
    config = _read_config(path, model)
    arguments: dict[str, Any] = {"config": config, "dtype": dtype, "trust_remote_code": model.trust_remote_code}
    source, gguf = stored_at(path)
    arguments |= gguf
    if model.quantization != "none":
        arguments["quantization_config"] = quantization_config(model.quantization, dtype)
    packed = packed_as(config, path, "model.path")
    if packed:
        arguments |= unpacking(packed)
    transformers_logging.disable_progress_bar()  # a run has its own progress line
    with _loading_errors(path), _without_report():
        loaded, found = auto_class.from_pretrained(source, output_loading_info=True, **arguments)
    if gguf:  # the loaded model is a plain one, in `dtype`
        loaded.hf_quantizer = None
        loaded.config.__dict__.pop("quantization_config", None)
    _no_random_trunk(path, auto_class, found["missing_keys"])
    if packed:
        return as_ours(unpacked(loaded, dtype))
    for module in loaded.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On such CPUs bitsandbytes repacks 4-bit weights at the first forward pass without gradients, for a kernel
            # without a backward pass: after that, gradients are 0 or wrong (0.50.2, nn/modules.py, Linear4bit.forward).
            module.support_avx512bf16_for_cpu = False
    if model.quantization != "none":
        _release_files(loaded)
    return as_ours(loaded)


def _release_files(model: torch.nn.Module) -> None:
    """Copies the weights that are not quantised: a view of the file would keep the whole file's pages in memory."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()


@contextmanager
def _without_report() -> Iterator[None]:
    """Turns off transformers' table of unused keys: a trunk never reads its head."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _no_random_trunk(path: str, auto_class: Any, missing: set[str]) -> None:
    """Raises `UserError` for weights that are not in the files, which transformers initialises at random."""
    if missing:
        names = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(
            f"model.path = {path!r}: its files lack {len(missing)} of the weights that {auto_class.__name__} needs "
            f"({names}), which would be random; give a complete model"
        )


def is_adapter(path: str | Path) -> bool:
    """Whether a folder is a PEFT adapter and not a whole model."""
    return (Path(stored_at(path)[0]) / "adapter_config.json").is_file()


def _adapter_settings(path: str | Path) -> dict[str, Any]:
    file = Path(stored_at(path)[0]) / "adapter_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: cannot be read ({error}); copy the adapter again") from None
    base = settings.get("base_model_name_or_path")
    if not base or Path(base).resolve() == file.parent.resolve():
        raise UserError(f"{file}: base_model_name_or_path = {base!r}; set it to the model that it was trained on")
    return settings


def adapter_base(path: str | Path) -> str:
    """The path of the base model of the adapter in a folder."""
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
    """The path of the whole model below all adapters."""
    while is_adapter(path):
        path = _adapter_settings(path)["base_model_name_or_path"]
    return path


def merge_adapter(auto_class: Any, adapter: str | Path, base: sections.Model, n_tokens: int = 0) -> PreTrainedModel:
    """The base in full precision, with the adapter in a folder merged into it."""
    return load_whole(auto_class, str(adapter), base, n_tokens)


@contextmanager
def _loading_errors(path: str, key: str = "model.path") -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError, struct.error) as error:  # the last of a cut .gguf
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{key} = {path!r}: this model has its own code, which does not run by default; read its .py files, "
                "then set model.trust_remote_code=true"
            ) from None
        if not Path(path).exists() and path.count("/") != 1:  # a hub name is owner/name
            raise UserError(f"{key} = {path!r}: there is no such folder; train it first, or give another") from None
        raise UserError(
            f"{key} = {path!r}: cannot load a model from it ({first_line(error)}). Give a folder with config.json "
            "and model.safetensors, an adapter folder, or a hub name that this machine can reach"
        ) from None
