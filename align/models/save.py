"""What a finished run leaves: model/ (a plain Hugging Face folder), adapter/ if one was trained, README.md (a card)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from align import sections
from align.config import Section, to_yaml
from align.models.load import merge_adapter
from align.models.scalar import ScalarModel


def save_language_model(model: Any, base: sections.Model, tokenizer: Any, run_folder: Path) -> None:
    """Writes model/; an adapter is kept in adapter/ and merged into its base in full precision for model/."""
    from transformers import AutoModelForCausalLM

    folder = run_folder / "model"
    _save_whole(AutoModelForCausalLM, model, base, tokenizer, run_folder)
    tokenizer.save_pretrained(folder)


def save_scalar_model(
    model: ScalarModel, base: sections.Model, tokenizer: Any, run_folder: Path, name: str = "model"
) -> None:
    """The same for a reward or value model, with its head, in the folder `name`."""
    from transformers import AutoModel

    folder = run_folder / name
    _save_whole(AutoModel, model.trunk, base, tokenizer, run_folder, name)
    model.save_head(folder)
    tokenizer.save_pretrained(folder)


def _save_whole(
    auto_class: Any, model: Any, base: sections.Model, tokenizer: Any, run_folder: Path, name: str = "model"
) -> None:
    folder = run_folder / name
    shutil.rmtree(folder, ignore_errors=True)
    if hasattr(model, "disable_adapter"):
        adapter = run_folder / ("adapter" if name == "model" else f"{name}_adapter")
        model.save_pretrained(adapter, save_embedding_layers=False)
        tokenizer.save_pretrained(adapter)
        model = merge_adapter(auto_class, adapter, base, len(tokenizer))
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
