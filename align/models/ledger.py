"""Counts the memory of forward and backward passes without allocating it.

The model is built from its configuration on fake tensors (`torch._subclasses.FakeTensorMode`). They have shapes, dtypes
and storages but no data. Every operation on them, autograd included, keeps exactly the storages that it would keep in a
run, and a `Ledger` adds up the live ones. So nothing is fitted, and no architecture needs its own formula: tensors kept
for the backward pass, copies of mixed precision and savings of gradient checkpointing are all counted.

All blocks are alike. A model is counted with 2 and with 3 blocks, and the difference is multiplied. Weights are counted
in full.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from align.models.fake import Quantized, Subject, build, fill_with_fakes, quietly, tiled_logprobs
from align.models.language import recomputing, token_logprobs
from align.models.lora import Shares, shares

N_COUNTED = (2, 3)  # blocks of the two models that are counted
SMALL = 32 * 2**20  # glibc maps larger blocks one by one and gives them back (malloc, DEFAULT_MMAP_THRESHOLD_MAX)


class Parts(NamedTuple):
    """Bytes of a pass at its peak, without weights and gradients."""

    activations: float
    logits: float  # and tensors computed from them: all with a column for each word
    small: float = 0.0  # those of these bytes in blocks under 32 MB

    @property
    def total(self) -> float:
        """Activations and logits."""
        return self.activations + self.logits


class Weights(NamedTuple):
    """A model's parameter counts, and the bytes of its frozen weights."""

    parameters: int  # of the whole model, without adapters
    frozen_bytes: float
    trained: tuple[int, ...]  # size of each trained tensor, adapter and new head included
    shares: Shares

    @property
    def n_trained(self) -> int:
        """The number of trained parameters."""
        return sum(self.trained)


@lru_cache(maxsize=256)
def weights(of: Subject) -> Weights:
    """Counts the parameters of all blocks and their bytes.

    bitsandbytes stores a quantised matrix in 1 byte per number and an fp32 scale per row (LLM.int8()), or in half a
    byte per number, an 8-bit scale per 64 numbers and an fp32 scale per 256 of these (NF4 with double quantisation,
    QLoRA section 3).
    """
    few, more = N_COUNTED
    further = of.config.get_text_config().num_hidden_layers - few
    if of.lora and further > more - few:  # PEFT is slow for many blocks; each adds the same
        low, high = (_weights(of, n) for n in N_COUNTED)
        parameters, frozen = (a + (b - a) * further for a, b in zip(low[:2], high[:2], strict=True))
        if parameters == weights(replace(of, lora="", trains="nothing")).parameters:  # they are alike
            a_block = Counter(high.trained) - Counter(low.trained)
            reach = Shares(*(a + (b - a) * further for a, b in zip(low.shares, high.shares, strict=True)))
            return Weights(int(parameters), frozen, low.trained + tuple(a_block.elements()) * further, reach)
    return _weights(of, None)


def _weights(of: Subject, n_layers: int | None) -> Weights:
    model = build(of, n_layers)
    unpacked = {id(m.weight): m.stored_bytes for m in model.modules() if isinstance(m, Quantized)}
    frozen = sum(unpacked.get(id(p), p.nbytes) for p in model.parameters() if not p.requires_grad)
    trained = tuple(p.numel() for p in model.parameters() if p.requires_grad)
    return Weights(_n_parameters(model), frozen, trained, shares(model))


Loss = Literal["supervised", "policy", "preference"]


def update_pass(of: Subject, rows: int, time: int, n_scored: int, loss: Loss) -> Parts:
    """A forward and backward pass over (rows, time) tokens, with logits or values at `n_scored` of them.

    Gradients are live from an earlier micro-batch and are not counted here.
    """
    return _count("update", of, rows, time, n_scored, loss)[0]


def score_pass(of: Subject, rows: int, time: int, n_scored: int, loss: Loss = "policy") -> Parts:
    """A forward pass without gradients."""
    return _count("score", of, rows, time, n_scored, loss)[0]


def prompt_pass(of: Subject, rows: int, time: int) -> tuple[Parts, float]:
    """The first pass of sampling: a forward pass over prompts that fills the KV cache. Also its bytes per token."""
    return _count("prompt", of, rows, time, rows, "policy")


