"""The parent application of every app: accounts, static files, readable errors, and serving it."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Collection
from contextlib import nullcontext, suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from apps.store.engine import Store
from apps.store.errors import BadPayload, LoginRefused, NotYours, Refused, Stale, TooManyAttempts, Unavailable
from apps.web.accounts import Accounts, Site, sentence
from apps.web.gate import Gate, person_name
from apps.web.security import Guard, Nonces, error, origin_hosts

if TYPE_CHECKING:
    import gradio

STATUS: tuple[tuple[type[Refused], int, str], ...] = (
    (NotYours, 404, "not_yours"),
    (Stale, 409, "stale"),
    (BadPayload, 422, "payload"),
    (LoginRefused, 401, "login"),
    (TooManyAttempts, 429, "attempts"),
    (Unavailable, 503, "unavailable"),
    (Refused, 409, "refused"),
)

STATIC = Path(__file__).parent / "static"
MATH_FONT = Path(str(distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")))

log = logging.getLogger("align.web")


def create_app(store: Store | None, site: Site, static: dict[str, Path]) -> FastAPI:
    """The parent application with its accounts in `app.state.accounts`. Without a store there are no logins.

    `static`: name → folder of more public files, served below /static/name.
    """
    app = FastAPI(title=site.name, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.accounts = None if store is None else Accounts(store, site)
    if store is not None:
        app.include_router(app.state.accounts.router())

    @app.get("/static/math.ttf", include_in_schema=False)
    def math_font() -> Response:
        return FileResponse(MATH_FONT, media_type="font/ttf", headers={"cache-control": "max-age=31536000"})

    for name, folder in {**static, "": STATIC}.items():
        app.mount(f"/static/{name}".rstrip("/"), Files(directory=folder), name=f"static {name}")

    @app.get("/", include_in_schema=False)
    def first_page() -> Response:
        return RedirectResponse(site.home, 303)

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return FileResponse(STATIC / "icon.svg")

    @app.get("/health", include_in_schema=False)
    def health() -> dict[str, str]:
        with nullcontext() if store is None else store.read():
            return {"status": "ok"}

    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)
    return app


def mount_gradio(app: FastAPI, blocks: gradio.Blocks, path: str, roles: Collection[str], **options: Any) -> None:
    """Mounts a Gradio page at a path for some roles. `options` go to Gradio (head, css, theme, ...)."""
    import gradio

    gradio.mount_gradio_app(
        app,
        blocks,
        path=path,
        auth_dependency=None if app.state.accounts is None else person_name,
        run_history=False,  # else browsers would store people's input, and the server would serve it
        footer_links=[],
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        **options,
    )
    blocks.has_launched = True  # else Gradio would not check file paths in events
    app.add_middleware(Nonces, path=path)
    app.add_middleware(Gate, path=path, accounts=app.state.accounts, roles=roles)


def guarded(app: FastAPI, site: Site, host: str) -> ASGIApp:
    """The application behind its guard, ready to be served."""
    return Guard(app, site.origin, origin_hosts(site.origin, host))


class Files(StaticFiles):
    """Static files that browsers revalidate each time, so that new versions show at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["cache-control"] = "no-cache"
        return answer


def _refused(request: Request, refused: Exception) -> Response:
    status, code = next((status, code) for kind, status, code in STATUS if isinstance(refused, kind))
    text = refused.public if isinstance(refused, Unavailable) else str(refused)
    message, _, remedy = text.partition("; ")
    answer = _error_response(request, status, code, sentence(message), sentence(remedy) if remedy else "")
    if isinstance(refused, TooManyAttempts):
        answer.headers["retry-after"] = str(max(1, round(refused.wait_s)))
    if isinstance(refused, Unavailable):
        log.error("%s", refused)
        answer.headers["retry-after"] = "5"
    return answer


def _invalid(request: Request, invalid: Exception) -> Response:
    assert isinstance(invalid, RequestValidationError)
    first = invalid.errors()[0]
    where = ".".join(map(str, first["loc"][1:])) or "body"
    return _error_response(request, 422, "payload", f"{where}: {first['msg']}.", "")


def _http(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    return _error_response(request, problem.status_code, "http", f"{problem.detail}.", "")


def _failed(request: Request, failure: Exception) -> Response:
    """The response to an unexpected error. Details go to the log only."""
    return _error_response(request, 500, "server", "The server failed; the error is in its log.", "Try again.")


def _error_response(request: Request, status: int, code: str, message: str, remedy: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse(error(code, message, remedy), status)
    return PlainTextResponse(f"{message} {remedy}".strip() + "\n", status)


def serve(app: ASGIApp, place: socket.socket, proxies: Collection[str] | None = None) -> None:
    """Serves until SIGINT or SIGTERM. `proxies`: trusted proxies; None: no proxy.

    The access log is off, since it would contain invitation links. Refusals and failures are logged.
    """
    import uvicorn

    from apps.web import connections

    forwarded = None if proxies is None else connections.ForwardedFor(app, proxies)
    config = uvicorn.Config(
        forwarded or app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # else clients could claim any address
        timeout_graceful_shutdown=5,  # pages keep connections open
        **connections.options(forwarded.proxies if forwarded else ()),
    )
    # Python switches threads every 5 ms by default, and a transaction that others wait for must get the interpreter
    # back after each of its statements.
    sys.setswitchinterval(0.0005)
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after shutting down
        uvicorn.Server(config).run(sockets=[place])
