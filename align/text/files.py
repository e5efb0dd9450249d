"""The files that data sets come in, row by row: .json, .jsonl, .csv and .txt, each also as .gz, and .parquet.

A row that cannot be read is a `Broken` one among the others; a file that cannot be read at all is a `UserError`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from align.errors import UserError
from align.text.documents import cut_text
from align.text.rows import Broken, Row

EXTENSIONS = (".json", ".jsonl", ".csv", ".txt", ".json.gz", ".jsonl.gz", ".csv.gz", ".txt.gz", ".parquet")
KNOWN = ".json .jsonl .csv .txt (each also .gz) and .parquet"


def extension_of(name: str) -> str | None:
    """The extension that says a data file's format, or None."""
    matching = [extension for extension in EXTENSIONS if name.lower().endswith(extension)]
    return max(matching, key=len, default=None)


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """JSON lines in a file that appears when it is whole."""
    writing = path.with_name(f".{path.name}.writing")
    with writing.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    writing.replace(path)


def file_rows(file: Path) -> Iterator[Row | Broken]:
    """The rows of one file. Raises `UserError` for an unknown extension, or a file that cannot be read at all."""
    extension = extension_of(file.name)
    if extension is None:
        raise UserError(f"{file}: cannot tell its format from its name; the formats are {KNOWN}")
    if extension == ".parquet":
        yield from _parquet_rows(file)
        return
    opened: Callable[[Path], Any] = gzip.open if extension.endswith(".gz") else lambda path: path.open("rb")
    try:
        with opened(file) as stream:
            yield from _READERS[extension.removesuffix(".gz")](stream, str(file))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot read this file: {error}") from None


def _jsonl_rows(stream: IO[bytes], name: str) -> Iterator[Row | Broken]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield _json_row(line.removeprefix(b"\xef\xbb\xbf"), f"{name}:{number}")


def _json_row(line: bytes, source: str) -> Row | Broken:
    try:
        return object_row(json.loads(line.decode("utf-8")), source)
    except UnicodeDecodeError as error:
        return Broken(source, _not_utf8(error))
    except json.JSONDecodeError as error:
        return Broken(source, f"not valid JSON ({error.msg} at character {error.pos + 1})")
    except RecursionError:
        return Broken(source, "not valid JSON (nested too deeply)")


def object_row(value: Any, source: str) -> Row | Broken:
    """A row, if the value has named columns."""
    if isinstance(value, dict):
        return Row(value, source)
    return Broken(source, f"a row is an object with named columns, found {_kind(value)}")


def _json_rows(stream: IO[bytes], name: str) -> Iterator[Row | Broken]:
    content = stream.read()
    try:
        given = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {_not_utf8(error)}") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:  # JSON Lines under the name .json, which the hub has much of
            yield from _jsonl_rows(io.BytesIO(content), name)
            return
        raise UserError(f"{name}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno})") from None
    rows = given.get("data") if isinstance(given, dict) else given
    if not isinstance(rows, list):
        found = f"an object with {', '.join(map(repr, given))}" if isinstance(given, dict) else _kind(given)
        raise UserError(f'{name}: a .json file is a list of objects or {{"data": [...]}}, found {found}')
    for number, value in enumerate(rows, start=1):
        yield object_row(value, f"{name}:row {number}")


def _csv_rows(stream: IO[bytes], name: str) -> Iterator[Row | Broken]:
    csv.field_size_limit(
        2**31 - 1
    )  # a cell is a text here, and may be longer than the 131072 characters of the default
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, [])
        number = reader.line_num + 1
        for cells in reader:
            if cells:
                yield _csv_row(header, cells, f"{name}:{number}")
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name}:{reader.line_num}: not valid CSV: {error}") from None


def _csv_row(header: list[str], cells: list[str], source: str) -> Row | Broken:
    if len(cells) != len(header):
        return Broken(source, f"{len(cells)} cells, but the header has {len(header)} ({', '.join(header)})")
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:  # a byte that surrogateescape let through
        return Broken(source, "not UTF-8 text")
    return Row(dict(zip(header, cells, strict=True)), source)


def _txt_rows(stream: IO[bytes], name: str) -> Iterator[Row | Broken]:
    try:
        for number, text in cut_text(io.TextIOWrapper(stream, encoding="utf-8-sig").read()):
            yield Row({"text": text}, f"{name}:{number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {_not_utf8(error)}") from None


def _parquet_rows(file: Path) -> Iterator[Row | Broken]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=1000):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{file}:row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot read this Parquet file: {error}") from None


def _kind(value: Any) -> str:
    names = {
        list: "a list",
        str: "a string",
        int: "a number",
        float: "a number",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 text (byte 0x{error.object[error.start]:02x} at position {error.start})"


_READERS: dict[str, Callable[[IO[bytes], str], Iterator[Row | Broken]]] = {
    ".json": _json_rows,
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".txt": _txt_rows,
}
