"""Reads data files row by row: .json .jsonl .csv .tsv .txt (each also .gz), .parquet and .arrow.

A row that cannot be read is yielded as `Broken`; a file that cannot be read raises `UserError`. NaN becomes null, also
in a CSV cell. Each text of a CSV file is a `Cell`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from align.errors import UserError
from align.text.documents import cut_text
from align.text.rows import Broken, Cell, Row
from align.text.unpacking import ROW, WHOLE, Unpacked, batches
from align.text.values import shown

_TEXTS = (".json", ".jsonl", ".csv", ".tsv", ".txt")
_TABLES = (".parquet", ".arrow")  # `datasets` saves Arrow streams
EXTENSIONS = (*_TEXTS, *(f"{extension}.gz" for extension in _TEXTS), *_TABLES)
KNOWN = ".json .jsonl .csv .tsv .txt (each also .gz), .parquet and .arrow"

_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # a surrogate, single or in a pair, as JSON may write it


class _BadJSON(ValueError):
    """JSON that Python would read wrongly. Its text is the reason."""


def extension_of(name: str) -> str | None:
    """The data file extension of a file name, or None."""
    matching = [extension for extension in EXTENSIONS if name.lower().endswith(extension)]
    return max(matching, key=len, default=None)


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes rows as JSON lines. The file appears only when it is complete."""
    writing = path.with_name(f".{path.name}.writing")
    with writing.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    writing.replace(path)


def file_rows(file: Path) -> Iterator[Row | Broken]:
    """The rows of one file. Raises `UserError` for an unknown extension or a file that cannot be read."""
    extension = extension_of(file.name)
    if file.exists() and not file.is_file():
        raise UserError(f"{file}: this is a pipe or a device; save its output as a file")
    if _is_pointer(file):
        raise UserError(f"{file}: this is a Git LFS pointer, not the data; run git lfs pull in its repository")
    if extension is None:
        raise UserError(f"{file}: unknown file extension; the known ones are {KNOWN}")
    if extension in _TABLES:
        yield from _table_rows(file)
        return
    kind = extension.removesuffix(".gz")
    try:
        packed = Unpacked(file, WHOLE if kind in (".json", ".txt") else ROW) if kind != extension else None
        with file.open("rb") if packed is None else io.BufferedReader(packed, 2**16) as stream:
            for row in _READERS[kind](stream, str(file)):
                if packed is not None:
                    packed.taken = 0
                yield row
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot read this file: {error}") from None


def _is_pointer(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError as error:
        raise UserError(f"{file}: cannot read this file: {error.strerror}") from None


def _jsonl_rows(stream: IO[bytes], name: str) -> Iterator[Row | Broken]:
    for number, line in enumerate(stream, start=1):
        if not line.isspace():
            yield _json_row(line.removeprefix(b"\xef\xbb\xbf"), f"{name}:{number}")


def _json_row(line: bytes, source: str) -> Row | Broken:
    try:
        text = line.decode("utf-8")
        row = object_row(_decoded(text), source)
    except json.JSONDecodeError as error:
        return Broken(source, f"not valid JSON ({error.msg} at character {error.pos + 1})")
    except (ValueError, RecursionError) as error:
        return Broken(source, _why(error))
    return _whole(row) if "\\" in text and _HALF.search(text) else row


def _decoded(text: str) -> Any:
    """The same as `_DECODER.decode`, but faster for a line that begins with its JSON."""
    if not text.startswith("{"):
        return _DECODER.decode(text)
    value, end = _DECODER.raw_decode(text)
    return value if not text[end:].strip() else _DECODER.decode(text)  # raises an error with the position


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _BadJSON(f"the key {twice!r} is given twice in one object, {shown(found)}")
    return found


_CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
_DECODER = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_CONSTANTS.__getitem__)


def _why(error: Exception) -> str:
    """The reason for an error in JSON that is not a syntax error."""
    if isinstance(error, UnicodeDecodeError):
        return _not_utf8(error)
    if isinstance(error, RecursionError):
        return "not valid JSON (nested too deeply)"
    return str(error) if isinstance(error, _BadJSON) else "a number has too many digits"


def object_row(value: Any, source: str) -> Row | Broken:
    """A row, or `Broken` if the value is not an object."""
    if isinstance(value, dict):
        return Row(value, source)
    return Broken(source, f"a row is an object with named columns, found {_kind(value)}")


def without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """A row of a table with NaN replaced by None."""
    return {name: None if isinstance(value, float) and value != value else value for name, value in values.items()}


