"""Chromium on a served application. Whatever goes wrong in a window is collected."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn

CHROMIUM = "/usr/bin/chromium"
LAPTOP = {"width": 1366, "height": 768}
PHONE = {"width": 390, "height": 844}
PATIENCE_MS = int(1000 * float(os.environ.get("ALIGN_PATIENCE", "120")))  # for a busy machine


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


def problems(page: Any) -> list[str]:
    """What axe finds on a page that keeps people from using it: serious or critical, each with where it is."""
    bundled = find_spec("axe_playwright_python")
    assert bundled is not None, "axe_playwright_python is not installed; pip install '.[dev]'"
    script = (Path(str(bundled.origin)).parent / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(f"(() => {{ const module = undefined; {script} }})()")  # not by a tag: the page's policy forbids it
    found = page.evaluate("axe.run({ resultTypes: ['violations'], preload: false })")["violations"]
    worst = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['target']} {node['html'][:200]}" for one in worst for node in one["nodes"]]


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


class Window:
    """Somebody's browser window on an app's page; `token` is of their session."""

    app = ""  # as in the cookie's name

    def __init__(self, browser: Any, url: str, token: str | None, **context: Any) -> None:
        self.url = url
        self.context = browser.new_context(**{"viewport": LAPTOP, "locale": "en-GB", **context})
        self.context.set_default_timeout(PATIENCE_MS)
        if token is not None:
            cookie = {"name": f"align_{self.app}", "value": token, "url": url, "httpOnly": True, "sameSite": "Strict"}
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

    def close(self) -> None:
        """Closes the window. Nothing may have gone wrong in it, and nothing may have been asked of another machine."""
        self.context.close()
        assert not self.errors, self.errors
        assert not self.elsewhere, self.elsewhere
