"""In front of a mounted Gradio app: who may come in, and to which of its many routes.

Gradio protects some of its routes by `auth_dependency` and leaves others open, as those that reset and cancel events.
Here nothing passes but what the page needs, and nobody but those it is for: our pages are Gradio's shell with scripts
of our own in it, so its queue, uploads and files are closed to all.
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
        app: the mounted app, or what is around it.
        path: where it is mounted, as /lead.
        accounts: tells who a request is from; None lets everybody in, to what the page needs and nothing else.
        roles: whom to let in.
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
        """The answer to a request that is not let in."""
        if self.accounts is not None and (answer := await self._not_for_them(self.accounts, scope, inner)):
            return answer
        if inner == "":
            return RedirectResponse(f"{self.path}/", 307)
        if not PAGE.fullmatch(inner):
            return refuse(scope, 404, "path", f"There is nothing at {masked(scope['path'])}.")
        return None

    async def _not_for_them(self, accounts: Accounts, scope: Scope, inner: str) -> Response | None:
        """The answer to somebody whom this app is not for; who is let in stands in the scope."""
        request = Request(scope)
        try:
            person = await run_sync(accounts.person, request)
        except Unavailable as error:
            return accounts.page(
                request, "message", 503, title="The database does not answer", message=sentence(error.told)
            )
        opens_page = scope["method"] == "GET" and inner in ("", "/")
        if person is None:
            query = f"?{request.url.query}" if request.url.query else ""
            login = RedirectResponse(f"/login?next={quote(f'{self.path}/{query}', safe='/')}", 303)
            return login if opens_page else refuse(scope, 401, "login", "You are logged out.", "Log in again.")
        if person.role not in self.roles:
            title, message = "Not for you", f"This page is for {' and '.join(sorted(self.roles))} only."
            if opens_page:
                return accounts.page(request, "message", 403, title=title, message=message)
            return refuse(scope, 403, "role", message)
        scope["align.person"] = person
        return None


def _kept(send: Send) -> Send:
    """Browsers keep Gradio's own files for a week: their names change with their content, or with Gradio's version."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)["cache-control"] = "public, max-age=604800"
        await send(message)

    return sending


def person_name(request: Request) -> str | None:
    """Gradio's `auth_dependency`: becomes `request.username` of an event."""
    person = request.scope.get("align.person")
    return None if person is None else person.name
