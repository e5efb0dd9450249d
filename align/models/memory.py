"""Memory estimates: the memory of a run before it starts, by role, by kind of tensor and by phase.

Weights, gradients and moments are parameters times bytes. Activations are counted by `align.models.ledger`. The peak is
the sum of what is always live (weights, adapters, moments) and the largest phase:

    load        reading the weights from their file
    rollout     PPO samples: the KV cache, and a forward pass over the prompts
    score       forward passes without gradients: log probabilities, values, rewards
    update      gradients, and activations of the largest micro-batch
    checkpoint  a copy in host memory of the part that is written
    save        an adapter is merged into its base, which is loaded again in fp32; on a CPU, freed blocks of passes too

On a GPU, load, checkpoint and save use host memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from align import sections
from align.models.fake import Subject, subject
from align.models.ledger import Loss, Parts, Weights, prompt_pass, score_pass, update_pass, weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Pass = Literal["prompt", "score", "update"]

ADAM_BYTES = 8  # two moments in fp32 for each trained number
BLOCK = 256  # numbers that share a scale in 8-bit AdamW (bitsandbytes, optim/optimizer.py)
SMALL = 4096  # a smaller tensor keeps its moments in fp32 (the same, `min_8bit_size`)
STEP_COPIES = (
    5  # fp32 copies of a tensor in its 8-bit step on a CPU (backends/cpu/ops.py: moments, gradient, two roots)
)
# fp32 tensors of (rows, vocabulary) in `align.generation.sampling.draw`. GPU: logits, scaled, noise, their sum. CPU:
# logits, scaled, probabilities, and these in fp64.
DRAW_COPIES = {"cpu": 5, "gpu": 4}

# Memory of a process besides our tensors, if it cannot be measured. CPU: Python with torch (CPU build), transformers,
# accelerate, datasets and peft. GPU: the CUDA context and the workspace of cuBLAS.
LIBRARY_BYTES = {"cpu": 0.48e9, "gpu": 0.6e9}


@dataclass(frozen=True)
class Role:
    """A model of a run.

    kind:
        trained: its own weights, all trained in fp32;
        frozen: its own weights, never changed, such as the base below adapters;
        adapter: a LoRA adapter, and the head if it is scalar, both trained in fp32, on a frozen role's weights;
        shared: another role's weights, with a frozen adapter if `lora` is given, and its own head.
    """

    name: str
    config: PretrainedConfig
    kind: Literal["trained", "frozen", "adapter", "shared"]
    passes: tuple[Pass, ...] = ()  # its passes in a run; a base alone has none
    head: Literal["vocabulary", "scalar"] = "vocabulary"
    dtype: torch.dtype = torch.float32  # of frozen weights; for an adapter those of its base
    quantization: Literal["none", "8bit", "4bit"] = "none"
    lora: sections.Lora | None = None
    heads: int = 1  # of a scalar role: the size of the ensemble on its trunk


@dataclass(frozen=True)
class Workload:
    """The largest batches of a run."""

    rows: int  # of a micro-batch
    length: int  # tokens of each row
    n_scored: int  # tokens of the micro-batch with logits or values
    precision: Literal["fp32", "bf16"]
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    checkpointing: bool = False
    dropout: bool = False  # models are in training mode; PPO turns dropout off
    loss: Loss = "supervised"
    rollout_rows: int = 0  # answers sampled at once
    prompt_length: int = 0
    answer_length: int = 0
    device: Literal["cpu", "gpu"] = "cpu"
    merges: bool = False  # whether adapters are merged at the end


class Cost(NamedTuple):
    """Bytes of one role. Activations and logits are those of its largest pass."""

    role: str
    parameters: int  # of the whole model; 0 if another role owns the weights
    weights: float
    adapters: float  # and new heads
    gradients: float
    optimizer: float
    activations: float
    logits: float
    cache: float


class Estimate(NamedTuple):
    """The memory of a run, in bytes."""

    libraries: float
    allocator: float  # freed blocks that the C library keeps (CPU)
    costs: tuple[Cost, ...]
    phases: dict[str, float]  # additional bytes of each phase on the device
    host_phases: dict[str, float]  # the same in host memory; on a CPU they are in `phases`

    @property
    def always(self) -> float:
        """Bytes that are live from the first update to the end: weights, adapters, moments, libraries."""
        return self.libraries + sum(cost.weights + cost.adapters + cost.optimizer for cost in self.costs)

    @property
    def largest_phase(self) -> str:
        """The phase of the peak."""
        return max(self.phases, key=lambda name: self.phases[name])

    @property
    def peak(self) -> float:
        """The most bytes at once."""
        return self.always + self.allocator + self.phases[self.largest_phase]


def estimate(roles: Sequence[Role], workload: Workload) -> Estimate:
    """Estimates the memory of a run with these roles."""
    counted = {role.name: role_weights(role) for role in roles}
    passes = {role.name: {kind: _pass(kind, role, workload) for kind in role.passes} for role in roles}
    costs = tuple(_cost(role, counted[role.name], passes[role.name], workload) for role in roles)
    phases = {"rollout": 0.0, "score": 0.0, "update": 0.0}
    for cost, role in zip(costs, roles, strict=True):
        held = passes[role.name]
        if "prompt" in held:
            phases["rollout"] = max(phases["rollout"], cost.cache + held["prompt"].total)
        if "score" in held:
            phases["score"] = max(phases["score"], held["score"].total)
        if "update" in held:
            step = _step_bytes(counted[role.name], workload)
            phases["update"] = max(phases["update"], cost.gradients + max(held["update"].total, step))
    on_cpu = workload.device == "cpu"
    allocator = _kept_by_allocator(roles, passes) if on_cpu else 0.0
    updates = [held["update"].logits for held in passes.values() if "update" in held]
    tiles = max(updates, default=0.0) if workload.loss == "preference" else 0.0  # TRL's are given back, pass by pass
    host = _host_phases(roles, counted, workload, max(0.0, allocator - tiles))
    everywhere = phases | (host if on_cpu else {})
    return Estimate(
        libraries=LIBRARY_BYTES[workload.device],
        allocator=allocator,
        costs=costs,
        phases={name: size for name, size in everywhere.items() if size},
        host_phases={} if on_cpu else host,
    )


def count_parameters(config: PretrainedConfig) -> int:
    """The parameters of the language model or encoder of a configuration, counted without allocating them."""
    from transformers import AutoModel, AutoModelForCausalLM

    with torch.device("meta"):
        try:
            return AutoModelForCausalLM.from_config(config).num_parameters()
        except ValueError:  # an encoder
            return AutoModel.from_config(config).num_parameters()


def reach(roles: Sequence[Role]) -> list[str]:
    """Log lines: the shares of the first trained role that are trained, have an adapter, are in low bits."""
    role = next(role for role in roles if role.kind in ("trained", "adapter"))
    return role_weights(role).shares.lines(role.quantization)


def optimizer_bytes(name: str, trained: Sequence[int]) -> float:
    """Bytes of Adam's moments: 8 per number, or in 8 bits two bytes per number and two fp32 scales per block."""
    if name == "adamw":
        return ADAM_BYTES * float(sum(trained))
    return float(sum(2 * n + 2 * 4 * -(-n // BLOCK) if n >= SMALL else ADAM_BYTES * n for n in trained))


def table(found: Estimate, available: float | None = None) -> str:
    """The estimate as lines of text; `available` is the device's memory in bytes."""
    heads = ("role", "parameters", "weights", "adapters", "gradients", "optimizer", "activations", "logits", "KV cache")
    rows: list[tuple[str, ...]] = [heads]
    for cost in found.costs:
        numbers = f"{cost.parameters:,}" if cost.parameters else "shared"
        rows.append((cost.role, numbers, *(size_text(part) if part else "-" for part in cost[2:])))
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    phases = ", ".join(f"{name} {size_text(size)}" for name, size in found.phases.items())
    lines += [
        f"always: {size_text(found.always)}, including {size_text(found.libraries)} of libraries",
        f"phases add: {phases}",
        *([f"allocator keeps: {size_text(found.allocator)}"] if found.allocator else []),
        f"peak: {size_text(found.peak)}, in {found.largest_phase}",
    ]
    if found.host_phases:
        lines.append(f"host memory: {size_text(max(found.host_phases.values()) + LIBRARY_BYTES['cpu'])}")
    if available is not None:
        fits = "fits into" if found.peak <= available else "does not fit into"
        lines.append(f"{fits} {size_text(available)}")
    return "\n".join(["estimated memory:", *lines])


def size_text(n_bytes: float) -> str:
    """Bytes as text, in MB or GB (powers of 1000)."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _cost(role: Role, counted: Weights, passes: dict[Pass, Parts], workload: Workload) -> Cost:
    own = role.kind in ("trained", "frozen")
    new = counted.n_trained if role.kind == "adapter" else 0
    n_trained = counted.n_trained if role.kind in ("trained", "adapter") else 0
    largest = max(passes.values(), key=lambda parts: parts.total, default=Parts(0, 0))
    return Cost(
        role=role.name,
        parameters=counted.parameters if own else 0,
        weights=(4.0 * n_trained if role.kind == "trained" else 0.0) + (counted.frozen_bytes if own else 0.0),
        adapters=4.0 * new + (_brought_bytes(role) if role.kind == "shared" else 0.0),
        gradients=4.0 * n_trained,
        optimizer=optimizer_bytes(workload.optimizer, counted.trained) if n_trained else 0.0,
        activations=largest.activations,
        logits=largest.logits,
        cache=_cache_bytes(role, workload) if "prompt" in passes else 0.0,
    )


def _subject(role: Role, workload: Workload, updates: bool) -> Subject:
    trains: Literal["all", "adapter", "nothing"] = "nothing"
    if role.kind in ("trained", "adapter"):
        trains = "all" if role.kind == "trained" else "adapter"
    return subject(
        role.config,
        role.lora if role.kind in ("adapter", "shared") else None,
        head=role.head,
        heads=role.heads,
        trains=trains,
        dtype=torch.float32 if role.kind == "trained" else role.dtype,
        precision=workload.precision,
        quantization=role.quantization,
        device=workload.device,
        checkpointing=updates and workload.checkpointing,
        dropout=updates and workload.dropout,
    )


def role_weights(role: Role) -> Weights:
    """The parameter counts of a role's model."""
    return weights(_subject(role, Workload(1, 1, 1, "fp32"), updates=False))


def _pass(kind: Pass, role: Role, workload: Workload) -> Parts:
    if kind == "update":
        of = _subject(role, workload, updates=True)
        return update_pass(of, workload.rows, workload.length, workload.n_scored, workload.loss)
    of = _subject(role, workload, updates=False)
    if kind == "score":
        return score_pass(of, workload.rows, workload.length, workload.n_scored, workload.loss)
    parts, _ = prompt_pass(of, workload.rollout_rows, workload.prompt_length)
    drawn = DRAW_COPIES[workload.device] * 4.0 * workload.rollout_rows * role.config.get_text_config().vocab_size
    return Parts(parts.activations, max(parts.logits, drawn))


def _cache_bytes(role: Role, workload: Workload) -> float:
    _, each = prompt_pass(_subject(role, workload, updates=False), workload.rollout_rows, workload.prompt_length)
    return each * workload.rollout_rows * (workload.prompt_length + workload.answer_length)


def _brought_bytes(role: Role) -> float:
    """Bytes that a role adds to another role's weights: a frozen adapter, heads."""
    if role.lora is None:
        return 4.0 * role.heads * (role.config.get_text_config().hidden_size + 1) * (role.head == "scalar")
    of = _subject(replace(role, kind="adapter"), Workload(1, 1, 1, "fp32"), updates=False)
    return 4.0 * weights(of).n_trained


def _step_bytes(counted: Weights, workload: Workload) -> float:
    """Extra bytes of an optimizer step besides moments: none for fused AdamW, copies for 8-bit AdamW on a CPU."""
    unpacks = workload.optimizer == "adamw8bit" and workload.device == "cpu"
    return STEP_COPIES * 4.0 * max(counted.trained, default=0) if unpacks else 0.0


def _kept_by_allocator(roles: Sequence[Role], passes: dict[str, dict[Pass, Parts]]) -> float:
    """Freed memory that a CPU run cannot use again.

    An adapter's gradients are small and lie between the large blocks of a pass. Freed blocks around them stay separate,
    so glibc (malloc; before 2.38 also posix_memalign, its bug 14581) asks the system for new memory in the next pass.
    Blocks of 32 MB and more are returned one by one. So the smaller blocks of an adapter's pass count twice.
    """
    adapters = [
        passes[role.name]["update"].small for role in roles if role.kind == "adapter" and "update" in role.passes
    ]
    return max(adapters, default=0.0)


def _host_phases(
    roles: Sequence[Role], counted: dict[str, Weights], workload: Workload, left: float
) -> dict[str, float]:
    written = [counted[role.name].trained for role in roles if role.kind in ("trained", "adapter")]
    own = [role for role in roles if role.kind in ("trained", "frozen")]
    converted = [role for role in own if role.quantization != "none" or role.dtype != torch.float32]
    merged = [counted[role.name].parameters for role in roles if role.kind == "adapter" and workload.merges]
    return {
        # the pages of the file become the weights; converted weights need both for a while
        "load": 4.0 * max((counted[role.name].parameters for role in converted), default=0),
        "checkpoint": max((max(4.0 * sum(t), optimizer_bytes(workload.optimizer, t)) for t in written), default=0.0),
        # the smaller blocks of a pass, once freed, stay twice between live ones: `left` is one of the two
        "save": 4.0 * max(merged) + left if merged else 0.0,
    }
