"""The inputs of a run: hashes of its data, of the models that it starts from and of those that score it.

A resumed run must have the same inputs; otherwise its figures would belong to neither.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align import sections
from align.errors import UserError
from align.models.fingerprint import file_fingerprint, fingerprint
from align.text.readers import files_of

# The recipe keys with a file, folder or hub name.
NAMES = ("path", "validation", "critic", "demonstrations", "template")
DATE = "date"  # the key for the start date of a run
DATA = ("data", "ptx", "demonstrations")  # keys that begin with these name data; the others name models
# Recipe key -> file, model folder or hub name -> hash of its contents. File names are relative to the parent of their
# folder, so a folder with its runs may be moved.
Inputs = dict[str, dict[str, str]]


def inputs(recipe: Any) -> Inputs:
    """The current hashes of everything that a recipe names."""
    found: Inputs = {}
    for key, name, split in _named(recipe.model_dump(mode="json"), "", "train"):
        held = found.setdefault(key, {})
        for file, hashed in _held(key, name, split).items():
            held[f"{name}: {file}" if held.get(file, hashed) != hashed else file] = hashed
    return found


def check_same(folder: Path, now: Inputs) -> None:
    """Raises `UserError` if the run in `folder` was started with other contents."""
    if not (folder / "inputs.json").is_file():
        print(f"{folder} has no inputs.json, so its data and models are not compared with those of its start")
        return
    before: Inputs = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    changed = [f"{key} ({words})" for key in {**before, **now} if key != DATE and (words := _changes(before, now, key))]
    if changed:
        raise UserError(
            f"resume: {folder} was started with other contents of {', '.join(changed)}. Restore them, or start again "
            "with overwrite=true, or remove the folder"
        )


def _changes(before: Inputs, now: Inputs, key: str) -> str:
    then, here = before.get(key, {}), now.get(key, {})
    different = [name for name in sorted({**then, **here}) if then.get(name) != here.get(name)]
    words = [f"{name} {'has changed' if name in then and name in here else 'is new'}" for name in different]
    words = [f"{name} is missing" if name not in here else text for name, text in zip(different, words, strict=True)]
    return ", ".join(words[:3]) + ", ..." * (len(words) > 3)


def _named(tree: Any, key: str, split: str) -> Iterator[tuple[str, str, str]]:
    """Yields (key, name, split) for every file, folder and hub name in a recipe."""
    if isinstance(tree, list):
        for item in tree:
            yield from _named(item, key, split)
    elif isinstance(tree, dict):
        split = tree.get("split") or split
        for name, item in tree.items():
            below = key if name == key.rpartition(".")[2] else f"{key}.{name}".lstrip(".")  # a source in data.path
            yield from _named(item, below, "validation" if name == "validation" else split)
    elif isinstance(tree, str) and key.rpartition(".")[2] in NAMES and (key, tree) != ("ppo.critic", "trunk"):
        yield key, tree, split


def _held(key: str, name: str, split: str) -> dict[str, str]:
    path = Path(name)
    if key.partition(".")[0] not in DATA:
        return {path.name if path.is_dir() else name: fingerprint(sections.Model(path=name))}
    if not path.exists():
        return {name: _hub_commit(name)}
    shards = sorted(path.glob("*.bin"))  # written by `align.prepare`
    files = (*files_of(path, split), *shards)
    return {os.path.relpath(file, path.parent): file_fingerprint(file) for file in files}


def _hub_commit(name: str) -> str:
    """The commit of a hub data set in the local cache, "" if it is not there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = name.partition("@")[0].partition(":")[0].replace("/", "--")
    commit = Path(HF_HUB_CACHE) / f"datasets--{repository}" / "refs" / "main"
    return commit.read_text(encoding="utf-8").strip() if commit.is_file() else ""


def date_of(recipe: Any) -> datetime.date:
    """The date for a run's chat templates: its start date, also after it is resumed."""
    begun = Path(recipe.output) / "inputs.json"
    if recipe.resume and begun.is_file():
        held = json.loads(begun.read_text(encoding="utf-8")).get(DATE, {})
        return datetime.date.fromisoformat(held.get(DATE) or datetime.date.today().isoformat())
    return datetime.date.today()


def tokenizer_of(recipe: Any) -> Any:
    """The tokenizer of the model that a run starts from, with the recipe's template and the run's start date."""
    from align.text.template import fix_date
    from align.text.tokenizer import load_tokenizer

    model, data = recipe.model, recipe.data
    tokenizer = load_tokenizer(model.path, model.trust_remote_code, data.template, data.template_options)
    fix_date(tokenizer, date_of(recipe))
    return tokenizer
