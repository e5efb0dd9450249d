"""Memory of the weights of PPO's four roles, counted on loaded models, by how they share a base.

    python benchmarks/roles_memory.py [--preset gpt2] [--out FILE.json]

Writes a model of that shape with random weights and a reward model into a temporary folder, loads policy, reference,
reward and critic as `align.ppo` does, and counts the bytes of the storages of their parameters and buffers, with
quantisation constants, each once. "full" means four fp32 models; the others are LoRA on one base. Gradients, moments
and activations are not counted: see `--dry-run`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

MODES = {
    "full, four fp32 models": ("none", "none", "fp32"),
    "LoRA, fp32 base": ("lora", "none", "fp32"),
    "LoRA, bf16 base": ("lora", "none", "bf16"),
    "LoRA, 8-bit base": ("lora", "8bit", "bf16"),
    "LoRA, 4-bit base": ("lora", "4bit", "bf16"),
}


def main() -> None:
    """Prints a line for each mode, and writes the rows to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="gpt2", help="model.preset of align pretrain (default: gpt2, 124 M)")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(given.preset, Path(folder))
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(preset: str, folder: Path) -> dict[str, dict[str, float]]:
    """{mode: {megabytes, share}}; share: relative to the first mode."""
    base, rankings = write_inputs(preset, folder)
    found: dict[str, dict[str, float]] = {}
    for name, (adapter, quantization, precision) in MODES.items():
        model = {"path": str(base), "adapter": adapter, "quantization": quantization}
        size = weights_of_roles(model, precision, rankings, folder / adapter)
        first = next(iter(found.values()), {"megabytes": size})["megabytes"]
        found[name] = {"megabytes": size, "share": size / first}
        print(f"{name:24} {size:9.1f} MB  {size / first:6.1%}", flush=True)
    return found


def write_inputs(preset: str, folder: Path) -> tuple[Path, Path]:
    """A stock GPT-2 of that shape with random weights, its tokenizer, and a few rankings."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from align.gpt.presets import PRESETS
    from align.text.tokenizer import train_tokenizer

    shape = PRESETS[preset]
    tokenizer = train_tokenizer(["the cat sat on the mat", "a dog ran far away"] * 20, 300)
    sizes = {name: shape[name] for name in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    rows = [
        {"prompt": f"the cat {i}", "responses": ["sat on the mat", "ran far away"], "ranks": [1, 2]} for i in range(4)
    ]
    (folder / "rankings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "base", folder / "rankings.jsonl"


def weights_of_roles(model: dict[str, Any], precision: str, rankings: Path, folder: Path) -> float:
    """Megabytes of all weights of the four roles. The first call trains a reward model for a step in `folder`."""
    from align import ppo, rm
    from align.config import build
    from align.rl.roles import load_roles
    from align.text.tokenizer import load_tokenizer
    from align.train.machine import accelerator

    reward = folder / ("adapter" if model["adapter"] == "lora" else "model")
    data = {"path": str(rankings), "max_tokens": 64, "validation": 0.0}
    if not reward.is_dir():
        train = {"steps": 1, "precision": "fp32"}
        first = {"model": model, "data": data, "train": train, "optim": {"batch_size": 2}, "output": str(folder)}
        rm.run(build(rm.Recipe, first, "rm"))
    given = {
        "model": model,
        "data": data,
        "reward": {"path": str(reward)},
        "train": {"steps": 1, "precision": precision},
        "output": str(folder / "ppo"),
    }
    recipe = build(ppo.Recipe, given, "ppo")
    roles = load_roles(recipe, load_tokenizer(model["path"]), accelerator(precision))
    modules = (roles.policy, roles.reference, roles.critic, roles.reward.model)
    return distinct_bytes(modules) / 1e6


def distinct_bytes(modules: Any) -> int:
    """Bytes of all storages of the modules' parameters, buffers and quantisation states, each once."""
    import torch

    storages: dict[int, int] = {}

    def note(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            for name in ("quant_state", "CB", "SCB"):  # attributes that bitsandbytes adds to a weight
                note(getattr(value, name, None))
        elif hasattr(value, "absmax"):  # a quant_state
            for part in (value.absmax, value.code, value.offset, getattr(value, "state2", None)):
                note(part)

    for module in modules:
        for value in [*module.parameters(), *module.buffers()]:
            note(value)
        for part in module.modules():
            note(getattr(getattr(part, "state", None), "CB", None))
    return sum(storages.values())


if __name__ == "__main__":
    main()
