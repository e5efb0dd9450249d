"""LoRA adapters (Hu et al., 2106.09685) and low bits: what stands on a base, and what it is kept in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from align import sections
from align.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_quantization(bits: str) -> None:
    """Quantises a small matrix and multiplies with it, forwards and backwards, where models will be.

    Raises `UserError` if this machine cannot: bitsandbytes is missing, too old, or has nothing for this device.
    """
    try:
        from bitsandbytes.nn import Linear4bit, Linear8bitLt

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng():
            layer = Linear8bitLt(64, 64, has_fp16_weights=False) if bits == "8bit" else Linear4bit(64, 64)
            x = torch.ones(2, 64, device=device, requires_grad=True)
            layer.to(device)(x).sum().backward()
    except Exception as error:  # whatever a package or a library that is not right raises
        raise UserError(
            f"model.quantization = {bits}: this machine cannot do it ({type(error).__name__}: {first_line(error)}). "
            "Install or upgrade bitsandbytes (pip install -U bitsandbytes), or set model.quantization=none"
        ) from None


def quantization_config(bits: str, dtype: torch.dtype) -> Any:
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


def add_lora(base: PreTrainedModel, model: sections.Model) -> Any:
    """`base` with a fresh adapter, in fp32 and alone trained. Its B is zero, so the function is still the base's."""
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        r=model.lora.rank,
        lora_alpha=model.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=model.lora.dropout,
        target_modules=model.lora.target_modules or "all-linear",
        fan_in_fan_out=_has_conv1d(base),
        task_type=TaskType.CAUSAL_LM if base.get_output_embeddings() is not None else None,
        base_model_name_or_path=model.path,
    )
    try:
        adapted: Any = get_peft_model(base, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules = {model.lora.target_modules}: {error}") from None
    adapted.peft_config["default"].base_model_name_or_path = model.path  # which may itself be an adapter
    return adapted


def _has_conv1d(model: torch.nn.Module) -> bool:
    """GPT-2's `Conv1D` keeps its weight transposed."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


def first_line(error: Exception) -> str:
    """What an error says, without the pages below."""
    return next(iter(str(error).strip().splitlines()), "")
