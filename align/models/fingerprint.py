"""Fingerprints: a hash of a model's files, so a copied model has the same fingerprint and a changed one another."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from align import sections
from align.models.load import is_adapter
from align.text.tokenizer import stored_at

READ = ("*.json", "*.jinja", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.bin", "*.py")
CHUNK = 2**24  # bytes read at a time


def fingerprint(model: sections.Model) -> str:
    """A hash that depends only on the weights, the tokenizer and the settings that are loaded."""
    if not model.path.endswith(".gguf"):
        model = model.model_copy(update={"path": stored_at(model.path)[0]})  # the local folder of a hub adapter
    parts = [_hub_commit(model.path), model.quantization]
    if Path(model.path).is_dir():
        parts[0] = _folder(Path(model.path))
    elif Path(model.path).is_file():
        parts[0] = file_fingerprint(Path(model.path))
    if is_adapter(model.path):
        settings = json.loads((Path(model.path) / "adapter_config.json").read_text(encoding="utf-8"))
        parts.append(fingerprint(model.model_copy(update={"path": settings["base_model_name_or_path"]})))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def file_fingerprint(file: Path) -> str:
    """A hash of one file: its name and contents."""
    return _files(file.parent, [file])


def _folder(folder: Path) -> str:
    """A hash of names and contents of the files of a model or tokenizer."""
    return _files(folder, sorted({path for pattern in READ for path in folder.glob(pattern)}))


def _files(folder: Path, files: list[Path]) -> str:
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return _hashed(folder.resolve(), tuple(stats))


@lru_cache(maxsize=1024)
def _hashed(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """Hashes files. Cached as long as their sizes and modification times do not change."""
    found = hashlib.blake2b(digest_size=16)
    for name, size, _ in files:
        found.update(f"{name} {size}\n".encode())
        with (folder / name).open("rb") as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
    return found.hexdigest()


def _hub_commit(path: str) -> str:
    """owner/name@commit of a hub model in the local cache."""
    from transformers.utils.hub import cached_file

    if Path(path).exists():
        return path
    config = cached_file(path, "config.json", _raise_exceptions_for_missing_entries=False)
    return f"{path}@{Path(config).parent.name}" if config else path
