"""Rows of files, folders and the hub: where each stands, and what is said of the broken ones."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from align.errors import UserError
from align.text.readers import files_of, iter_rows, read_rows
from align.text.rows import N_LISTED, BrokenRows, Cell

ROWS = [{"prompt": "Name a colour.", "completion": "Red."}, {"prompt": "And\nanother?", "completion": 'Not "red".'}]
CSV = 'prompt,completion\nName a colour.,Red.\n"And\nanother?","Not ""red""."\n'


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.jsonl", ROWS, [":1", ":2"]),
        ("a.json", ROWS, [":row 1", ":row 2"]),
        ("a.json", {"version": 1, "data": ROWS}, [":row 1", ":row 2"]),
        (
            "a.json",
            {"prompt": [row["prompt"] for row in ROWS], "completion": ["Red.", 'Not "red".']},
            [":row 1", ":row 2"],
        ),
        ("a.json", {key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]}, [":row 1", ":row 2"]),
        ("a.csv", CSV, [":2", ":3"]),
        ("a.tsv", CSV.replace(",", "\t"), [":2", ":3"]),
    ],
    ids=["jsonl", "json", "json data", "json columns", "json columns of pandas", "csv", "tsv"],
)
def test_files(write, name, content, places, packed):
    path = write(name + packed, content)
    rows = read_rows(path).rows
    assert [row.values for row in rows] == ROWS
    assert [row.source for row in rows] == [path + place for place in places]


def test_parquet(write):
    path = write("a.parquet", ROWS)
    rows = read_rows(path).rows
    assert [row.values for row in rows] == ROWS
    assert rows[1].source == f"{path}:row 2"


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_text_file_is_cut_into_documents(write, packed):
    path = write(f"a.txt{packed}", "One.\n<|endoftext|>\nTwo.\n")
    assert read_rows(path).rows == [({"text": "One."}, f"{path}:1"), ({"text": "Two."}, f"{path}:3")]


def test_json_lines_under_the_name_json(write):
    path = write("a.json", '{"text": "One."}\n{"text": "Two."}\n')
    assert [row.source for row in read_rows(path).rows] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize(
    "row",
    [ROWS[0], {"messages": [{"role": "user", "content": "a"}]}, {"prompt": [{"role": "user"}], "responses": ["a"]}],
)
def test_a_json_file_of_one_row(write, row):
    assert [found.values for found in read_rows(write("a.json", json.dumps(row) + "\n")).rows] == [row]


def test_nan_is_null(write, tmp_path):
    import pandas

    (row,) = read_rows(write("a.jsonl", '{"a": NaN, "b": {"c": NaN}, "d": Infinity}')).rows
    assert row.values == {"a": None, "b": {"c": None}, "d": math.inf}
    pandas.DataFrame({"a": [1.5, math.nan]}).to_parquet(tmp_path / "a.parquet")
    assert [row.values for row in read_rows(tmp_path / "a.parquet").rows] == [{"a": 1.5}, {"a": None}]
    assert read_rows(write("a.csv", "a,b,c\nnan,NaN,Nan\n")).rows[0].values == {"a": None, "b": None, "c": "Nan"}


def test_only_texts_of_csv_files_are_cells(write):
    cells = [read_rows(write(name, "a\n[1]\n")).rows[0].values["a"] for name in ("a.csv", "a.tsv")]
    cells += [read_rows(write(f"b.{name}", [{"a": "[1]"}])).rows[0].values["a"] for name in ("jsonl", "parquet")]
    assert [type(cell) for cell in cells] == [Cell, Cell, str, str]


def test_a_pair_of_surrogates_is_one_character(write):
    assert read_rows(write("a.jsonl", r'{"a": "\ud83d\ude00 \\ud800"}')).rows[0].values["a"] == "\U0001f600 \\ud800"


def test_blank_lines_are_no_rows_but_count_as_lines(write):
    path = write("a.jsonl", '\ufeff{"text": "One."}\n\n  \n{"text": "Two."}')
    assert [row.source for row in read_rows(path).rows] == [f"{path}:1", f"{path}:4"]
    path = write("a.csv", "\ufefftext\nOne.\n\nTwo.\n")
    assert [row.values for row in read_rows(path).rows] == [{"text": "One."}, {"text": "Two."}]


def test_a_long_cell_is_no_error(write):
    assert len(read_rows(write("a.csv", "text\n" + "x" * 200_000 + "\n")).rows[0].values["text"]) == 200_000


def test_a_folder_is_its_files_in_order(write, tmp_path):
    write("set/b.jsonl", [{"text": "2"}])
    write("set/a/deep.csv", "text\n1\n")
    write("set/c.parquet", [{"text": "3"}])
    write("set/README.md", "no data")
    write("set/.hidden.jsonl", [{"text": "4"}])
    write("set/.cache/d.jsonl", [{"text": "5"}])
    write("set/dataset_infos.json", {"default": {}})
    assert [row.values["text"] for row in iter_rows(tmp_path / "set")] == ["1", "2", "3"]


def test_a_folder_whose_files_name_splits_gives_the_wanted_one(write, tmp_path):
    for name in ("train-00000.jsonl", "train-00001.jsonl", "test.jsonl", "dev.jsonl", "other.jsonl"):
        write(f"set/{name}", [{"text": name}])
    names = {split: [file.name for file in files_of(tmp_path / "set", split)] for split in ("train", "validation")}
    assert names["train"] == ["other.jsonl", "train-00000.jsonl", "train-00001.jsonl"]
    assert names["validation"] == ["dev.jsonl", "other.jsonl"]
    with pytest.raises(UserError, match=r"no file of the split 'holdout'.*there are test, train, validation"):
        files_of(tmp_path / "set", "holdout")


def test_what_stands_beside_the_data_is_not_read_but_named(write, tmp_path):
    for name in ("LICENSE.txt", "readme-de.txt", "licenses_of_songs.jsonl"):
        write(f"set/{name}", "Permission is hereby granted\n" if name.endswith("txt") else [{"text": "a song"}])
    broken = BrokenRows()
    assert [row.values["text"] for row in iter_rows(tmp_path / "set", broken=broken)] == ["a song"]
    assert [Path(name).name for name in broken.no_data] == ["LICENSE.txt", "readme-de.txt"]


def test_a_folder_that_datasets_saved(tmp_path):
    import datasets

    parts = {"train": ROWS, "test": ROWS[:1]}
    datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}).save_to_disk(
        tmp_path / "saved"
    )
    assert [row.values for row in read_rows(tmp_path / "saved").rows] == ROWS
    assert [row.source for row in read_rows(tmp_path / "saved", "test").rows] == [
        f"{tmp_path}/saved/test/data-00000-of-00001.arrow:row 1"
    ]


def test_a_folder_that_names_one_split_is_read_whole(write, tmp_path):
    write("set/test.jsonl", [{"text": "1"}])
    assert len(read_rows(tmp_path / "set", "train").rows) == 1


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 222762\n"
POINTERS = ("a.txt", "a.jsonl", "a.json.gz", "a.csv", "a.parquet", "a.bin")
BROKEN = [
    ("a.jsonl", '{"a": 1}\n{"a": \n', ":2: not valid JSON (Expecting value at character 8)"),
    ("a.jsonl", '{"a": 1}\n[1]\n', ":2: a row is an object with named columns, found a list"),
    ("a.jsonl", "null\n", ":1: a row is an object with named columns, found null"),
    (
        "a.jsonl",
        '{"a": 1}\n{"b": [{"a": 1, "c": 2, "a": 3}]}\n',
        """:2: the key 'a' is given twice in one object, {"a": 3, "c": 2}""",
    ),
    ("a.jsonl", '{"a": 1}\n{"a": ' + "9" * 5000 + "}\n", ":2: a number has too many digits"),
    (
        "a.jsonl",
        '{"a": 1}\n{"a": "x", "by": "\\ud83d"}\n',
        ":2: column 'by' is not valid Unicode (half of a surrogate pair)",
    ),
    (
        "a.json",
        '[{"a": 1}, {"\\udc00": 2}]',
        ":row 2: column '\\udc00' is not valid Unicode (half of a surrogate pair)",
    ),
    ("a.json", '[{"a": 1}, 3]', ":row 2: a row is an object with named columns, found a number"),
    ("a.csv", "a,b\n1,2\n1\n", ":3: 1 cells, but the header has 2 (a, b)"),
    ("a.csv", 'a,b\n"1\n",2\n1,2,3\n', ":4: 3 cells, but the header has 2 (a, b)"),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_a_broken_row_is_named_with_the_remedy(write, name, content, said):
    path = write(name, content)
    with pytest.raises(UserError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(path + said)
    assert "data.on_error=skip" in str(caught.value)


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_a_broken_row_can_be_skipped(write, name, content, said):
    path = write(name, content)
    rows, broken = read_rows(path, on_error="skip")
    assert broken.count == 1
    assert [f"{row.source}: {row.reason}" for row in broken.listed] == [path + said]
    assert len(rows) == (0 if content.startswith("null") else 1)


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", b'{"a": "ok"}\n{"a": "\xff"}\n'), ("a.csv", b"a\nok\n\xff\n")]
)
def test_a_row_in_another_encoding(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    rows, broken = read_rows(tmp_path / name, on_error="skip")
    assert [row.values for row in rows] == [{"a": "ok"}]
    assert broken.listed[0].reason.startswith("not UTF-8")


def test_only_the_first_broken_rows_are_listed(write):
    broken = read_rows(write("a.jsonl", "x\n" * 50), on_error="skip").broken
    assert (broken.count, len(broken.listed)) == (50, N_LISTED)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'[{"a": 1},\n]', r":[12]: not valid JSON"),  # Python 3.13 names the comma
        ("a.json", b'{"rows": []}', r"a list of objects, .*found an object with 'rows'"),
        ("a.json", b'{"prompt": ["a", "b"], "completion": ["c"]}', r"columns of one length; found an object with"),
        ("a.json", b'[{"a": 1, "a": 2}]', r"the key 'a' is given twice in one object"),
        ("a.json", b"[" * 100_000, r"nested too deeply"),
        ("a.json", b'"text"', r"found a string"),
        ("a.json", b'["\xff"]', r"not UTF-8 text \(byte 0xff at position 2\)"),
        ("a.txt", b"\xff", r"not UTF-8"),
        ("a.csv", b'a\n"x\n', r"not valid CSV"),
        ("a.tsv", b'a\tb\n"x" y\tz\n', r"not valid CSV: .*; a cell with quotes must be quoted"),
        ("a.jsonl.gz", b"not packed", r"cannot read this file: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-10], r"cannot read this file"),
        ("a.parquet", b"not parquet", r"cannot read this Parquet file"),
        ("a.csv", b"a,b,a\n1,2,3\n", r"two columns have the name 'a'"),
        ("a.csv", b"a,\xff\n1,2\n", r"the names of the columns are not UTF-8 text"),
        ("a.arrow", b"not Arrow", r"cannot read this Arrow stream"),
        *((name, POINTER, r"this is a Git LFS pointer, not the data; run git lfs pull") for name in POINTERS),
        (
            "a.xlsx",
            b"",
            r"unknown file extension; the known ones are .json .jsonl .csv .tsv .txt \(each also .gz\), .parquet",
        ),
    ],
)
def test_a_file_that_cannot_be_read_stops_even_where_rows_are_skipped(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / name)) + r".*" + said):
        read_rows(tmp_path / name, on_error="skip")


def test_a_folder_without_data(tmp_path):
    with pytest.raises(UserError, match="no data file in this folder"):
        read_rows(tmp_path)


def test_a_path_that_does_not_exist_names_the_nearest(write, tmp_path, monkeypatch):
    write("data/rankings.jsonl", ROWS)
    with pytest.raises(
        UserError, match=r"ranking.jsonl: no such file or folder; did you mean /.*data/rankings.jsonl\?"
    ):
        read_rows(tmp_path / "data" / "ranking.jsonl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"dta/rankings.jsonl: no such file or folder; did you mean data\?"):
        read_rows("dta/rankings.jsonl")
    with pytest.raises(UserError, match=r"zzz/of/a.jsonl: no such file or folder$"):
        read_rows("zzz/of/a.jsonl")


@pytest.fixture
def hub(tmp_path, monkeypatch, write):
    """`datasets.load_dataset` that finds owner/name in a folder as the hub would hold it; all else is real."""
    import datasets

    write("hub/train.jsonl", ROWS)
    write("hub/test.jsonl", ROWS[:1])
    real, asked = datasets.load_dataset, []

    def load_dataset(name, config=None, split=None):
        asked.append((name, config, split))
        if name != "owner/name":
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub")
        return real(str(tmp_path / "hub"), config, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_hub_data_set(hub):
    rows = read_rows("owner/name").rows
    assert [row.values for row in rows] == ROWS
    assert rows[1].source == "owner/name[train]:row 2"
    assert len(read_rows("owner/name", "test").rows) == 1
    assert len(read_rows("owner/name@test").rows) == 1
    assert len(read_rows("owner/name:default@train[:1]").rows) == 1
    assert hub[-1] == ("owner/name", "default", "train[:1]")


def test_a_split_that_the_hub_data_set_lacks(hub):
    with pytest.raises(UserError, match=r"owner/name: Unknown split .validation..*'train', 'test'.*owner/name@split"):
        read_rows("owner/name", "validation")


def test_a_configuration_that_the_hub_data_set_lacks(hub):
    with pytest.raises(UserError, match=r"owner/name:big: .*'big' not found. Available: \['default'\]"):
        read_rows("owner/name:big")


def test_a_hub_that_cannot_be_reached(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError,
        match=r"owner/nome: no such file or folder, and it cannot be loaded from the hub .*Couldn't reach.*network",
    ):
        read_rows("owner/nome")
    with pytest.raises(
        UserError, match=r"hob: no such file or folder; did you mean hub\?, and it cannot be loaded from the hub"
    ):
        read_rows("hob")


def test_a_path_is_never_asked_of_the_hub(hub, tmp_path):
    for path in ("data/train.jsonl", str(tmp_path / "nothing"), "a/b/c"):
        with pytest.raises(UserError, match="no such file or folder"):
            read_rows(path)
    assert hub == []
    assert Path("owner/name").exists() is False


def test_what_is_no_file_is_told_so_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match=r"pipe\.jsonl: this is a pipe or a device; save its output as a file"):
        read_rows(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match="no such file or folder"):
        read_rows("x" * 300 + ".jsonl")
    with pytest.raises(UserError, match="cannot read this file"):  # it is there, and whoever reads it gets an error
        read_rows("/proc/self/mem")


def test_a_table_with_a_date_that_python_has_not(tmp_path):
    date = pyarrow.array([2**62], pyarrow.timestamp("us"))
    parquet.write_table(pyarrow.table({"date": date}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="cannot read this Parquet file"):
        read_rows(tmp_path / "a.parquet")
