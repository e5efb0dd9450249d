"""Turns documents into token shards for pretraining. Trains a tokenizer on them if none is given.

    align prepare recipes/prepare.yaml

Writes a folder: tokenizer/ (a Hugging Face tokenizer), train.bin and validation.bin (token ids; EOS ends each
document), tokens.json (counts and dtype). `align.pretrain` reads such a folder, or calls this itself for documents.
"""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section, parse_command
from align.errors import UserError, check_place, exit_on_user_error

if TYPE_CHECKING:
    import numpy as np

    from align.text.records import Document

INDEX_FILE = "tokens.json"


class Tokenizer(Section):
    """The tokenizer of a new model: an existing one, or byte-level BPE trained on the documents."""

    path: str | None = None
    """A folder or hub name. By default one is trained."""
    vocab_size: int = Field(4096, ge=300)
    """Size of the trained vocabulary: 256 bytes, 5 special tokens, merges."""


class Recipe(Section):
    """Tokenising documents."""

    data: sections.Data = sections.Data.defaults(validation=0.01)
    tokenizer: Tokenizer = Tokenizer()
    output: str
    """The folder to write."""
    seed: int = Field(1, ge=0)
    """Seed of the choice of validation documents."""

    @model_validator(mode="after")
    def _validates(self) -> Self:
        if not self.data.validation:
            raise ValueError("data.validation: pretraining needs validation documents; give a fraction such as 0.01")
        return self


class Shards(NamedTuple):
    """Token ids on disk, read through a memory map."""

    folder: Path
    train: np.ndarray  # (n_tokens,)
    validation: np.ndarray
    validation_bytes: int  # UTF-8 bytes of the validation text, for bits per byte

    @property
    def tokenizer_path(self) -> str:
        """The tokenizer that wrote the ids."""
        return str(self.folder / "tokenizer")


def main() -> None:
    """Parses the command line and prepares."""
    recipe, dry_run = parse_command(Recipe, "prepare")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Writes `recipe.output`. `dry_run` only reads the documents and prints their counts."""
    folder = Path(recipe.output)
    check_place(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"output: {folder} exists and is not empty; choose another output or remove it")
    from align.text.load import load

    documents = load(recipe.data, "documents", recipe.seed)
    print("\n".join(documents.report.lines()))
    if not dry_run:
        shards = write_shards(documents.train, documents.validation, recipe.tokenizer, folder)
        print(f"wrote {folder}: {len(shards.train):,} training tokens, {len(shards.validation):,} for validation")


def is_prepared(path: Any) -> bool:
    """Whether `path` is a folder of token shards that this command wrote."""
    return isinstance(path, str) and (Path(path) / INDEX_FILE).is_file()


def write_shards(train: list[Document], validation: list[Document], settings: Tokenizer, folder: Path) -> Shards:
    """Tokenises documents into `folder`. Raises `UserError` if the tokenizer cannot be loaded."""
    from align.text.tokenizer import load_tokenizer, rows_needed, train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer: Any
    if settings.path is None:
        tokenizer = train_tokenizer((document.text for document in train), settings.vocab_size)
    else:
        tokenizer = load_tokenizer(settings.path)
    tokenizer.save_pretrained(folder / "tokenizer")
    n_bytes = sum(len(document.text.encode()) for document in validation)
    index: dict[str, Any] = {"vocab_size": rows_needed(tokenizer), "validation_bytes": n_bytes}
    index["dtype"] = "uint16" if index["vocab_size"] <= 2**16 else "uint32"
    for name, documents in (("train", train), ("validation", validation)):
        index[f"{name}_documents"] = len(documents)
        index[f"{name}_tokens"] = _write_tokens(tokenizer, documents, folder / f"{name}.bin", index["dtype"])
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return read_shards(folder)


def read_shards(folder: str | Path) -> Shards:
    """The shards in a prepared folder."""
    import numpy as np

    index = json.loads((Path(folder) / INDEX_FILE).read_text(encoding="utf-8"))
    train, validation = (
        np.memmap(Path(folder) / f"{name}.bin", dtype=index["dtype"], mode="r") for name in ("train", "validation")
    )
    return Shards(Path(folder), train, validation, index["validation_bytes"])


def _write_tokens(tokenizer: Any, documents: list[Document], path: Path, dtype: str) -> int:
    import numpy as np

    from align.text.encode import encode_documents

    n_tokens = 0
    with path.open("wb") as file:
        rows = encode_documents(tokenizer, (document.text for document in documents))
        while batch := list(islice(rows, 10_000)):
            ids = np.fromiter(chain.from_iterable(batch), dtype=dtype)
            file.write(ids.tobytes())  # `tofile` raises without errno on a full disk
            n_tokens += len(ids)
    return n_tokens


if __name__ == "__main__":
    exit_on_user_error(main)
