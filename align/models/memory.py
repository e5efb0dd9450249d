"""What a run will cost in memory, estimated before it starts. Bytes are counted by role and by what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from align import sections

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Role = Literal["train", "lora", "frozen"]

WEIGHT_BYTES = {"none": 4.0, "8bit": 1.0, "4bit": 0.5}


class Estimate(NamedTuple):
    """Memory of one role of a run, in bytes."""

    role: str
    parameters: int
    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate(config: PretrainedConfig, train: sections.Train, role: str, kind: Role, model: sections.Model) -> Estimate:
    """Memory of a model in a role: fp32 weights, gradients and two Adam moments of what is trained, activations.

    Activations of a training micro-batch: about 18 numbers of the model's width for each token and layer (what a
    pre-LN block keeps for its backward pass), and three copies of the logits in fp32.
    """
    n_parameters = count_parameters(config)
    trained = {"train": n_parameters, "lora": _lora_parameters(config, model.lora.rank), "frozen": 0}[kind]
    text = config.get_text_config()
    tokens = train.micro_batch_tokens
    number_bytes = 2 if train.precision == "bf16" else 4
    width, n_layers = text.hidden_size, text.num_hidden_layers
    kept = tokens * n_layers * width * (2 if train.gradient_checkpointing else 18) * number_bytes
    activations = (kept + tokens * text.vocab_size * 4 * 3) if kind != "frozen" else tokens * width * 8 * number_bytes
    frozen_weights = (n_parameters - (n_parameters if kind == "train" else 0)) * WEIGHT_BYTES[model.quantization]
    return Estimate(role, n_parameters, frozen_weights + 4.0 * trained, 4.0 * trained, 8.0 * trained, activations)


def count_parameters(config: PretrainedConfig) -> int:
    """Parameters of the model that a configuration describes, counted without allocating them."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def table(estimates: list[Estimate]) -> str:
    """The estimates as lines of text."""
    rows: list[tuple[str, ...]] = [("role", "parameters", "weights", "gradients", "optimizer", "activations", "total")]
    for e in estimates:
        sizes = (e.weights, e.gradients, e.optimizer, e.activations, e.total)
        rows.append((e.role, f"{e.parameters:,}", *map(_size, sizes)))
    rows.append(("all", "", "", "", "", "", _size(sum(e.total for e in estimates))))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(["estimated memory:", *lines])


def _lora_parameters(config: PretrainedConfig, rank: int) -> int:
    """Adapters on the projections of attention and MLP: about 18 widths for each layer and rank."""
    text = config.get_text_config()
    return 18 * text.hidden_size * rank * text.num_hidden_layers


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
