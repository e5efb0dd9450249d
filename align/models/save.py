"""What a finished run leaves: model/ (a plain Hugging Face folder), adapter/ if one was trained, README.md (a card)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align import sections
from align.config import Section, to_yaml
from align.errors import UserError
from align.models.adapters import POLICY, save_adapter
from align.models.classifier import save_as_classifier
from align.models.language import with_ends
from align.models.load import merge_adapter
from align.models.lora import check_trained
from align.models.purpose import REMEDY
from align.models.scalar import ScalarModel, check_head

if TYPE_CHECKING:
    from torch import Tensor


def save_language_model(
    model: Any, base: sections.Model, tokenizer: Any, run_folder: Path, name: str = "model"
) -> None:
    """Writes model/; an adapter is kept in adapter/ and merged into its base in full precision for model/."""
    from transformers import AutoModelForCausalLM

    folder = run_folder / name
    _whole(AutoModelForCausalLM, model, POLICY, base, tokenizer, folder).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_scalar_model(
    model: ScalarModel, base: sections.Model, tokenizer: Any, run_folder: Path, name: str = "model"
) -> None:
    """The same for a value model, with its head, in the folder `name`."""
    from transformers import AutoModel

    folder = run_folder / name
    _whole(AutoModel, model.base, model.adapter, base, tokenizer, folder).save_pretrained(folder)
    model.save_head(folder, role="value")
    tokenizer.save_pretrained(folder)
    if adapter_folder(folder).is_dir():
        model.save_head(adapter_folder(folder), role="value")


def adapter_folder(model: Path) -> Path:
    """Where the adapter of a run's model/, or of another of its models, is kept."""
    return model.with_name("adapter" if model.name == "model" else f"{model.name}_adapter")


def save_reward_model(
    model: ScalarModel, base: sections.Model, tokenizer: Any, run_folder: Path, initial: Tensor | None = None
) -> str:
    """The same for a trained reward model, in the form that `AutoModelForSequenceClassification` loads.

    Returns what a reader must know about that class's scores, "" if they are ours (see `align.models.classifier`).
    Raises `UserError` for a head that was frozen, is not finite or stands at `initial`, as it was drawn.
    """
    from transformers import AutoModel

    folder = run_folder / "model"
    if not all(parameter.requires_grad for parameter in model.head.parameters()):
        raise UserError(f"{folder}: the score head is frozen, so it was never trained; {REMEDY}")
    check_head(model.head.weight, model.head.bias, str(folder), initial)
    trunk = _whole(AutoModel, model.trunk, model.adapter, base, tokenizer, folder)
    whole = model if trunk is model.trunk else model.on_trunk(trunk)
    scale = whole.scale.reshape(-1, 1).clone()  # which the weight takes in
    note = save_as_classifier(whole, tokenizer.pad_token_id, folder)
    first = None if initial is None else initial.to(scale) / scale
    whole.save_head(folder, first)
    tokenizer.save_pretrained(folder)
    if adapter_folder(folder).is_dir():
        whole.save_head(adapter_folder(folder), first)
    return note


def _whole(auto_class: Any, model: Any, adapter: str | None, base: sections.Model, tokenizer: Any, folder: Path) -> Any:
    """The model to write into `folder`, which is emptied: with its adapter merged, if it has one."""
    shutil.rmtree(folder, ignore_errors=True)
    if not hasattr(model, "disable_adapter"):
        whole = model.base_model if auto_class.__name__ == "AutoModel" else model  # a trunk's base model is itself
        return with_ends(whole, tokenizer)
    kept = adapter_folder(folder)
    save_adapter(model, str(adapter), kept)
    tokenizer.save_pretrained(kept)
    whole = merge_adapter(auto_class, kept, base, len(tokenizer))
    check_trained(model, str(adapter), whole, str(kept))
    return with_ends(whole, tokenizer)


def write_card(run_folder: Path, stage: str, recipe: Section, figures: dict[str, float], more: str = "") -> None:
    """README.md of a run: what it is, how it was made, what was measured; `more` of it in a stage's own words."""
    lines = [
        f"# {run_folder.name}",
        "",
        f"Written by `python -m align.{stage}`. The weights are in `model/`, a Hugging Face folder.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.6g} |" for name, value in figures.items()),
        "",
        *([more] if more else []),
        "## Recipe",
        "",
        "```yaml",
        to_yaml(recipe).rstrip(),
        "```",
        "",
    ]
    (run_folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
