"""Fake models: built from a configuration without data, to count the memory of a pass.

They have the structure that `align.models.load` gives. Their tensors have shapes and dtypes only: first on PyTorch's
meta device, then as fake tensors for a pass (`torch._subclasses.FakeTensorMode`). Quantised layers are stand-ins that
keep the same tensors as those of bitsandbytes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from align import sections
from align.models.lora import add_lora, freeze_unreached
from align.models.low_bits import check_quantized
from align.models.scalar import ScalarModel

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Subject:
    """A model with the settings that its memory depends on. Equal subjects are counted once.

    `key`, the configuration as JSON, decides whether two subjects are equal.
    """

    key: str
    config: PretrainedConfig = field(compare=False)
    head: Literal["vocabulary", "scalar"]
    trains: Literal["all", "adapter", "nothing"]
    dtype: torch.dtype  # of weights that are neither quantised nor trained
    precision: Literal["fp32", "bf16"]  # of the computation
    quantization: Literal["none", "8bit", "4bit"] = "none"
    lora: str = ""  # `sections.Lora` as JSON, if there is an adapter
    device: Literal["cpu", "gpu"] = "cpu"
    checkpointing: bool = False
    dropout: bool = False  # whether the model is in training mode
    heads: int = 1  # scalar heads


def subject(config: PretrainedConfig, lora: sections.Lora | None = None, **others: Any) -> Subject:
    """The `Subject` of a configuration and an adapter's settings."""
    settings = lora.model_dump_json() if lora is not None else ""
    return Subject(config.to_json_string(use_diff=False), config, lora=settings, **others)


def build(of: Subject, n_layers: int | None) -> Any:
    """The model without data, with `n_layers` blocks; None is all."""
    with quietly(), torch.device("meta"):
        return _assemble(of, n_layers)


def fill_with_fakes(model: nn.Module) -> None:
    """Replaces meta tensors by fake CPU tensors, which autograd and autocast treat like real ones."""
    made: dict[int, Tensor] = {}  # tied weights stay tied
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                fake = made.get(id(old))
                if fake is None:
                    empty = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                    fake = made[id(old)] = nn.Parameter(empty, requires_grad=old.requires_grad)
                module._parameters[name] = fake  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


@contextmanager
def quietly() -> Iterator[None]:
    """Suppresses warnings and logs, and keeps random states unchanged."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


def _config(of: Subject, n_layers: int | None) -> PretrainedConfig:
    """The configuration with another number of blocks."""
    config = copy.deepcopy(of.config)
    if n_layers is not None:
        text = config.get_text_config()
        text.num_hidden_layers = n_layers
        if len(getattr(text, "layer_types", None) or []) > n_layers:  # some classes derive it from n_layers
            text.layer_types = text.layer_types[:n_layers]
    return config


def _assemble(of: Subject, n_layers: int | None) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    auto_class = AutoModelForCausalLM if of.head == "vocabulary" else AutoModel
    model: Any = auto_class.from_config(_config(of, n_layers), dtype=of.dtype)
    if of.quantization != "none":
        _quantize(model, of)
    model.requires_grad_(of.trains == "all")
    if of.trains == "all" and of.config.get_text_config() is not of.config:
        freeze_unreached(model)
    if of.lora:
        lora = sections.Lora.model_validate_json(of.lora)
        model = add_lora(model, sections.Model(path="", adapter="lora", lora=lora))
        for module in model.modules():
            if isinstance(getattr(module, "base_layer", None), Quantized):
                module.cast_input_dtype_enabled = False  # PEFT's layers on bitsandbytes leave the input as it is
        if of.trains != "adapter":
            model.requires_grad_(False)
    if of.head == "scalar":
        model = ScalarModel(model, of.heads)
        model.config = model.trunk.config
        model.requires_grad_(False) if of.trains == "nothing" else None
    return model


def _quantize(model: Any, of: Subject) -> None:
    """Replaces every matrix but the vocabulary head by a stand-in for bitsandbytes' layer, as transformers does."""
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert

    kept = set(get_keys_to_not_convert(model))
    for name, module in list(model.named_modules()):
        if name in kept or not (isinstance(module, Conv1D) or type(module) is nn.Linear):
            continue
        n_in, n_out = module.weight.shape if isinstance(module, Conv1D) else module.weight.shape[::-1]
        stand_in = Quantized(n_in, n_out, module.bias is not None, of)
        model.set_submodule(name, stand_in)
    check_quantized(model, of.quantization)


