"""Quantisation: a frozen base in 8 or 4 bits below an adapter, and model files that are already in low bits.

A recipe's `model.quantization` quantises a base at loading, after a test that this machine supports it. Weights that
are stored in low bits are unpacked at loading, because a stage starts from a whole model. Formats that cannot be
unpacked are refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from align.errors import UserError, first_line

UNPACKED = ("bitsandbytes", "mxfp4", "fp8")  # low-bit formats that can be unpacked here


def check_quantization(bits: str) -> None:
    """Tests forward and backward passes with a small quantised matrix on the device of the models.

    Raises `UserError` if they fail: bitsandbytes is missing, too old, or does not support this device.
    """
    try:
        from bitsandbytes.nn import Linear4bit, Linear8bitLt

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng():
            layer = Linear8bitLt(64, 64, has_fp16_weights=False) if bits == "8bit" else Linear4bit(64, 64)
            x = torch.ones(2, 64, device=device, requires_grad=True)
            layer.to(device)(x).sum().backward()
    except Exception as error:  # a broken package or library may raise anything
        raise UserError(
            f"model.quantization = {bits}: this machine does not support it ({type(error).__name__}: "
            f"{first_line(error)}). Install or upgrade bitsandbytes (pip install -U bitsandbytes), or set "
            "model.quantization=none"
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


def packed_as(config: Any, path: str, key: str) -> str:
    """The low-bit format of a model's files, by transformers' name; "" if they are not in low bits.

    Raises `UserError` for a format that cannot be unpacked here: it could be neither trained nor merged.
    """
    settings = getattr(config, "quantization_config", None) or {}
    method = str(getattr(settings, "quant_method", None) or dict(settings).get("quant_method", ""))
    if method and method not in UNPACKED:
        raise UserError(
            f"{key} = {path!r}: its weights are stored in low bits ({method}), which can be neither trained nor merged "
            "with an adapter; give the model in full precision, with model.adapter=lora model.quantization=4bit to "
            "save memory"
        )
    return method


def unpacking(method: str) -> dict[str, Any]:
    """Arguments for `from_pretrained` to unpack weights at loading. Those of bitsandbytes are unpacked afterwards."""
    from transformers.utils.quantization_config import FineGrainedFP8Config, Mxfp4Config

    configs: dict[str, Any] = {"mxfp4": Mxfp4Config, "fp8": FineGrainedFP8Config}
    return {"quantization_config": configs[method](dequantize=True)} if method in configs else {}


def unpacked(model: Any, dtype: torch.dtype) -> Any:
    """Unpacks a model that was loaded from low-bit files: all its weights become `dtype`."""
    transposed = [name for name, m in model.named_modules() if getattr(m, "source_cls", None) is Conv1D]
    if any(not p.is_floating_point() for p in model.parameters()):
        model = model.dequantize(dtype)
    elif hasattr(model, "hf_quantizer"):
        model.hf_quantizer.remove_quantization_config(model)
    for name in transposed:
        linear = model.get_submodule(name)
        plain = Conv1D(linear.out_features, linear.in_features)
        plain.weight, plain.bias = nn.Parameter(linear.weight.detach().T.contiguous()), linear.bias
        model.set_submodule(name, plain)
    model._weight_conversions = None  # else the weights would be saved in the form that they were read in
    return model.to(dtype).requires_grad_(True)


def check_quantized(model: Any, bits: str) -> None:
    """Raises `UserError` if no weight of a model was quantised."""
    if all(p.is_floating_point() for p in model.parameters()):
        raise UserError(
            f"model.quantization = {bits}: bitsandbytes finds no torch.nn.Linear in {type(model).__name__}, so nothing "
            "would be quantised; set model.quantization=none"
        )
