"""Loads models: any `AutoModelForCausalLM` folder or hub name, our own, or a PEFT adapter on its base.

An adapter that is found at the path is merged into its base first, in full precision. So what a stage starts from is
always one whole model, and "the adapter switched off" is exactly the model at step 0.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align import sections
from align.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_causal_lm(model: sections.Model, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model with its vocabulary head, its base quantised and with a fresh LoRA adapter if the recipe says so."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, model, dtype)


def load_trunk(model: sections.Model, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same without the vocabulary head: what a reward or value head stands on."""
    from transformers import AutoModel

    return _load(AutoModel, model, dtype)


def load_config(model: sections.Model) -> PretrainedConfig:
    """The model's configuration alone. Raises `UserError` if there is no model at its path."""
    from transformers import AutoConfig

    path = _base_path(model.path)
    with _loading_errors(model.path):
        return AutoConfig.from_pretrained(path, trust_remote_code=model.trust_remote_code)


def base_dtype(model: sections.Model, precision: str) -> torch.dtype:
    """What the base is kept in: fp32 if it is trained, the computing precision if it is frozen below an adapter."""
    return torch.bfloat16 if model.adapter == "lora" and precision == "bf16" else torch.float32


def max_positions(config: PretrainedConfig) -> int | None:
    """The longest sequence that the model has positions for; None if it says no limit."""
    return getattr(config, "max_position_embeddings", None)


def fit_vocabulary(model: PreTrainedModel, n_tokens: int) -> None:
    """Gives the embedding a row for each token of the tokenizer, such as a pad token that the model lacked."""
    embedding: Any = model.get_input_embeddings()
    if embedding.weight.shape[0] < n_tokens:
        model.resize_token_embeddings(n_tokens)


def _load(auto_class: Any, model: sections.Model, dtype: torch.dtype) -> PreTrainedModel:
    if is_adapter(model.path):
        return _on_merged_base(auto_class, model, dtype)
    base = _from_pretrained(auto_class, model.path, model, dtype)
    return add_lora(base, model.lora) if model.adapter == "lora" else base


def _from_pretrained(auto_class: Any, path: str, model: sections.Model, dtype: torch.dtype) -> PreTrainedModel:
    arguments: dict[str, Any] = {"dtype": dtype, "trust_remote_code": model.trust_remote_code}
    if model.quantization != "none":
        arguments["quantization_config"] = _quantization(model.quantization, dtype)
    with _loading_errors(path):
        loaded = auto_class.from_pretrained(path, **arguments)
    for module in loaded.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On such CPUs bitsandbytes repacks 4-bit weights at the first forward without gradients, for a kernel that
            # has no backward: from then on gradients are 0 or wrong (0.50.2, nn/modules.py, Linear4bit.forward).
            module.support_avx512bf16_for_cpu = False
    return loaded


def _quantization(bits: str, dtype: torch.dtype) -> Any:
    """8 bits by LLM.int8() (Dettmers et al., 2208.07339), 4 by NF4 with double quantisation (QLoRA, 2305.14314)."""
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def add_lora(base: PreTrainedModel, lora: sections.Lora) -> Any:
    """`base` with a fresh adapter, in fp32 and alone trained. Its B is zero, so the function is still the base's."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        fan_in_fan_out=_has_conv1d(base),
    )
    try:
        return get_peft_model(base, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules = {lora.target_modules}: {error}") from None


def _has_conv1d(model: torch.nn.Module) -> bool:
    """GPT-2's `Conv1D` keeps its weight transposed."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


def is_adapter(path: str | Path) -> bool:
    """Whether a folder holds a PEFT adapter and not a whole model."""
    return (Path(path) / "adapter_config.json").is_file()


def _base_path(path: str) -> str:
    if not is_adapter(path):
        return path
    return json.loads((Path(path) / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]


def merge_adapter(auto_class: Any, adapter: str | Path, base: sections.Model) -> PreTrainedModel:
    """The base of `base.path` in full precision with the adapter's weights added."""
    from peft import PeftModel

    plain = base.model_copy(update={"adapter": "none", "quantization": "none"})
    whole = _from_pretrained(auto_class, plain.path, plain, torch.float32)
    with _loading_errors(str(adapter)):
        return PeftModel.from_pretrained(whole, str(adapter)).merge_and_unload()


def _on_merged_base(auto_class: Any, model: sections.Model, dtype: torch.dtype) -> PreTrainedModel:
    """Merges the adapter at `model.path`, then loads the result as if it had been a whole model all along."""
    base = model.model_copy(update={"path": _base_path(model.path)})
    with tempfile.TemporaryDirectory() as folder:
        merge_adapter(auto_class, model.path, base).save_pretrained(folder)
        return _load(auto_class, model.model_copy(update={"path": folder}), dtype)


@contextmanager
def _loading_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.path = {path!r}: no model can be loaded from it ({first_line}). Give a folder with config.json and "
            "model.safetensors, an adapter folder, or a hub name that this machine can reach"
        ) from None
