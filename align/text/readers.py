"""Reads the rows of local files, folders and hub data sets. Each row has its source (file and line).

A folder stands for all data files below it (`align.text.files`), sorted by path, also one that `datasets` saved.
Licences, readmes and descriptions are not data. If names of files or folders name several splits (train.jsonl,
test/a.jsonl), only files of the wanted split and files that name none are read. A path that does not exist and looks
like a hub name ("owner/name", "name", "owner/name:config", each also with "@split") is loaded with `datasets`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from align.errors import UserError
from align.text.files import KNOWN, extension_of, file_rows, object_row, without_nan
from align.text.rows import Broken, BrokenRows, Row

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<split>\S+))?")
_SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test"}
_SPLIT_WORDS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
# Files that `datasets`, the hub and authors add to data. They are not data to train on.
_DESCRIBES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")
_NO_DATA = re.compile(
    r"state\.json|(readme|licen[cs]es?|notices?|copying|citation|changelog|requirements)([._-].*)?\.txt(\.gz)?",
    re.IGNORECASE,
)


class Rows(NamedTuple):
    """All rows of a data set, and the rows that were skipped."""

    rows: list[Row]
    broken: BrokenRows


def read_rows(path: str | Path, split: str = "train", on_error: Literal["stop", "skip"] = "stop") -> Rows:
    """All rows of a file, folder or hub data set.

    Raises `UserError` for a path that does not exist, a file that cannot be read, and, unless `on_error` is "skip", the
    first row that is not valid JSON, not an object, not UTF-8, or has more or fewer cells than the header.
    """
    broken = BrokenRows(on_error)
    return Rows(list(iter_rows(path, split, broken)), broken)


def iter_rows(path: str | Path, split: str = "train", broken: BrokenRows | None = None) -> Iterator[Row]:
    """`read_rows`, one row at a time, for data that does not fit in memory."""
    broken = broken or BrokenRows()
    broken.no_data += [str(file) for file in _inside(Path(path)) if _NO_DATA.fullmatch(file.name)]
    for row in _any_rows(str(path), split):
        if isinstance(row, Broken):
            broken.add(row)
        else:
            yield row


def _any_rows(path: str, split: str) -> Iterator[Row | Broken]:
    if _exists(path):
        for file in files_of(path, split):
            yield from file_rows(file)
    elif (hub := _HUB_NAME.fullmatch(path)) and not extension_of(path):
        yield from _hub_rows(path, hub["name"], hub["config"], hub["split"] or split)
    else:
        raise UserError(f"{path}: no such file or folder{_nearest(path)}")


def files_of(path: str | Path, split: str = "train") -> list[Path]:
    """The data files of a local path, in the order of reading. Raises `UserError` if there is none."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    files = [file for file in _inside(path) if not _NO_DATA.fullmatch(file.name)]
    if not files:
        raise UserError(f"{path}: no data file in this folder; the file types are {KNOWN}")
    split_of = {file: _split_in(file.relative_to(path)) for file in files}
    splits = {name for name in split_of.values() if name}
    if len(splits) < 2:
        return files
    wanted = _SPLIT_WORDS.get(split, split)
    if wanted not in splits:
        raise UserError(f"{path}: no file of the split {split!r} in this folder; there are {', '.join(sorted(splits))}")
    return [file for file in files if split_of[file] in (wanted, None)]


def _inside(path: Path) -> list[Path]:
    """The files below a folder with a data extension. Hidden files and folders are left out."""
    found = sorted(path.rglob("*")) if _exists(str(path)) else []
    named = (file for file in found if extension_of(file.name) and file.name not in _DESCRIBES)
    seen = (file for file in named if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return [file for file in seen if file.is_file()]


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # the name is too long
        return False


def _split_in(file: Path) -> str | None:
    """The split at the start of a file name (train-00000-of-00002.parquet, dev.jsonl) or in a folder's name."""
    begun = re.split(r"[^a-z]", file.name.lower())[0]
    names = [begun, *(folder.name.lower() for folder in file.parents)]
    return next((_SPLIT_WORDS[name] for name in names if name in _SPLIT_WORDS), None)


def _hub_rows(path: str, name: str, config: str | None, split: str) -> Iterator[Row | Broken]:
    import datasets

    try:
        dataset = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # datasets raises ValueError, OSError and more for mistakes of users
        raise _hub_error(path, error) from error
    for number, values in enumerate(dataset, start=1):
        yield object_row(without_nan(values), f"{name}[{split}]:row {number}")


def _hub_error(path: str, error: Exception) -> UserError:
    """The `UserError` for a hub data set. For unknown splits and configurations `datasets` lists the existing ones."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, ValueError):
        return UserError(
            f"{path}: {reason}; a hub data set is written owner/name, owner/name:config or owner/name@split"
        )
    return UserError(
        f"{path}: no such file or folder{_nearest(path)}, and it cannot be loaded from the hub ({reason}); check the "
        "name and the network, or download it and give its path"
    )


def _nearest(path: str) -> str:
    """A suggestion for a path that does not exist: the closest name in its deepest existing folder."""
    wanted = Path(path)
    folder = next(parent for parent in wanted.absolute().parents if parent.is_dir())
    missing = wanted.absolute().relative_to(folder).parts[0]
    close = difflib.get_close_matches(missing, [entry.name for entry in folder.iterdir()], n=1)
    if not close:
        return ""
    found = folder / close[0]
    is_shorter = not wanted.is_absolute() and found.is_relative_to(Path.cwd())
    return f"; did you mean {found.relative_to(Path.cwd()) if is_shorter else found}?"
