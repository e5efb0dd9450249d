"""Chromium on the served application, and the labelling page as its person sees it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from served import Place
from sqlalchemy import select

from apps.store.tables import Annotation, Output, Person, Presentation, Revision, TaskOutput

CHROMIUM = "/usr/bin/chromium"
LAPTOP = {"width": 1366, "height": 768}
PHONE = {"width": 390, "height": 844}
PATIENCE_MS = int(1000 * float(os.environ.get("ALIGN_PATIENCE", "120")))  # for a busy machine

# Whether the page shows another task than the one whose first answer is given, or that there is none.
GONE_ON = """(before) => {
  const root = document.getElementById("align-label").shadowRoot;
  const first = root.querySelector(".answer .body");
  return root.querySelector(".notice .primary") || (first && first.innerText.trim() !== before);
}"""


def missing() -> str:
    """Why no browser can be started, or ""."""
    if not Path(CHROMIUM).exists():
        return f"{CHROMIUM} is not installed"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium, headless. Skips the test where it is missing, or fails with ALIGN_REQUIRE_CHROMIUM=1."""
    if reason := missing():
        (pytest.fail if os.environ.get("ALIGN_REQUIRE_CHROMIUM") == "1" else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Server:
    """The application on a port of its own, in a thread."""

    def __init__(self, app: Any) -> None:
        self.place = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.place.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.place]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.05)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


class Desk:
    """Somebody's browser window on the labelling page. Whatever goes wrong in it is collected."""

    def __init__(self, browser: Any, url: str, token: str, **context: Any) -> None:
        self.url = url
        self.context = browser.new_context(**{"viewport": LAPTOP, "locale": "en-GB", **context})
        self.context.set_default_timeout(PATIENCE_MS)
        cookie = {"name": "align_label", "value": token, "url": url, "httpOnly": True, "sameSite": "Strict"}
        self.context.add_cookies([cookie])
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on(
            "console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self) -> Desk:
        self.page.goto(f"{self.url}/app/")
        self.page.wait_for_selector(".answer")
        return self

    def close(self) -> None:
        """Closes the window. Nothing may have gone wrong in it, and nothing may have been asked of another machine."""
        self.context.close()
        assert not self.errors, self.errors
        assert not self.elsewhere, self.elsewhere

    def texts(self) -> list[str]:
        """The answers' texts by slot."""
        return [text.strip() for text in self.page.locator(".answer .body").all_inner_texts()]

    def chip(self, slot: int) -> Any:
        return self.page.locator(f".board .chip[data-slot='{slot}']")

    def row(self, rank: int) -> Any:
        return self.page.locator(f".row[data-rank='{rank}']")

    def drag(self, slot: int, rank: int) -> None:
        """Drags a letter to a row with the mouse."""
        self.drag_to(slot, self.row(rank), 0.5)

    def drag_to(self, slot: int, row: Any, share: float) -> None:
        """Drags a letter to a height of a row: 0 is its upper edge, 1 its lower."""
        start, end, mouse = self.chip(slot).bounding_box(), row.bounding_box(), self.page.mouse
        mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        mouse.down()
        mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] * share, steps=4)
        mouse.up()

    def rows(self) -> dict[int, list[int]]:
        """Which slots stand in which row; 0 is "not ranked yet"."""
        found = {}
        for row in self.page.locator(".row").all():
            rank = row.get_attribute("data-rank")
            slots = [int(chip.get_attribute("data-slot")) for chip in row.locator(".chip").all()]
            found[0 if rank == "none" else int(rank)] = slots
        return {rank: slots for rank, slots in found.items() if slots}

    def rate(self, slot: int, rating: int) -> None:
        """With the mouse."""
        self.page.locator(f"#answer-{slot} .rating label").nth(rating - 1).click()

    def submit(self) -> None:
        """Clicks, and waits until the page says that it is saved."""
        self.page.get_by_role("button", name="Submit").click()
        self.saved()

    def saved(self) -> None:
        self.page.locator(".toast", has_text="Saved").wait_for()


def said(place: Place, name: str) -> list[tuple[str, dict[str, Any]]]:
    """(status, payload) of a person's annotations, in the order of saying; ranks and ratings by the answers' texts."""
    with place.project.store.read() as session:
        rows = session.execute(
            select(Annotation, Revision, Presentation.places)
            .join(Person, Person.id == Annotation.person_id)
            .join(Revision, (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions))
            .join(Presentation, (Presentation.task_id == Annotation.task_id) & (Presentation.person_id == Person.id))
            .where(Person.name == name)
            .order_by(Annotation.turn)
        ).all()
        found = []
        for annotation, revision, places in rows:
            query = select(Output.text).join(TaskOutput, TaskOutput.output_id == Output.id)
            texts = session.scalars(
                query.where(TaskOutput.task_id == annotation.task_id).order_by(TaskOutput.place)
            ).all()
            slots = {str(slot): texts[place] for slot, place in enumerate(places)}
            payload = dict(revision.payload)
            for key in ("ranks", "answers"):
                if payload.get(key):
                    payload[key] = {slots[slot]: value for slot, value in payload[key].items()}
            found.append((annotation.status, payload))
        return found
