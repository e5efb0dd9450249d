"""Rankings as a data set: read back by `datasets` and by `align.rm`, and pushed to a hub that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from offices import Clock
from test_exporting import ROWS, out

from align.config import build
from align.errors import UserError
from align.sections import Data
from align.text.load import load
from apps.label.dataset import COLUMNS, push
from apps.label.exporting import export
from apps.label.importing import import_files
from apps.label.rankings import Filters
from apps.store import projects

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
CALLED = {
    "prompt": [
        {"role": "user", "content": "warm?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "-3", "name": "weather"},
    ],
    "responses": ["good: no", "fair: hm", "bad: yes"],
    "tools": TOOLS,
    "model": "m",
}


@pytest.fixture
def written(make: Any, clock: Clock) -> Any:
    """Ann and Bob rank a plain prompt alike, and Ann one with tools; the guidelines changed in between."""
    bench = make(overlap=2, queue={"random_share": 0}, practice={"required": 0})
    import_files(bench.project, [bench.file("a.jsonl", [{**ROWS[0], "priority": 1}, CALLED])])
    bench.rank("Ann", "good", "fair", "bad")
    bench.rank("Bob", "good", "fair=bad")
    lead = bench.people["Ann"]
    projects.edit_guidelines(bench.project.store, bench.project.id, "Be *kind*.\n\nAlways.", 1, lead)
    bench.rank("Ann", "bad", "fair", "good")
    export(bench.project, bench.folder / "out", ("dataset",))
    return bench


def test_datasets_reads_the_folder(written: Any, tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = str(written.folder / "out/dataset")
    rows = list(load_dataset(folder, split="train", cache_dir=str(tmp_path / "cache")))
    assert [(row["annotator"], row["ranks"]) for row in rows] == [
        ("annotator-1", [1, 2, 3]),
        ("annotator-2", [1, 2, 2]),
        ("annotator-1", [3, 2, 1]),
    ]
    assert (rows[0]["prompt"][0]["content"], rows[0]["ratings"], rows[0]["tools"]) == ("q0", [4, 4, 4], None)
    assert json.loads(rows[2]["prompt"][1]["tool_calls"]) == [CALL]
    assert json.loads(rows[2]["tools"]) == TOOLS
    pairs = load_dataset(folder, "preferences", split="train", cache_dir=str(tmp_path / "cache"))
    assert pairs[0]["chosen"][0]["content"] == "good 0"
    assert len(pairs) == 3 + 2 + 3


def test_align_rm_reads_its_rankings(written: Any) -> None:
    path = str(written.folder / "out/dataset/data/rankings.parquet")
    loaded = load(build(Data, {"path": path, "max_tokens": 10, "validation": 0}, "data"), "rankings", 1)
    assert [(one.ranks, one.annotator) for one in loaded.train] == [
        ((1, 2, 3), "annotator-1"),
        ((1, 2, 2), "annotator-2"),
        ((3, 2, 1), "annotator-1"),
    ]
    assert [turn.role for turn in loaded.train[2].prompt] == ["tools", "user", "assistant", "tool"]


def test_each_column_of_the_other_formats_is_there_and_told(written: Any) -> None:
    for name, rows in out(written, "rankings", "preferences").items():
        assert {key for row in rows for key in row} <= set(COLUMNS[name]), name
    card = (written.folder / "out/dataset/README.md").read_text()
    assert all(f"| `{column}` |" in card for columns in COLUMNS.values() for column in columns)


def test_the_card_says_how_it_came_to_be(written: Any) -> None:
    import yaml

    card = (written.folder / "out/dataset/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["size_categories"], front["configs"][0]["default"]) == ("unknown", ["n<1K"], True)
    for part in (
        "3 rankings of answers to 2 prompts (8 decided pairs) by 2 people (pseudonyms)",
        "2 people ranked each prompt. Two annotators agree on 100% of pairs",
        "## Guidelines, version 2 (1 rankings)\n\n> Be *kind*.\n>\n> Always.",
    ):
        assert part in card
    assert "version 1" not in card  # it was empty
    assert "Ann" not in card


def test_names_are_there_for_who_asks(written: Any) -> None:
    import pyarrow.parquet as pq

    export(written.project, written.folder / "out", ("dataset",), Filters(), overwrite=True, names=True)
    rows = pq.read_table(written.folder / "out/dataset/data/rankings.parquet").to_pylist()
    assert [row["annotator"] for row in rows] == ["Ann", "Bob", "Ann"]
    with pytest.raises(UserError, match="dataset exists"):
        export(written.project, written.folder / "out", ("dataset",))


def test_an_export_that_fails_leaves_no_half_table(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("apps.label.dataset.agreement", fails)
    with pytest.raises(KeyboardInterrupt):
        export(written.project, written.folder / "new", ("dataset",))
    assert [path for path in (written.folder / "new").rglob("*") if path.is_file()] == []


def test_what_is_pushed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def create(self: Any, repo_id: str, **given: Any) -> str:
        asked.append({"name": repo_id, **given})
        return f"https://hub/datasets/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **given: asked.append(given))
    assert push(tmp_path, "me/labels") == "https://hub/datasets/me/labels"
    assert asked[0] == {"name": "me/labels", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert (asked[1]["folder_path"], asked[1]["repo_type"]) == (tmp_path, "dataset")


def refusal(status: int) -> Exception:
    from huggingface_hub.errors import HfHubHTTPError

    answer = httpx.Response(status, request=httpx.Request("POST", "https://hub"))
    return HfHubHTTPError(f"{status} Client Error: Forbidden\nmore", response=answer)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal(403), "the hub refused the upload .403 Client Error: Forbidden"),
        (httpx.ConnectError("no route"), "cannot be reached .no route"),
        (None, "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_push_that_fails_is_told(
    error: Exception | None, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        if error is not None:
            raise error

    if error is not None:
        monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fails)
    with pytest.raises(UserError, match=message):
        push(tmp_path, "me/labels")


def test_a_name_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--push a/b/c"):
        push(tmp_path, "a/b/c")
