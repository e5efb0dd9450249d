"""Access control for a mounted Gradio app: which people, and which of its many routes.

Gradio protects some routes by `auth_dependency` and leaves others open, such as those that reset and cancel events.
Here only the routes that the page needs pass, and only for the right roles. Our pages use Gradio as a shell for our own
scripts, so its queue, uploads and files are closed to everybody.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.store.errors import Unavailable
from apps.web.accounts import Accounts, sentence
from apps.web.security import masked, refuse

BUNDLE = re.compile(r"/(assets|static)/[\w./-]+")  # Gradio's own files, the same for everybody
PAGE = re.compile(r"/|/config/?|/theme\.css")


class Gate:
    """ASGI middleware around one Gradio app.

    Args:
        app: the mounted app, or middleware around it.
        path: where it is mounted, such as /lead.
        accounts: identify the person of a request; None lets everybody in, to the page's routes only.
        roles: the roles to let in.
    """

    def __init__(self, app: ASGIApp, path: str, accounts: Accounts | None, roles: Collection[str]) -> None:
        self.app, self.path, self.accounts, self.roles = app, path, accounts, roles

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == self.path or path.startswith(self.path + "/")):
            await self.app(scope, receive, send)
            return
        inner = path.removeprefix(self.path)
        if BUNDLE.fullmatch(inner) and scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, _kept(send))
            return
        answer = await self._checked(scope, inner)
        await (answer or self.app)(scope, receive, send)

    async def _checked(self, scope: Scope, inner: str) -> Response | None:
        """The response to a refused request; None lets it pass."""
        if self.accounts is not None and (answer := await self._not_for_them(self.accounts, scope, inner)):
            return answer
        if inner == "":
            return RedirectResponse(f"{self.path}/", 307)
        if not PAGE.fullmatch(inner):
            return refuse(scope, 404, "path", f"There is nothing at {masked(scope['path'])}.")
        return None

    async def _not_for_them(self, accounts: Accounts, scope: Scope, inner: str) -> Response | None:
        """The response to a person without access; a person with access is stored in the scope."""
        request = Request(scope)
        try:
            person = await run_sync(accounts.person, request)
        except Unavailable as error:
            return accounts.page(
                request, "message", 503, title="The database is not available", message=sentence(error.public)
            )
        opens_page = scope["method"] == "GET" and inner in ("", "/")
        if person is None:
            query = f"?{request.url.query}" if request.url.query else ""
            login = RedirectResponse(f"/login?next={quote(f'{self.path}/{query}', safe='/')}", 303)
            return login if opens_page else refuse(scope, 401, "login", "You are logged out.", "Log in again.")
        if person.role not in self.roles:
            title, message = "No access", f"This page is for {' and '.join(sorted(self.roles))} only."
            if opens_page:
                return accounts.page(request, "message", 403, title=title, message=message)
            return refuse(scope, 403, "role", message)
        scope["align.person"] = person
        return None


def _kept(send: Send) -> Send:
    """Lets browsers cache Gradio's files for a week: their names change with their content or Gradio's version."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)["cache-control"] = "public, max-age=604800"
        await send(message)

    return sending


def person_name(request: Request) -> str | None:
    """Gradio's `auth_dependency`: becomes an event's `request.username`."""
    person = request.scope.get("align.person")
    return None if person is None else person.name
