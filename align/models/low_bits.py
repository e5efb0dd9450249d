"""What a model's weights are kept in: a frozen base in 8 or 4 bits below an adapter, and files that are packed already.

A recipe's `model.quantization` packs a base as it is loaded, after it was tried whether this machine can. Weights that
files hold in low bits are unpacked instead, for a stage starts from a whole model; what cannot be unpacked is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from align.errors import UserError, first_line

UNPACKED = ("bitsandbytes", "mxfp4", "fp8")  # of the ways to store weights in low bits, those that are undone here


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


def packed_as(config: Any, path: str, key: str) -> str:
    """How a model's files hold its weights in low bits, by transformers' name; "" if they do not.

    Raises `UserError` for a way that is not undone here: nothing could be trained in it, or merged into it.
    """
    settings = getattr(config, "quantization_config", None) or {}
    method = str(getattr(settings, "quant_method", None) or dict(settings).get("quant_method", ""))
    if method and method not in UNPACKED:
        raise UserError(
            f"{key} = {path!r}: its weights are stored in low bits ({method}), which can be neither trained nor merged "
            "with an adapter; give the model in full precision, with model.adapter=lora model.quantization=4bit if it "
            "shall take little memory"
        )
    return method


def unpacking(method: str) -> dict[str, Any]:
    """What tells `from_pretrained` to unpack weights as it reads them; bitsandbytes' are unpacked afterwards."""
    from transformers.utils.quantization_config import FineGrainedFP8Config, Mxfp4Config

    configs: dict[str, Any] = {"mxfp4": Mxfp4Config, "fp8": FineGrainedFP8Config}
    return {"quantization_config": configs[method](dequantize=True)} if method in configs else {}


def unpacked(model: Any, dtype: torch.dtype) -> Any:
    """A model whose files were packed, as any other: all its weights in `dtype`."""
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
    model._weight_conversions = None  # how its weights were read: they would be written so
    return model.to(dtype).requires_grad_(True)


def check_quantized(model: Any, bits: str) -> None:
    """Raises `UserError` if nothing of a model came into low bits."""
    if all(p.is_floating_point() for p in model.parameters()):
        raise UserError(
            f"model.quantization = {bits}: bitsandbytes finds no linear layer of PyTorch's own class in "
            f"{type(model).__name__}, so nothing would be in {bits.removesuffix('bit')} bits; set "
            "model.quantization=none"
        )
