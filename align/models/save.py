"""Saves a finished run: model/ (a plain Hugging Face folder), adapter/ if one was trained, README.md (a model card)."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from align import sections
from align.config import Section, to_yaml
from align.errors import UserError
from align.gpt.config import GPTConfig
from align.gpt.stock import as_stock
from align.models.adapters import POLICY, save_adapter
from align.models.classifier import save_as_classifier
from align.models.language import with_ends
from align.models.load import merge_adapter, round_to, stored_dtype
from align.models.merging import check_trained
from align.models.purpose import REMEDY
from align.models.scalar import ScalarModel, check_head
from align.text.tokenizer import rows_needed, with_pad

if TYPE_CHECKING:
    from torch import Tensor

SaveDtype = Literal["as_loaded", "fp32", "bf16"]


def save_language_model(
    model: Any,
    base: sections.Model | None,
    tokenizer: Any,
    run_folder: Path,
    name: str = "model",
    save_dtype: SaveDtype = "as_loaded",
) -> None:
    """Writes model/. An adapter is saved in adapter/ and, for model/, merged into its base in full precision.

    `base` is the model that training started from, if any. The weights are rounded in place: do not train them further.
    """
    from transformers import AutoModelForCausalLM

    folder = run_folder / name
    whole = _whole(AutoModelForCausalLM, model, POLICY, base, tokenizer, folder)
    _write(whole, tokenizer, folder, written_dtype(save_dtype, base), has_adapter(model))
    open_to_readers(folder, adapter_folder(folder))


def save_scalar_model(
    model: ScalarModel,
    base: sections.Model,
    tokenizer: Any,
    run_folder: Path,
    name: str = "model",
    save_dtype: SaveDtype = "as_loaded",
) -> None:
    """Writes a value model with its head into the folder `name`, as `save_language_model` does."""
    from transformers import AutoModel

    folder = run_folder / name
    whole = _whole(AutoModel, model.base, model.adapter, base, tokenizer, folder)
    _write(whole, tokenizer, folder, written_dtype(save_dtype, base), has_adapter(model.base))
    model.save_head(folder, role="value")
    if adapter_folder(folder).is_dir():
        model.save_head(adapter_folder(folder), role="value")
    open_to_readers(folder, adapter_folder(folder))


def adapter_folder(model: Path) -> Path:
    """The folder of the adapter of a run's model/ or of another model of the run."""
    return model.with_name("adapter" if model.name == "model" else f"{model.name}_adapter")


def save_reward_model(
    model: ScalarModel,
    base: sections.Model,
    tokenizer: Any,
    run_folder: Path,
    initial: Tensor | None = None,
    save_dtype: SaveDtype = "as_loaded",
) -> str:
    """Writes a trained reward model in the form that `AutoModelForSequenceClassification` loads.

    Returns a note about that class's scores, "" if they equal ours (see `align.models.classifier`).
    Raises `UserError` for a head that is frozen, not finite, or equal to its `initial` random weight.
    """
    from transformers import AutoModel

    folder = run_folder / "model"
    if not all(parameter.requires_grad for parameter in model.head.parameters()):
        raise UserError(f"{folder}: the score head is frozen, so it was not trained; {REMEDY}")
    check_head(model.head.weight, model.head.bias, str(folder), initial)
    trunk = with_ends(_whole(AutoModel, model.trunk, model.adapter, base, tokenizer, folder), tokenizer)
    whole = model if trunk is model.trunk else model.on_trunk(trunk)
    scale = whole.scale.reshape(-1, 1).clone()  # saving folds it into the weight
    padded: Any = with_pad(tokenizer)
    note = save_as_classifier(whole, padded.pad_token_id, folder, written_dtype(save_dtype, base))
    first = None if initial is None else initial.to(scale) / scale
    whole.save_head(folder, first)
    _write_tokenizer(padded, whole.trunk, folder)
    if adapter_folder(folder).is_dir():
        model.save_head(adapter_folder(folder), initial)  # unfolded: `whole` may have its shift in its trunk
    open_to_readers(folder, adapter_folder(folder))
    return note


def has_adapter(model: Any) -> bool:
    """Whether the model has a LoRA adapter, so that a merged copy of it is written."""
    return hasattr(model, "disable_adapter")


def written_dtype(save_dtype: SaveDtype, base: sections.Model | None) -> torch.dtype:
    """The dtype of the saved weights. A model trained from scratch is saved in fp32."""
    if save_dtype == "as_loaded":
        return stored_dtype(base) if base is not None else torch.float32
    return torch.bfloat16 if save_dtype == "bf16" else torch.float32


def _whole(
    auto_class: Any, model: Any, adapter: str | None, base: sections.Model | None, tokenizer: Any, folder: Path
) -> Any:
    """The model to write into `folder`, with its adapter merged if it has one. Empties the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    if not has_adapter(model):
        return model.base_model if auto_class.__name__ == "AutoModel" else model  # the base model of a trunk is itself
    assert base is not None
    kept = adapter_folder(folder)
    if model.config.model_type == GPTConfig.model_type:  # its base is saved as a stock GPT-2, with transposed matrices
        model.peft_config[adapter].fan_in_fan_out = True
    save_adapter(model, str(adapter), kept)
    _write_tokenizer(tokenizer, model.get_base_model(), kept)
    whole = merge_adapter(auto_class, kept, base, rows_needed(tokenizer))
    check_trained(model, str(adapter), whole, str(kept))
    return whole


def _write(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype, is_merged: bool) -> None:
    """Writes a plain folder of a stock class: weights in `dtype`, end and pad tokens as in the tokenizer."""
    written = with_ends(as_stock(model, empties=is_merged), tokenizer)
    round_to(written, dtype)
    written.save_pretrained(folder)
    _write_tokenizer(tokenizer, written, folder)


def open_to_readers(*folders: Path) -> None:
    """Sets the mode of files to that of any new file here. safetensors writes files that only the owner can read."""
    mask = os.umask(0o077)
    os.umask(mask)
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def _write_tokenizer(tokenizer: Any, model: Any, folder: Path) -> None:
    """Writes the tokenizer. For a GPT-2 without `token_type_ids`: its class would add their embeddings to the input."""
    written = tokenizer
    if model.config.model_type in ("gpt2", GPTConfig.model_type):
        written = copy.deepcopy(tokenizer)
        written.model_input_names = ["input_ids", "attention_mask"]
    written.save_pretrained(folder)


def write_card(run_folder: Path, stage: str, recipe: Section, figures: dict[str, float], more: str = "") -> None:
    """Writes README.md of a run: stage, figures, recipe, and `more` text of the stage."""
    lines = [
        f"# {run_folder.name}",
        "",
        f"Written by `align {stage}`. The weights are in `model/`, a Hugging Face folder.",
        *_rounding(run_folder),
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


def _rounding(run_folder: Path) -> list[str]:
    """A line about the rounding of the saved weights, if they were rounded."""
    config = run_folder / "model" / "config.json"
    dtype = json.loads(config.read_text(encoding="utf-8")).get("dtype") if config.is_file() else None
    if dtype in (None, "float32"):
        return []
    return [f"They were trained in fp32 and are rounded to {dtype}; `train.save_dtype: fp32` saves them unrounded."]
