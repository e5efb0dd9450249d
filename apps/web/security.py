"""The guard in front of every page and endpoint: refuses foreign requests and sets security headers.

- A request with another origin is refused, whatever its method. One that changes something must have our origin, the
  header X-Align or a token (`Authorization: Bearer`), which no other site's page can add.
- A request with a token acts as the token's person: its cookies are removed.
- Bodies are read completely, up to a limit, before the application sees them.
- Every response has a content security policy: nothing is loaded from elsewhere, and only our own script files run.
  Gradio's pages have scripts in their HTML; these get a nonce (`Nonces`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 1_000_000  # bytes; a ranking of nine answers with long comments has less than a tenth of it
BODY_SECONDS = 30  # for a body to arrive
HEADER = "x-align"  # on every call of our pages' scripts
METHODS = ("GET", "HEAD", "POST", "PUT")

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers would send our forms with the origin "null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

log = logging.getLogger("align.web")


def policy(**changes: str) -> str:
    """The content security policy; `script_src="..."` replaces a part of it."""
    parts = POLICY | {name.replace("_", "-"): value for name, value in changes.items()}
    return "; ".join(f"{name} {value}" for name, value in parts.items())


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: the application to guard.
        origin: the public address, such as https://label.example.org; None: the request's own host.
        hosts: accepted host names, against pages that point their own name at this machine; None: any.
    """

    def __init__(self, app: ASGIApp, origin: str | None = None, hosts: Collection[str] | None = None) -> None:
        self.app, self.origin, self.hosts = app, origin, hosts
        self.secure = bool(origin and origin.startswith("https://"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # our pages open no WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        send = self._with_headers(send)
        if (refused := self._refusal(scope)) is not None:
            await refused(scope, receive, send)
            return
        if bearer(Headers(scope=scope)) is not None:
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        body = await _body(receive, scope)
        if isinstance(body, Response):
            await body(scope, receive, send)
            return
        await self.app(scope, replay(body, receive), send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _name(host)
        if not name or (self.hosts is not None and name not in self.hosts):
            return refuse(scope, 421, "host", "This server does not use that host name.", "Open its own address.")
        if scope["method"] not in METHODS:
            return refuse(scope, 405, "method", "This method is not supported.")
        path = scope["path"]
        if "\\" in path or "\0" in path or ".." in path.split("/"):
            return refuse(scope, 400, "path", "This is not a valid path.")
        origin = headers.get("origin")
        ours = self.origin or f"{scope['scheme']}://{host}"
        if origin is not None and origin != ours:
            log.warning("refused %s %s: it came from another site's page", scope["method"], masked(path))
            return refuse(
                scope, 403, "origin", "This request came from another site's page.", "Open this app's own address."
            )
        foreign = headers.get("sec-fetch-site", "same-origin") in ("cross-site", "same-site")
        opens_page = headers.get("sec-fetch-mode") == "navigate" and scope["method"] in ("GET", "HEAD")
        signed = origin is not None or HEADER in headers or bearer(headers) is not None
        unsigned = scope["method"] in ("POST", "PUT") and not signed
        if unsigned or (foreign and not opens_page):
            log.warning("refused %s %s: not sent by a page of ours", scope["method"], masked(path))
            return refuse(scope, 403, "origin", "No page of this app sent this request.", "Add the header X-Align: 1.")
        return None

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("content-security-policy", policy())
                headers.setdefault("cache-control", "no-store")
                if self.secure:
                    headers.setdefault("strict-transport-security", "max-age=31536000")
                if "server" in headers:
                    del headers["server"]
            await send(message)

        return sending


class Nonces:
    """Middleware around a Gradio app: each script in its page gets a nonce, so that no other script runs.

    Gradio escapes `<` in the data that it puts into the page, so every script tag is its own.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app, self.path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/") != self.path:
            await self.app(scope, receive, send)
            return
        start: MutableMapping[str, Any] = {}
        body = bytearray()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type", "").startswith("text/html"):
                    start.update(message)
                    return
            elif message["type"] == "http.response.body" and start:
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                await _send_with_nonces(start, bytes(body), send)
                return
            await send(message)

        await self.app(scope, receive, sending)


async def _send_with_nonces(start: MutableMapping[str, Any], body: bytes, send: Send) -> None:
    nonce = secrets.token_urlsafe(16)
    page = re.sub(rb"<script(?=[\s>])", f'<script nonce="{nonce}"'.encode(), body)
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["content-length"] = str(len(page))
    headers["content-security-policy"] = policy(
        script_src=f"'self' 'nonce-{nonce}'", style_src="'self' 'unsafe-inline'", base_uri="'self'"
    )
    await send({**start, "headers": headers.raw})
    await send({"type": "http.response.body", "body": page})


def refuse(scope: Scope, status: int, code: str, message: str, remedy: str = "") -> Response:
    """An error response: JSON for the API, Gradio's JSON for its routes, plain text for everything else."""
    text = f"{message} {remedy}".strip()
    if "/api/" in scope["path"]:
        return JSONResponse(error(code, message, remedy), status)
    if "/gradio_api/" in scope["path"]:
        return JSONResponse({"error": text, "detail": text}, status)
    return PlainTextResponse(f"{text}\n", status)


def error(code: str, message: str, remedy: str = "") -> dict[str, Any]:
    """The JSON of every API error."""
    return {"error": {"code": code, "message": message, "remedy": remedy}}


def bearer(headers: Headers) -> str | None:
    """The bearer token of a script, or None: browsers send none by themselves."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def masked(path: str) -> str:
    """A path that is safe to log: without invitation tokens and line breaks."""
    path = re.sub(r"^(/invitation/).+", r"\1...", path)
    return json.dumps(path)[1:-1][:200]


def origin_hosts(origin: str | None, host: str) -> set[str] | None:
    """The accepted host names: the origin's, the listening host, this machine's. None (any) for 0.0.0.0."""
    if origin is None and host in ("0.0.0.0", "::"):
        return None
    names = {"localhost", "127.0.0.1", "::1", host.lower()}
    return names | ({_name(urlsplit(origin).netloc)} if origin else set())


def _name(netloc: str) -> str:
    """The name in a Host header without port and brackets; "" if it is invalid."""
    found = _HOST.fullmatch(netloc.lower())
    return (found[1] or found[2]) if found else ""


_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/?#@\[\]]+))(?::\d{0,5})?")


async def _body(receive: Receive, scope: Scope) -> bytes | Response:
    """The request's body, or the response that refuses it."""
    too_large = refuse(scope, 413, "size", f"A request has at most {MAX_BODY} bytes.", "Shorten it.")
    too_large.headers["connection"] = "close"  # else the rest would still be received
    length = Headers(scope=scope).get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        return too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MAX_BODY:
                    return too_large
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        return refuse(scope, 408, "slow", "The request did not arrive in time.", "Try again.")


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once and then waits for the disconnect."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
