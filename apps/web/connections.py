"""Connections: how long one may wait for a request, how many there may be, and whose a request is behind a proxy.

Whoever sends half a request, or reads no answer, holds a file descriptor of the server for nothing. So each has a
deadline, and where there are too many the one goes that has waited longest: those who send whole requests stay.
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
IDLE_SECONDS = 120  # between two requests: longer than people think, since a request may cross with the end
WRITE_SECONDS = 120  # for an answer to be read, or the next part of it
ENOUGH_FILES = 8192  # half of them for connections
MOST_OF_ONE = 256  # from one address: an office behind one router

log = logging.getLogger("align.web")


class Crowd:
    """The connections of this process.

    Args:
        most: how many there may be.
        proxies: addresses that may have all of them, since many people come through one.
    """

    def __init__(self, most: int, proxies: Collection[str]) -> None:
        self.most, self.proxies = most, proxies
        self.all: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}  # for a request or the rest of it, the longest first
        self.n_of: Counter[str] = Counter()  # by address

    def enter(self, one: Connection) -> None:
        """Takes in a new one; one that waits longer goes if there are too many, or this one if none waits."""
        self.all.add(one)
        self.waiting[one] = None
        self.n_of[one.address] += 1
        if self.n_of[one.address] > min(MOST_OF_ONE, self.most) and one.address not in self.proxies:
            self._end(next(other for other in self.waiting if other.address == one.address))
        elif len(self.all) > self.most:
            self._end(next(iter(self.waiting)))

    def leave(self, one: Connection) -> None:
        """Forgets one that is closed."""
        if one in self.all:
            self.all.remove(one)
            self.waiting.pop(one, None)
            self.n_of[one.address] -= 1
            self.n_of += Counter()  # which drops those that have none

    def _end(self, one: Connection) -> None:
        self.leave(one)
        one.transport.abort()


class Connection(Http):
    """uvicorn's, with deadlines. Needs a `crowd`, which a subclass has."""

    crowd: Crowd
    address: str
    _deadline: asyncio.TimerHandle | None = None
    _is_awaited = False  # whether a request has to come by the deadline

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = self.client[0] if self.client else ""
        self.address = peer if peer in self.crowd.proxies else network_of(peer)
        self._await_headers()
        self.crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect(None)
        self.crowd.leave(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_busy:
            self._expect(None)
            self._is_awaited = False
            if not self.cycle.more_body:
                self.crowd.waiting.pop(self, None)
        elif not self._is_awaited:
            self._await_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self in self.crowd.all and not self._is_busy:
            # uvicorn closes an idle one politely before that, and would wait for ever for one that reads nothing
            self._expect(WRITE_SECONDS if self.transport.get_write_buffer_size() else IDLE_SECONDS + 5)
        if self in self.crowd.all and (not self._is_busy or self.cycle.more_body):  # the next may have begun to come
            self.crowd.waiting[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect(WRITE_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_busy:
            self._expect(None)

    @property
    def _is_busy(self) -> bool:
        """Whether a request whose headers are here is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_headers(self) -> None:
        self._is_awaited = True
        self._expect(HEADER_SECONDS)

    def _expect(self, seconds: float | None) -> None:
        """Ends the connection after so long, unless this is called again before."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def options(proxies: Collection[str]) -> dict[str, Any]:
    """What uvicorn needs so that all connections are such, no more than files can be open."""
    files = open_files()
    crowd = Crowd(files // 2, proxies)
    return {
        "http": type("Ours", (Connection,), {"crowd": crowd}),
        "ws": "none",  # else an upgraded connection would leave the crowd
        "backlog": files // 8,  # as many are taken in at once, before any of them is counted
        "timeout_keep_alive": IDLE_SECONDS,
    }


def open_files() -> int:
    """How many files this process can have open, after the soft limit was raised towards the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class Forwarded:
    """ASGI middleware: takes a request's address from X-Forwarded-For where a proxy that we trust sent it.

    Who guesses passwords is slowed down by address, so a proxy that is not known, or does not name whom it speaks for,
    would make everybody one. The log says so, once each; without the header nobody's address is known, and nobody waits
    for another's guesses.
    """

    def __init__(self, app: ASGIApp, proxies: Collection[str]) -> None:
        self.app = app
        self._known = ProxyHeadersMiddleware(app, ["127.0.0.1", "::1", *proxies])  # type: ignore[arg-type]
        self.proxies: Collection[str] = self._known.trusted_hosts  # type: ignore[assignment]
        self._told: set[bool] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = (scope.get("client") or ("",))[0]
        is_login = scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", "/login")
        if is_login and "x-forwarded-for" not in Headers(scope=scope) and peer in self.proxies:
            self._tell(True, f"{peer} is a proxy, and sends no X-Forwarded-For: guesses are not slowed down by address")
            scope["client"] = None
        elif is_login and "x-forwarded-for" in Headers(scope=scope) and peer not in self.proxies:
            self._tell(False, f"{peer} sends X-Forwarded-For; if it is your proxy, add it to `trusted_proxies`")
        await self._known(scope, receive, send)  # type: ignore[arg-type]

    def _tell(self, what: bool, words: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("%s", words)
