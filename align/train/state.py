"""Checkpoints: nested state dictionaries as safetensors and JSON, written atomically.

No pickle is written or read. A checkpoint is a folder `step-00000120/` that gets its name only when it is complete.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_leaves

from align.errors import UserError
from align.models.adapters import trained_parameters
from align.models.save import open_to_readers

# The names of a checkpoint's folder while it is written and while it is removed.
WRITING, REMOVING = ".writing", ".removing"


class Stateful(Protocol):
    """Anything that a checkpoint can hold: an object with a state dictionary."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Trainable:
    """The trained parameters of a module as a `Stateful`. A frozen base is not part of checkpoints."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Any]:
        return {name: p.detach() for name, p in trained_parameters(self.module).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises `UserError` if these are not the trained parameters of this run, such as an older version's."""
        trained = trained_parameters(self.module)
        shapes = {name: value.shape for name, value in state_dict.items()}
        if odd := [name for name, p in trained.items() if shapes.get(name) != p.shape] or sorted(
            set(shapes) - set(trained)
        ):
            raise UserError(
                f"resume: the checkpoint has other weights than this run trains (at {odd[0]}), perhaps from an older "
                "version; continue with that version, or start again with overwrite=true"
            )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(state_dict[name])


class RandomState:
    """The global random states of this process (Python, NumPy, PyTorch, its CUDA device) as a `Stateful`."""

    def state_dict(self) -> dict[str, Any]:
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        return {
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        random.setstate(state_dict["python"])
        name, keys, *rest = state_dict["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state_dict["torch"])
        if state_dict["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state_dict["cuda"])


class RandomStates:
    """The random states of all processes, in order, as a `Stateful`."""

    def __init__(self, states: Sequence[dict[str, Any]] = ()) -> None:
        self.states = list(states)

    def state_dict(self) -> dict[str, Any]:
        return {"processes": self.states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.states = state_dict["processes"]


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator(device: Any, *numbers: int) -> torch.Generator:
    """A generator seeded from numbers such as seed, step and rank, so resuming has no state to restore."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator(device).manual_seed(mixed)


def save_checkpoint(folder: Path, step: int, parts: dict[str, Stateful], keep: int) -> Path:
    """Writes `folder/step-NNNNNNNN` atomically, then removes all but the latest `keep` checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    writing = folder / WRITING
    remove_leftovers(folder)
    writing.mkdir()
    for name, part in parts.items():
        _write_tree(writing, name, part.state_dict())
    open_to_readers(writing)
    _sync(writing)
    remove(final)
    os.replace(writing, final)
    _sync(folder)
    for old in steps_saved(folder)[:-keep]:
        remove(folder / f"step-{old:08d}")
    return final


def load_checkpoint(folder: Path, step: int, parts: dict[str, Stateful]) -> None:
    """Restores `parts` from the checkpoint of `step`."""
    for name, part in parts.items():
        part.load_state_dict(_read_tree(folder / f"step-{step:08d}", name))


def bytes_of(parts: dict[str, Stateful]) -> int:
    """The size of a checkpoint of these parts: the bytes of their tensors."""
    leaves = tree_leaves([part.state_dict() for part in parts.values()])
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))


def steps_saved(folder: Path) -> list[int]:
    """The steps with a complete checkpoint, in order."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def remove(folder: Path) -> None:
    """Removes a folder if it exists. It is renamed first, so that a kill leaves nothing that could be read."""
    removing = folder.with_name(REMOVING)
    if folder.exists():
        os.replace(folder, removing)
        shutil.rmtree(removing)


def remove_leftovers(folder: Path) -> None:
    """Removes checkpoints that were being written or removed when a process was killed."""
    for name in (WRITING, REMOVING):
        shutil.rmtree(folder / name, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Replaces a file atomically: after a kill either the old or the new file is there."""
    writing = path.with_name(f".{path.name}")
    writing.write_text(text, encoding="utf-8")
    os.replace(writing, path)


def _write_tree(folder: Path, name: str, tree: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    structure = _pack(tree, "", tensors)
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(structure), encoding="utf-8")


def _read_tree(folder: Path, name: str) -> Any:
    try:
        structure = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / f"{name}.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: {name} of this checkpoint cannot be read ({error}); remove the folder") from None
    return _unpack(structure, tensors)


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A state tree as JSON, which keeps Python's floats exactly. Tensors are added to `tensors` under their path."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold {path}: {type(value).__name__}")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)


def _sync(folder: Path) -> None:
    """Flushes the files of a folder to the disk (fsync), before the folder is renamed."""
    for path in [*(p for p in folder.iterdir() if p.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