def _whole(row: Row | Broken) -> Row | Broken:
    """The row, or `Broken` if a column or its name has half of a surrogate pair, which cannot be encoded as UTF-8."""
    for column in row.values.items() if isinstance(row, Row) else ():
        try:
            json.dumps(column, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return Broken(row.source, f"column {column[0]!r} is not valid Unicode (half of a surrogate pair)")
    return row


def _json_rows(stream: IO[bytes], name: str) -> Iterator[Row | Broken]:
    content = stream.read()
    try:
        text = content.decode("utf-8-sig")
        rows = _rows_in(_DECODER.decode(text), name)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:  # JSON Lines named .json, common on the hub
            yield from _jsonl_rows(io.BytesIO(content), name)
            return
        raise UserError(f"{name}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: {_why(error)}") from None
    has_halves = _HALF.search(text)
    for number, value in enumerate(rows, start=1):
        row = object_row(value, f"{name}:row {number}")
        yield _whole(row) if has_halves else row


def _rows_in(given: Any, name: str) -> Sequence[Any]:
    """The rows of a .json file: a list of rows, {"data": [...]}, one row, or columns."""
    if isinstance(given, list):
        return given
    if isinstance(given, dict) and isinstance(given.get("data"), list):
        return list(given["data"])
    if isinstance(given, dict):
        if columns := _columns(given):
            return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        if any(isinstance(value, str) or _are_turns(value) for value in given.values()):
            return [given]
    found = f"an object with {', '.join(map(repr, given))}" if isinstance(given, dict) else _kind(given)
    able = 'a list of objects, {"data": [...]}, one row, or columns of one length'
    raise UserError(f"{name}: a .json file must be {able}; found {found}")


def _columns(given: dict[str, Any]) -> dict[str, list[Any]]:
    """Columns of one length, as lists or as pandas writes them ({"0": ..., "1": ...}); empty if this is a row.

    A list of objects is not a column but the messages of a row.
    """
    values = list(given.values())
    if values and all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        return {name: list(value.values()) for name, value in given.items()} if all(map(str.isdigit, values[0])) else {}
    are_columns = all(isinstance(value, list) and not any(isinstance(cell, dict) for cell in value) for value in values)
    return given if are_columns and len({len(value) for value in values}) == 1 and values[0] else {}


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in value)


def _csv_rows(stream: IO[bytes], name: str, delimiter: str = ",") -> Iterator[Row | Broken]:
    csv.field_size_limit(2**31 - 1)  # a cell may be longer than the default of 131072 characters
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True, delimiter=delimiter)
    try:
        header = next(reader, [])
        _check_names(header, name)
        number = reader.line_num + 1
        for cells in reader:
            if cells:
                yield _csv_row(header, cells, f"{name}:{number}")
            number = reader.line_num + 1
    except csv.Error as error:
        help = "a cell with quotes must be quoted, with its own quotes doubled"
        raise UserError(f"{name}:{reader.line_num}: not valid CSV: {error}; {help}") from None


def _csv_row(header: list[str], cells: list[str], source: str) -> Row | Broken:
    if len(cells) != len(header):
        return Broken(source, f"{len(cells)} cells, but the header has {len(header)} ({', '.join(header)})")
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:  # surrogateescape let an invalid byte through
        return Broken(source, "not UTF-8 text")
    values = dict(zip(header, map(Cell, cells), strict=True))
    if "nan" in cells or "NaN" in cells:  # pandas writes and reads missing values so
        return Row({name: None if cell in ("nan", "NaN") else cell for name, cell in values.items()}, source)
    return Row(values, source)


def _txt_rows(stream: IO[bytes], name: str) -> Iterator[Row | Broken]:
    try:
        for number, text in cut_text(io.TextIOWrapper(stream, encoding="utf-8-sig").read()):
            yield Row({"text": text}, f"{name}:{number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {_not_utf8(error)}") from None


def _check_names(names: list[str], file: str) -> None:
    try:
        "".join(names).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{file}: the names of the columns are not UTF-8 text; write the file as UTF-8") from None
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UserError(f"{file}: two columns have the name {twice!r}; rename or remove one")


def _table_rows(file: Path) -> Iterator[Row | Broken]:
    import pyarrow

    try:
        number = 0
        for batch in batches(file):
            _check_names(batch.schema.names, str(file))
            has_floats = any(map(pyarrow.types.is_floating, batch.schema.types))
            for values in batch.to_pylist():
                number += 1
                yield Row(without_nan(values) if has_floats else values, f"{file}:row {number}")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        kind = "Parquet file" if file.suffix.lower() == ".parquet" else "Arrow stream"
        raise UserError(f"{file}: cannot read this {kind}: {error}") from None


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
    ".tsv": partial(_csv_rows, delimiter="\t"),
    ".txt": _txt_rows,
}
