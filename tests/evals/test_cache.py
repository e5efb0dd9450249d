"""What is kept, and when it is not believed."""

import json
from pathlib import Path

import pytest

from align.evals.cache import Cache


def never() -> list[int]:
    pytest.fail("computed again")


def test_what_was_computed_once_is_read(tmp_path):
    cache = Cache(tmp_path)
    rows = [{"a": [1, 2.5]}, None, "ü\n", float("-inf")]
    assert cache.rows({"x": 1, "y": "z"}, lambda: rows) == rows
    assert Cache(tmp_path).rows({"y": "z", "x": 1}, never) == rows
    assert cache.rows({"x": 2, "y": "z"}, lambda: []) == []
    assert cache.rows({"x": 2, "y": "z"}, never) == []
    assert (cache.computed, cache.read) == (2, 1)


def test_the_first_time_gives_what_every_other_time_gives(tmp_path):
    cache = Cache(tmp_path)
    assert cache.rows("of", lambda: [(1, (2,))]) == cache.rows("of", never) == [[1, [2]]]


SPOILT = [
    lambda text: text[:-4],
    lambda text: text.splitlines(keepends=True)[0],  # after a whole line
    lambda text: "",
    lambda text: text.replace("7", ""),
    None,
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_file_that_was_cut_short_or_spoilt_is_computed_again(tmp_path, spoil):
    cache = Cache(tmp_path)
    cache.rows("of", lambda: [7, 8])
    (path,) = tmp_path.rglob("*.jsonl")
    if spoil is None:
        path.write_bytes(b"\xff\xfe")
    else:
        path.write_text(spoil(path.read_text()))
    assert cache.rows("of", lambda: [9]) == [9]
    assert cache.rows("of", never) == [9]


def test_what_failed_half_way_leaves_nothing(tmp_path):
    cache = Cache(tmp_path)

    def fails() -> list[int]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.rows("of", fails)
    with pytest.raises(TypeError):
        cache.rows("of", lambda: [object()])
    assert not list(tmp_path.rglob("*.jsonl"))
    assert cache.rows("of", lambda: [1]) == [1]


def test_a_file_says_how_many_rows_it_has(tmp_path):
    Cache(tmp_path).rows("of", lambda: ["a"])
    (path,) = Path(tmp_path).rglob("*.jsonl")
    assert [json.loads(line) for line in path.read_text().splitlines()] == ["a", {"rows": 1}]
