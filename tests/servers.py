"""A server that answers as a test wants it to: a reward server, or a model that judges."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]  # status, and JSON or bytes


class Server:
    """A real server on a free port; `reply` makes its answer to each body, and `asked` has all that came."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.heads: list[tuple[str, dict[str, str]]] = []  # path and headers of each
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                outer.heads.append((self.path, dict(self.headers)))
                status, content = reply(body, len(outer.asked))
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if outer.retry_after is not None:
                    self.send_header("Retry-After", outer.retry_after)
                self.end_headers()
                try:
                    for place in range(0, len(content), 64):
                        self.wfile.write(content[place : place + 64])
                        self.wfile.flush()
                        time.sleep(outer.pause_s)
                except OSError:
                    return  # nobody listens any more

            def log_message(self, *words: Any) -> None:
                return

        self.pause_s = 0.0
        self.retry_after: str | None = None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/score"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens at its port from now on."""
        self.http.shutdown()
        self.http.server_close()
