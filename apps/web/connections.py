"""Connection limits: deadlines, a maximum number, and the client's address behind a proxy.

A client that sends half a request or does not read the response holds a file descriptor for nothing. So each connection
has a deadline, and when there are too many, the one that has waited longest is closed: complete requests are served.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from apps.store.sessions import network_of

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Http
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as Http

HEADER_SECONDS = 15  # for all headers of a request to arrive; its body has `security.BODY_SECONDS`
IDLE_SECONDS = 120  # between two requests: longer than people usually pause, as a request may cross with the close
WRITE_SECONDS = 120  # for a response, or its next part, to be read
ENOUGH_FILES = 8192  # half of them for connections
MOST_OF_ONE = 256  # from one address, such as an office behind one router

log = logging.getLogger("align.web")


class ConnectionPool:
    """The connections of this process.

    Args:
        most: their largest number.
        proxies: addresses without a limit of their own, since many people come through one.
    """

    def __init__(self, most: int, proxies: Collection[str]) -> None:
        self.most, self.proxies = most, proxies
        self.all: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}  # for a request or its rest, longest first
        self.n_of: Counter[str] = Counter()  # address → number

    def enter(self, one: Connection) -> None:
        """Adds a connection. If there are too many, it closes the one that has waited longest, perhaps this one."""
        self.all.add(one)
        self.waiting[one] = None
        self.n_of[one.address] += 1
        if self.n_of[one.address] > min(MOST_OF_ONE, self.most) and one.address not in self.proxies:
            self._end(next(other for other in self.waiting if other.address == one.address))
        elif len(self.all) > self.most:
            self._end(next(iter(self.waiting)))

    def leave(self, one: Connection) -> None:
        """Removes a closed connection."""
        if one in self.all:
            self.all.remove(one)
            self.waiting.pop(one, None)
            self.n_of[one.address] -= 1
            self.n_of += Counter()  # drops zero counts

    def _end(self, one: Connection) -> None:
        self.leave(one)
        one.transport.abort()


class Connection(Http):
    """uvicorn's connection with deadlines. A subclass sets `pool`."""

    pool: ConnectionPool
    address: str
    _deadline: asyncio.TimerHandle | None = None
    _is_awaited = False  # whether the deadline is for a request to arrive

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        self.address = peer if peer in self.pool.proxies else network_of(peer)
        self._await_headers()
        self.pool.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect(None)
        self.pool.leave(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_busy:
            self._expect(None)
            self._is_awaited = False
            if not self.cycle.more_body:
                self.pool.waiting.pop(self, None)
        elif not self._is_awaited:
            self._await_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self in self.pool.all and not self._is_busy:
            # uvicorn closes an idle connection before that, but waits forever for a client that does not read
            self._expect(WRITE_SECONDS if self.transport.get_write_buffer_size() else IDLE_SECONDS + 5)
        if self in self.pool.all and (
            not self._is_busy or self.cycle.more_body
        ):  # the next request may have started to arrive
            self.pool.waiting[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect(WRITE_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_busy:
            self._expect(None)

    @property
    def _is_busy(self) -> bool:
        """Whether a request with complete headers is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_headers(self) -> None:
        self._is_awaited = True
        self._expect(HEADER_SECONDS)

    def _expect(self, seconds: float | None) -> None:
        """Closes the connection after this time, unless called again before."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def options(proxies: Collection[str]) -> dict[str, Any]:
    """uvicorn's options for limited connections, at most as many as open files allow."""
    files = open_files()
    pool = ConnectionPool(files // 2, proxies)
    return {
        "http": type("Ours", (Connection,), {"pool": pool}),
        "ws": "none",  # else an upgraded connection would leave the pool
        "backlog": files // 8,  # accepted at once, before any of them is counted
        "timeout_keep_alive": IDLE_SECONDS,
    }


def open_files() -> int:
    """Raises the soft limit of open files towards the hard one. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class ForwardedFor:
    """ASGI middleware: takes a request's address from X-Forwarded-For if a trusted proxy sent it.

    Password guessing is slowed down by address, so an unknown proxy, or one that does not send the header, would make
    all clients one. The log warns once about each case. Without the header no address is known, and clients do not wait
    for each other's guesses.
    """

    def __init__(self, app: ASGIApp, proxies: Collection[str]) -> None:
        self.app = app
        self._known = ProxyHeadersMiddleware(app, ["127.0.0.1", "::1", *proxies])  # type: ignore[arg-type]
        self.proxies: Collection[str] = self._known.trusted_hosts  # type: ignore[assignment]
        self._warned: set[bool] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = (scope.get("client") or ("",))[0]
        is_login = scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", "/login")
        if is_login and "x-forwarded-for" not in Headers(scope=scope) and peer in self.proxies:
            self._warn_once(
                True,
                f"{peer} is a proxy that sends no X-Forwarded-For: password guesses are not slowed down by address",
            )
            scope["client"] = None
        elif is_login and "x-forwarded-for" in Headers(scope=scope) and peer not in self.proxies:
            self._warn_once(
                False,
                f"{peer} sends X-Forwarded-For but is not trusted; if it is your proxy, add it to `trusted_proxies`",
            )
        await self._known(scope, receive, send)  # type: ignore[arg-type]

    def _warn_once(self, what: bool, words: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            log.warning("%s", words)
