"""The gate in front of a mounted Gradio app: its queue is closed, and would not give away a file if it were open."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from offices import person
from starlette.testclient import TestClient

from apps.store import people, sessions
from apps.store.engine import Store
from apps.web import gate
from apps.web.accounts import Site
from apps.web.server import create_app, guarded, mount_gradio

BASE = "http://127.0.0.1"
OWN = {"X-Align": "1"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(str(tmp_path / "labels.db"))
    yield opened
    opened.close()


@pytest.fixture
def page(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A page with one event, which says its text again; somebody is logged in."""
    import gradio

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with gradio.Blocks() as blocks:
        text = gradio.Textbox()
        gradio.Button().click(lambda said: said, text, text)
    site = Site("a page", "label")
    app = create_app(store, site, {})
    mount_gradio(app, blocks, "/page", ["reviewer"])
    person(store, "Eve", "reviewer")
    cookies = {"align_label": sessions.login(store, "Eve", "four words or more", "")}
    with TestClient(guarded(app, site, "127.0.0.1"), base_url=BASE, cookies=cookies) as client:
        yield client


def joined(client: TestClient, value: Any) -> Any:
    body = {"data": [value], "fn_index": 0, "session_hash": "s"}
    return client.post("/page/gradio_api/queue/join", headers=OWN, json=body)


def result(client: TestClient) -> Any:
    """What the event came to."""
    for line in client.get("/page/gradio_api/queue/data?session_hash=s", headers=OWN).text.splitlines():
        told = json.loads(line.removeprefix("data: ") or "{}")
        if told.get("msg") == "process_completed":
            return told
    pytest.fail("no result")


def test_the_queue_is_closed_to_all(page: TestClient) -> None:
    assert joined(page, "a text").status_code == 404
    assert page.get("/page/gradio_api/queue/data?session_hash=s", headers=OWN).status_code == 404


def test_a_file_of_the_servers_is_never_copied(
    page: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the queue open, Gradio would take an event's text and check the paths that it names."""
    monkeypatch.setattr(gate, "PAGE", re.compile(".*"))
    assert joined(page, "a path, and meta").status_code == 200
    assert result(page)["output"]["data"] == ["a path, and meta"]
    secret = tmp_path / "secret.txt"
    secret.write_text("nobody's business")
    for path in (str(secret), "/etc/hostname"):
        joined(page, {"path": path, "meta": {"_type": "gradio.FileData"}})
        assert result(page)["success"] is False
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


def test_whoever_is_logged_out_is_told_so_in_a_form_that_pages_read(page: TestClient, store: Store) -> None:
    people.set_active(store, "Eve", False)
    for answer in (joined(page, "x"), page.get("/page/gradio_api/queue/data?session_hash=s", headers=OWN)):
        assert (answer.status_code, answer.json()["error"]) == (401, "You are logged out. Log in again.")