class Quantized(nn.Linear):
    """A linear layer that keeps the same tensors for its backward pass as bitsandbytes 0.50's: 8 bits its input, 4 bits
    nothing (nn/modules.py, autograd/_functions.py). Its matrix is unpacked during a product."""

    def __init__(self, n_in: int, n_out: int, bias: bool, of: Subject) -> None:
        super().__init__(n_in, n_out, bias, dtype=of.dtype)
        self.bits = 4 if of.quantization == "4bit" else 8
        self.compute_dtype = of.dtype
        self.weight = nn.Parameter(torch.empty(n_out, n_in, dtype=torch.int8), requires_grad=False)

    @property
    def stored_bytes(self) -> float:
        """Bytes of the matrix and its scales."""
        n = self.weight.numel()
        return n * (0.5 + 1 / 64 + 4 / (64 * 256)) if self.bits == 4 else n + 4.0 * self.out_features

    def forward(self, given: Tensor) -> Tensor:
        if self.bits == 4:
            return _Product.apply(given.to(self.compute_dtype), self.weight, False).to(given.dtype)
        return _Product.apply(given, self.weight, True)


class _Product(torch.autograd.Function):
    """Input (…, n_in) times an unpacked matrix."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, keeps_input: bool) -> Tensor:
        ctx.given = given if keeps_input else None
        ctx.weight, ctx.shape = weight, given.shape
        unpacked = weight.to(given.dtype)
        made = given.new_empty(*given.shape[:-1], weight.shape[0])
        del unpacked
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        unpacked = ctx.weight.to(gradients[0].dtype)
        made = gradients[0].new_empty(ctx.shape)
        del unpacked
        return made, None, None


TILE = (4096, 32768)  # tokens and words of a tile of TRL's head (kernels/chunked_logprob.py, trainer/utils.py)
FORWARD_COPIES, BACKWARD_COPIES = 3, 7  # of a tile in fp32, at once; on a GPU a kernel works in the tile itself


def tiled_logprobs(model: Any, ids: Tensor, of: Subject) -> Tensor:
    """Log probabilities as TRL 1.16 computes them for DPO: tile by tile, never all logits at once."""
    seen: list[Tensor] = []

    def keep(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        seen.append(inputs[0].flatten(0, 1))
        return (inputs[0][:1, :1],)

    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(keep)
    model(input_ids=ids, use_cache=False)
    hook.remove()
    return _Tiled.apply(seen[0], head.weight, of)


class _Tiled(torch.autograd.Function):
    """Hidden states (n, width) and the head's weight to log probabilities (n,)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, of: Subject) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.of = of
        tile = _Tiled.tile(hidden, weight, of, FORWARD_COPIES)
        del tile
        return hidden.new_empty(len(hidden), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        hidden, weight = ctx.saved_tensors
        of_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        tile = _Tiled.tile(hidden, weight, ctx.of, BACKWARD_COPIES)
        del tile
        return of_hidden.to(hidden.dtype), None if of_weight is None else of_weight.to(weight.dtype), None

    @staticmethod
    def tile(hidden: Tensor, weight: Tensor, of: Subject, n_copies: int) -> list[Tensor]:
        """A tile and the tensors computed from it."""
        tokens, words = (min(n, most) for n, most in zip((len(hidden), len(weight)), TILE, strict=True))
        computing = torch.bfloat16 if of.precision == "bf16" else hidden.dtype
        if of.device == "gpu":
            return [hidden.new_empty(tokens, TILE[1], dtype=computing)]
        dtypes = (computing, *[torch.float32] * n_copies)
        return [hidden.new_empty(tokens, words, dtype=dtype) for dtype in dtypes]