class Ledger(TorchDispatchMode):
    """Adds up the live storages that were made while it is active, and keeps the largest sum."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.alive = {True: 0, False: 0}  # bytes of logits, of all else
        self.small = 0
        self.peak = Parts(0, 0)
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.untyped_storage() not in self._known:
                self._enter(made)
        return result

    def ignore(self, tensors: Any) -> None:
        """Leaves these tensors out of the count, because they existed before."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()] = None

    def _enter(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        is_logits, n_bytes = made.dim() > 0 and made.shape[-1] == self.vocab_size, storage.nbytes()
        self._known[storage] = None
        self._add(is_logits, n_bytes)
        weakref.finalize(storage, self._add, is_logits, -n_bytes)
        if sum(self.alive.values()) > self.peak.total:
            self.peak = Parts(self.alive[False], self.alive[True], self.small)

    def _add(self, is_logits: bool, n_bytes: int) -> None:
        self.alive[is_logits] += n_bytes
        self.small += n_bytes if abs(n_bytes) < SMALL else 0


@lru_cache(maxsize=256)
def _count(kind: str, of: Subject, rows: int, time: int, n_scored: int, loss: str) -> tuple[Parts, float]:
    """Counts the pass with all blocks, from two small models, or directly if the model is small."""
    n_layers = of.config.get_text_config().num_hidden_layers
    few, more = N_COUNTED
    if n_layers <= more:
        return _pass(kind, of, None, rows, time, n_scored, loss)
    (low, low_cache), (high, high_cache) = (_pass(kind, of, n, rows, time, n_scored, loss) for n in N_COUNTED)
    further = (n_layers - few) / (more - few)
    parts = Parts(*(a + (b - a) * further for a, b in zip(low, high, strict=True)))
    return parts, low_cache + (high_cache - low_cache) * further


def _pass(
    kind: str, of: Subject, n_layers: int | None, rows: int, time: int, n_scored: int, loss: str
) -> tuple[Parts, float]:
    """Runs one pass on fake tensors. Returns its parts and the bytes of KV cache per token."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = build(of, n_layers)
    model.train(of.dropout)
    with quietly(), FakeTensorMode(), _as_on_gpu() if of.device == "gpu" else nullcontext():
        fill_with_fakes(model)
        trunk = model.trunk if of.head == "scalar" else model
        ids = torch.zeros(rows, time, dtype=torch.long)
        ledger = Ledger(model.config.get_text_config().vocab_size if of.head == "vocabulary" else -1)
        with ledger:
            ledger.ignore([ids, *model.parameters(), *model.buffers()])
            if kind == "prompt":
                with torch.no_grad(), _computing(of):
                    cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
                    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
                return ledger.peak._replace(activations=ledger.peak.activations - held), held / (rows * time)
            if kind == "score":
                with torch.no_grad(), _computing(of):
                    _objective(model, of, ids, n_scored, loss)
                return ledger.peak, 0.0
            ledger.ignore(_with_gradients(model))
            if of.checkpointing:
                trunk.gradient_checkpointing_enable()
            earlier: Any = None
            for _ in range(2 if of.quantization == "8bit" else 1):
                # A loop holds the loss of a micro-batch until it has the next one. With it live the inputs that 8-bit
                # layers keep in their contexts, which the backward pass does not free.
                with recomputing(trunk, of.checkpointing), _computing(of):
                    objective = _objective(model, of, ids, n_scored, loss)
                earlier = objective()
                del objective
                with recomputing(trunk, of.checkpointing):
                    earlier.backward()
            return ledger.peak, 0.0
    raise AssertionError(kind)


def _objective(model: Any, of: Subject, ids: Tensor, n_scored: int, loss: str) -> Callable[[], Tensor]:
    """Runs the forward pass of a stage. Returns a function that computes the loss, which stages do in fp32."""
    index = torch.arange(n_scored) % ids.numel()  # any tokens will do here
    if of.head == "scalar":
        hidden = model.trunk(input_ids=ids, use_cache=False).last_hidden_state
        with torch.autocast(ids.device.type, enabled=False):
            scores = model.head(hidden.flatten(0, 1)[index].float()) - model.shift
        return lambda: scores.square().sum()
    if loss == "preference":
        logprobs = tiled_logprobs(model, ids, of)
        return lambda: logprobs.sum()
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda head, inputs: (inputs[0].flatten(0, 1)[index],)
    )
    logits = model(input_ids=ids, use_cache=False).logits
    hook.remove()
    targets = ids.flatten()[index]
    if loss == "supervised":
        return lambda: F.cross_entropy(logits.float(), targets, reduction="sum")
    logits = logits.index_fill(-1, torch.zeros(1, dtype=torch.long), float("-inf"))  # `LanguageModel.never_sampled`
    if torch.is_grad_enabled():
        return lambda: token_logprobs(logits, targets, 0.7).sum()
    token_logprobs(logits, targets, 0.7)
    return lambda: logits.sum()


def _with_gradients(model: nn.Module) -> Iterator[Tensor]:
    """Gives every trained parameter a gradient, and yields the gradients."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
            yield parameter.grad


def _computing(of: Subject) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if of.precision == "bf16" else nullcontext()


@contextmanager
def _as_on_gpu() -> Iterator[None]:
    """Runs more operations in fp32, as autocast does on CUDA (torch.amp, "CUDA Ops that can autocast to float32").

    Fake tensors are on the CPU, where autocast leaves these operations in bf16. Those that transformers uses are
    replaced by name, because recomputed blocks do not see a dispatch mode.
    """

    def upcasting(function: Callable[..., Any]) -> Callable[..., Any]:
        def upcast(*args: Any, **kwargs: Any) -> Any:
            if torch.is_autocast_enabled("cpu"):
                args = tuple(a.float() if isinstance(a, Tensor) and a.dtype == torch.bfloat16 else a for a in args)
            return function(*args, **kwargs)

        return upcast

    named: list[tuple[Any, str]] = [(F, "layer_norm"), (F, "softmax"), (F, "log_softmax")]
    named += [(torch, name) for name in ("pow", "rsqrt", "softmax", "exp", "log", "cumsum", "sum")]
    named += [(Tensor, name) for name in ("__pow__", "pow", "rsqrt", "softmax", "exp", "log", "cumsum", "sum", "norm")]
    before = [(owner, name, owner.__dict__.get(name)) for owner, name in named]
    try:
        for owner, name in named:
            setattr(owner, name, upcasting(getattr(owner, name)))
        yield
    finally:
        for owner, name, function in before:
            if function is None:
                delattr(owner, name)  # it is inherited
            else:
                setattr(owner, name, function)


def _n_parameters(model: nn.Module) -> int:
    """Parameters of the whole model without its adapter; a quantised matrix counts in full."""
    return sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name)
