"""What a finished run leaves: model/ (a plain Hugging Face folder), adapter/ if one was trained, README.md (a card)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from align import sections
from align.config import Section, to_yaml
from align.models.adapters import POLICY, save_adapter
from align.models.load import merge_adapter
from align.models.scalar import ScalarModel


def save_language_model(
    model: Any, base: sections.Model, tokenizer: Any, run_folder: Path, name: str = "model"
) -> None:
    """Writes model/; an adapter is kept in adapter/ and merged into its base in full precision for model/."""
    from transformers import AutoModelForCausalLM

    _save_whole(AutoModelForCausalLM, model, POLICY, base, tokenizer, run_folder, name)
    tokenizer.save_pretrained(run_folder / name)


def save_scalar_model(
    model: ScalarModel, base: sections.Model, tokenizer: Any, run_folder: Path, name: str = "model"
) -> None:
    """The same for a reward or value model, with its head, in the folder `name`."""
    from transformers import AutoModel

    folder = run_folder / name
    _save_whole(AutoModel, model.base, model.adapter, base, tokenizer, run_folder, name)
    model.save_head(folder)
    tokenizer.save_pretrained(folder)
    if adapter_folder(run_folder, name).is_dir():
        model.save_head(adapter_folder(run_folder, name))


def adapter_folder(run_folder: Path, name: str) -> Path:
    """Where the adapter of model/ or of another model of a run is kept."""
    return run_folder / ("adapter" if name == "model" else f"{name}_adapter")


def _save_whole(
    auto_class: Any,
    model: Any,
    adapter: str | None,
    base: sections.Model,
    tokenizer: Any,
    run_folder: Path,
    name: str,
) -> None:
    folder = run_folder / name
    shutil.rmtree(folder, ignore_errors=True)
    if hasattr(model, "disable_adapter"):
        kept = adapter_folder(run_folder, name)
        save_adapter(model, str(adapter), kept)
        tokenizer.save_pretrained(kept)
        model = merge_adapter(auto_class, kept, base, len(tokenizer))
    elif auto_class.__name__ == "AutoModel":
        model = model.base_model  # a trunk's own base model is itself
    model.save_pretrained(folder)


def write_card(run_folder: Path, stage: str, recipe: Section, figures: dict[str, float]) -> None:
    """README.md of a run: what it is, how it was made, what was measured."""
    lines = [
        f"# {run_folder.name}",
        "",
        f"Written by `python -m align.{stage}`. The weights are in `model/`, a Hugging Face folder.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.6g} |" for name, value in figures.items()),
        "",
        "## Recipe",
        "",
        "```yaml",
        to_yaml(recipe).rstrip(),
        "```",
        "",
    ]
    (run_folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
