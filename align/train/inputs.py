"""What a run stands on: its data, the models that it starts from and those that score it, by their contents.

A run that goes on with other data, or an adapter on another base, would have figures that belong to neither.
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

# The keys of recipes that name a file, folder or hub name.
NAMES = ("path", "validation", "critic", "demonstrations", "template")
DATE = "date"  # the key under which the day of a run's beginning is kept
DATA = ("data", "ptx", "demonstrations")  # those of them whose first word says that they name data; others name models
# Key of the recipe -> file, model folder or hub name -> what it holds, as a hash. Files are named as seen from where
# their folder stands, so that a folder with its runs may be moved.
Inputs = dict[str, dict[str, str]]


def inputs(recipe: Any) -> Inputs:
    """What the keys of a recipe name, as it is now."""
    found: Inputs = {}
    for key, name, split in _named(recipe.model_dump(mode="json"), "", "train"):
        held = found.setdefault(key, {})
        for file, hashed in _held(key, name, split).items():
            held[f"{name}: {file}" if held.get(file, hashed) != hashed else file] = hashed
    return found


def check_same(folder: Path, now: Inputs) -> None:
    """Raises `UserError` if the run in `folder` was begun with other contents."""
    if not (folder / "inputs.json").is_file():
        print(f"{folder} does not say what its data and models held when it began, so they are not compared")
        return
    before: Inputs = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    changed = [f"{key} ({words})" for key in {**before, **now} if key != DATE and (words := _changes(before, now, key))]
    if changed:
        raise UserError(
            f"resume: {folder} was begun with other contents of {', '.join(changed)}. Put back what it stands on, or "
            "begin anew: overwrite=true, or remove the folder"
        )


def _changes(before: Inputs, now: Inputs, key: str) -> str:
    then, here = before.get(key, {}), now.get(key, {})
    different = [name for name in sorted({**then, **here}) if then.get(name) != here.get(name)]
    told = [f"{name} {'has changed' if name in then and name in here else 'is new'}" for name in different]
    told = [f"{name} is gone" if name not in here else text for name, text in zip(different, told, strict=True)]
    return ", ".join(told[:3]) + ", ..." * (len(told) > 3)


def _named(tree: Any, key: str, split: str) -> Iterator[tuple[str, str, str]]:
    """(key, name, split of a data set) of all that a recipe names."""
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
    shards = sorted(path.glob("*.bin"))  # what `align.prepare` writes
    files = (*files_of(path, split), *shards)
    return {os.path.relpath(file, path.parent): file_fingerprint(file) for file in files}


def _hub_commit(name: str) -> str:
    """The commit of a hub data set in the local store, "" if it has none there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = name.partition("@")[0].partition(":")[0].replace("/", "--")
    commit = Path(HF_HUB_CACHE) / f"datasets--{repository}" / "refs" / "main"
    return commit.read_text(encoding="utf-8").strip() if commit.is_file() else ""


def date_of(recipe: Any) -> datetime.date:
    """The day that a run's chat templates write: that of its beginning, however often it goes on."""
    begun = Path(recipe.output) / "inputs.json"
    if recipe.resume and begun.is_file():
        held = json.loads(begun.read_text(encoding="utf-8")).get(DATE, {})
        return datetime.date.fromisoformat(held.get(DATE) or datetime.date.today().isoformat())
    return datetime.date.today()


def tokenizer_of(recipe: Any) -> Any:
    """The tokenizer of the model that a run starts from, with the recipe's template and the date of its beginning."""
    from align.text.template import fix_date
    from align.text.tokenizer import load_tokenizer

    model, data = recipe.model, recipe.data
    tokenizer = load_tokenizer(model.path, model.trust_remote_code, data.template, data.template_options)
    fix_date(tokenizer, date_of(recipe))
    return tokenizer
