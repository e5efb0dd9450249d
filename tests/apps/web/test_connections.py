"""Connections that hold the server's files for nothing, and whose a request is behind a proxy."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from apps.web import connections, server
from apps.web.connections import ForwardedFor
from apps.web.security import Guard

HALF = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Align: 1\r\nContent-Length: 10\r\n"
WHOLE = b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LARGE = 20_000_000  # bytes of an answer; more than a system buffers


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    size = LARGE if scope.get("path") == "/large" else 2
    await PlainTextResponse("o" * size)(scope, receive, send)


def serve(files: int, seconds: dict[str, float], port: Any) -> None:
    """In a child: serves with so many files, of which half have to be asked for."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (files // 2, files))
    for name, value in seconds.items():
        setattr(connections, name, value)
    place = socket.create_server(("127.0.0.1", 0))
    port.send(place.getsockname()[1])
    server.serve(Guard(application), place)


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    """Starts a server and gives its port."""
    children = []

    def started(files: int, **seconds: float) -> int:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(target=serve, args=(files, seconds, theirs))
        child.start()
        children.append(child)
        return int(ours.recv())

    yield started
    for child in children:
        child.kill()
        child.join()


@contextmanager
def files(n: int) -> Iterator[None]:
    """Lets this process open more files than a shell may allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(stack: ExitStack, port: int, sends: bytes, address: str = "127.0.0.1") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0))
    stack.enter_context(made).sendall(sends)
    return made


def answer(stack: ExitStack, port: int, address: str) -> tuple[bytes, float]:
    """The status of a whole request from an address, and how long it took."""
    began = time.monotonic()
    return connected(stack, port, WHOLE, address).recv(1000)[:12], time.monotonic() - began


@pytest.mark.slow
def test_1100_half_sent_requests_keep_nobody_waiting(start: Callable[..., int]) -> None:
    port = start(1024)
    with files(2000), ExitStack() as stack:
        for n in range(1100):
            connected(stack, port, (HALF, HALF + b"\r\n12345", b"")[n % 3])
            if n % 220 == 219:
                for address in ("127.0.0.1", "127.0.0.2"):  # from where the others come, and from elsewhere
                    status, seconds = answer(stack, port, address)
                    assert (status, seconds < 5) == (b"HTTP/1.1 200", True), (n, address, seconds)


def test_whoever_sends_or_reads_too_slowly_is_cut_off(start: Callable[..., int]) -> None:
    port = start(256, HEADER_SECONDS=0.6, WRITE_SECONDS=0.6)
    with ExitStack() as stack:
        silent, half, later, deaf = (
            connected(stack, port, sends) for sends in (b"", HALF, WHOLE, WHOLE.replace(b"/x", b"/large"))
        )
        working = connected(stack, port, WHOLE)
        while not later.recv(1000).endswith(b"oo"):
            pass
        later.sendall(HALF)  # a second request on a connection that had one
        for _ in range(5):
            time.sleep(0.2)
            assert working.recv(1000).startswith(b"HTTP/1.1 200")
            working.sendall(WHOLE)
            for slow in (half, later):
                with suppress(OSError):
                    slow.sendall(b"A: a\r\n")  # a little now and then does not help
        assert [total(one) for one in (silent, half, later)] == [0, 0, 0]
        assert 0 < total(deaf) < LARGE


def total(one: socket.socket) -> int:
    """The bytes that come until the end of the connection; an error if it does not end."""
    n = 0
    with suppress(ConnectionResetError):
        while got := one.recv(1_000_000):
            n += len(got)
    return n


class Wire:
    """As much of a connection as the crowd sees."""

    def __init__(self, address: str) -> None:
        self.address, self.transport, self.is_open = address, self, True

    def abort(self) -> None:
        self.is_open = False


def test_one_address_crowds_out_itself_and_a_proxy_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ONE", 3)
    pool: Any = connections.ConnectionPool(10, ["10.0.0.9"])
    other, *proxied = wires = [Wire("10.0.0.2"), *(Wire("10.0.0.9") for _ in range(5))]
    mine = [Wire("10.0.0.1") for _ in range(4)]
    for one in wires + mine:
        pool.enter(one)
    assert [one.is_open for one in mine] == [False, True, True, True]
    assert all(one.is_open for one in wires)
    pool.waiting.clear()  # all are being answered
    late = Wire("10.0.0.1")
    pool.enter(late)
    assert not late.is_open
    pool.enter(Wire("10.0.0.3"))
    pool.enter(last := Wire("10.0.0.4"))  # the eleventh: whoever waits longest goes
    assert (len(pool.all), last.is_open, all(one.is_open for one in proxied), other.is_open) == (10, True, True, True)
    for one in list(pool.all):
        pool.leave(one)
    assert not pool.n_of


def test_a_proxy_is_known_by_its_address_and_others_by_their_network() -> None:
    pool: Any = connections.ConnectionPool(10, ["2001:db8::9"])
    for peer, address in (("2001:db8::9", "2001:db8::9"), ("2001:db8::8", "2001:db8::/64")):
        asyncio.run(_meet(pool, peer))
        assert pool.n_of[address] == 1


async def _meet(pool: connections.ConnectionPool, peer: str) -> None:
    protocol(pool).connection_made(asyncio.Transport({"peername": (peer, 1)}))


def protocol(pool: connections.ConnectionPool) -> Any:
    config = uvicorn.Config(Guard(application))
    config.load()
    return type("Ours", (connections.Connection,), {"pool": pool})(config, ServerState(), {})


def test_half_a_request_that_comes_with_a_whole_one_waits_as_any() -> None:
    async def waits() -> bool:
        pool = connections.ConnectionPool(10, [])
        place = await asyncio.get_running_loop().create_server(lambda: protocol(pool), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*place.sockets[0].getsockname())
        writer.write(WHOLE + HALF + b"\r\n12345")
        await reader.readuntil(b"oo")
        (one,) = pool.all
        assert one._is_busy
        return one in pool.waiting

    assert asyncio.run(waits())


def login_from(app: ForwardedFor, peer: str, forwarded: str | None, path: str = "/login") -> Any:
    """The address that the application sees."""
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "client": (peer, 1), "headers": headers}
    asyncio.run(app(scope, None, None))  # type: ignore[arg-type]
    return scope["client"] and scope["client"][0]


def test_a_proxy_is_believed_if_it_is_known(caplog: pytest.LogCaptureFixture) -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None: ...

    app = ForwardedFor(inner, ["172.16.0.0/12"])
    for proxy in ("127.0.0.1", "::1", "172.17.0.2"):
        assert login_from(app, proxy, "203.0.113.7") == "203.0.113.7"
        assert login_from(app, proxy, "6.6.6.6, 203.0.113.7, 172.17.0.3") == "203.0.113.7"  # the first is a claim
    assert login_from(app, "127.0.0.1", None, "/health") == "127.0.0.1"
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "align.web"):
        for _ in range(2):
            assert login_from(app, "172.17.0.2", None) is None
            assert login_from(app, "10.0.0.9", "203.0.113.7") == "10.0.0.9"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "172.17.0.2 is a proxy that sends no X-Forwarded-For" in told[0]
    assert (
        "10.0.0.9 sends X-Forwarded-For but is not trusted; if it is your proxy, add it to `trusted_proxies`" in told[1]
    )
