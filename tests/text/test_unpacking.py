"""Small files that become large: refused before they fill the memory. Honest ones that do so are read."""

from __future__ import annotations

import gzip
import json
import random
import struct
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from align.errors import UserError
from align.text import unpacking
from align.text.readers import read_rows

FEW = 2**20  # what is never too much, for these tests


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "NEVER_TOO_MUCH", FEW)


def table(path: Path, **columns: Any) -> str:
    parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return str(path)


def one_text(folder: Path) -> str:
    return table(folder / "x.parquet", text=["a" * 10 * FEW])


def one_text_of_many(folder: Path) -> str:
    return table(folder / "x.parquet", text=["a" * 10 * FEW, *map(str, range(1000))])


def a_list_of_nothing(folder: Path) -> str:
    offsets = pyarrow.array([0, 5_000_000], pyarrow.int32())
    return table(folder / "x.parquet", list=pyarrow.ListArray.from_arrays(offsets, pyarrow.nulls(5_000_000)))


def arrow_texts(folder: Path) -> str:
    batch = pyarrow.record_batch({"text": ["a" * 10 * FEW]})
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_stream(str(folder / "x.arrow"), batch.schema, options=options) as stream:
        stream.write_batch(batch)
    return str(folder / "x.arrow")


@pytest.mark.parametrize("make", [one_text, one_text_of_many, a_list_of_nothing, arrow_texts])
def test_a_table_that_becomes_a_thousand_times_as_large_is_refused(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path)
    assert Path(path).stat().st_size < 20_000
    with pytest.raises(UserError, match=r"more than 1000 times the file's size.*write it with less compression"):
        read_rows(path)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("x.jsonl.gz", b'{"text": "', b'"}\n'), ("x.csv.gz", b'text\n"', b'"\n'), ("x.json.gz", b'[{"text": "', b'"}]'),
     ("x.txt.gz", b"", b"")],
)  # fmt: skip
def test_a_row_that_becomes_many_times_as_large_is_refused(
    tmp_path: Path, name: str, before: bytes, after: bytes
) -> None:
    with gzip.open(tmp_path / name, "wb") as file:
        file.write(before + b"a" * 10 * FEW + after)
    with pytest.raises(UserError, match=r"unpacks to more than \d+ times the file's size.*gunzip"):
        read_rows(tmp_path / name)
    (tmp_path / name.removesuffix(".gz")).write_bytes(before + b"a" * 10 * FEW + after)
    assert read_rows(tmp_path / name.removesuffix(".gz")).rows[0].values["text"] == "a" * 10 * FEW


def test_rows_that_share_a_large_text_come_a_few_at_a_time(tmp_path: Path) -> None:
    shared, large = ["a" * (FEW // 5 - 100)] * 500, [random.Random(1).randbytes(FEW).hex()] + ["b"] * 499
    for column in (shared, large, pyarrow.array(shared).dictionary_encode()):
        path = table(tmp_path / "x.parquet", text=column)
        most = max(unpacking.batches(Path(path)), key=lambda batch: batch.num_rows).num_rows
        assert most == (1 if column is large else 5)
        assert len(read_rows(path).rows) == 500


def test_honest_data_that_packs_well_are_read(tmp_path: Path) -> None:
    """All rows share a prompt of 3 kB, and differ in a number."""
    chance = random.Random(1)
    shared = " ".join(f"w{chance.randrange(5000)}" for _ in range(500))
    rows = [{"prompt": f"{shared} Seed: {chance.randrange(10**9)}", "response": str(n)} for n in range(3000)]
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as lines, gzip.open(tmp_path / "x.json.gz", "wt") as whole:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
        json.dump(rows, whole)
    table(tmp_path / "x.parquet", **{key: [row[key] for row in rows] for key in rows[0]})
    for name in ("x.jsonl.gz", "x.json.gz", "x.parquet"):
        assert (tmp_path / name).stat().st_size * 60 < 8 * FEW < len(json.dumps(rows))
        assert [row.values for row in read_rows(tmp_path / name).rows] == rows


def test_a_damaged_stream_does_not_end_the_process(tmp_path: Path) -> None:
    batch = pyarrow.record_batch({"text": ["abcdefgh"]})
    with pyarrow.ipc.new_stream(str(tmp_path / "x.arrow"), batch.schema) as stream:
        stream.write_batch(batch)
    good = (tmp_path / "x.arrow").read_bytes()
    text = struct.pack("<i", 8) + b"abcdefgh"  # where it ends, and the text itself
    for damaged in (struct.pack("<i", 2**30) + b"abcdefgh", struct.pack("<i", 8) + b"abcdefg\xff"):
        assert good.count(text) == 1
        (tmp_path / "x.arrow").write_bytes(good.replace(text, damaged))
        with pytest.raises(UserError, match="cannot read this Arrow stream"):
            read_rows(tmp_path / "x.arrow")
