"""Limits the size of unpacked files: a few kilobytes of gzip or Parquet can unpack to gigabytes.

The limit is a multiple of the file's size. Real data with long prompts that all rows share unpacks to 100 times its
size as gzip, and to 170 times as Parquet with zstd.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from align.errors import UserError

NEVER_TOO_MUCH = 2**26  # bytes
ROW, WHOLE, TABLE = 30, 300, 1000  # limits as multiples of a file's size: for one row, a whole file, a whole table


class Unpacked(io.RawIOBase):
    """The content of a .gz file. Set `taken` to 0 at the end of each row. A row that is too large is a `UserError`."""

    def __init__(self, file: Path, times: int) -> None:
        self.file, self.times, self.taken = file, times, 0
        self._content = gzip.open(file)  # noqa: SIM115

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = cast(io.BufferedIOBase, self._content).readinto(buffer)
        self.taken += n
        remedy = "unpack it with gunzip and give the unpacked file"
        check_size(self.file, self.taken, self.times, remedy, "it" if self.times == WHOLE else "a row of it")
        return n

    def close(self) -> None:
        self._content.close()
        super().close()


def check_size(file: Path, n_bytes: int, times: int, remedy: str, what: str = "it") -> None:
    """Raises `UserError` if a file or row unpacks to more than `times` the file's size and `NEVER_TOO_MUCH`."""
    if n_bytes > NEVER_TOO_MUCH and n_bytes > times * file.stat().st_size:
        raise UserError(
            f"{file}: {what} unpacks to more than {times} times the file's size, which is unusual and could fill the "
            f"memory; if the file is right, {remedy}"
        )


def batches(file: Path) -> Iterator[Any]:
    """The record batches of a Parquet file or an Arrow stream, each small enough to become Python objects.

    Raises `UserError` for a file that unpacks to too much.
    """
    import pyarrow

    for batch in _parquet_batches(file) if file.suffix.lower() == ".parquet" else _arrow_batches(file):
        batch.validate(full=True)  # wrong offsets in a damaged file would crash the process
        _check_table(file, batch.nbytes)
        shared = sum(column.dictionary.nbytes for column in batch.columns if pyarrow.types.is_dictionary(column.type))
        step = _rows_at_once(shared)
        for start in range(0, batch.num_rows, step):
            yield batch.slice(start, step)


def _parquet_batches(file: Path) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as table:
        groups = [table.metadata.row_group(index) for index in range(table.metadata.num_row_groups)]
        columns = [[group.column(index) for index in range(group.num_columns)] for group in groups]
        # nulls and repeated values take no room in the file, but at least an offset each in memory
        _check_table(file, sum(one.total_uncompressed_size + 4 * one.num_values for group in columns for one in group))
        with file.open("rb") as stream:
            shared = [sum(_dictionary_bytes(stream, one) for one in group) for group in columns]
        for index, n_bytes in enumerate(shared):
            yield from table.iter_batches(batch_size=_rows_at_once(n_bytes), row_groups=[index])


def _arrow_batches(file: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.memory_map(str(file)) as source:
        yield from pyarrow.ipc.open_stream(source)


def _check_table(file: Path, n_bytes: int) -> None:
    check_size(file, n_bytes, TABLE, "write it with less compression, or as JSON Lines")


def _rows_at_once(shared: int) -> int:
    """Rows to read at once. Each may be as large as the column's dictionary (`shared` bytes)."""
    return max(1, min(1000, NEVER_TOO_MUCH // max(shared, 1)))


def _dictionary_bytes(stream: IO[bytes], column: Any) -> int:
    """The size of a column's dictionary page; 0 if it has none.

    The page header has it in Thrift's compact form: a byte and the page's kind, a byte and twice the size.
    """
    if not column.has_dictionary_page or column.dictionary_page_offset is None:
        return 0
    stream.seek(column.dictionary_page_offset + 3)
    size = shift = 0
    for byte in stream.read(5):
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    return size // 2
