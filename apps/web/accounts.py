"""Login, logout and invitation pages: plain forms that work without scripts, and the session cookie."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from apps.store import invitations, sessions
from apps.store.engine import Store
from apps.store.errors import BadPayload, LoginRefused, TooManyAttempts
from apps.store.passwords import LONGEST, SHORTEST
from apps.store.people import PersonInfo

MOST_WAITING = 50  # logins that may wait for password hashing; more are refused for now
FORM = 2000  # characters of a field

Result = TypeVar("Result")
Field = Annotated[str, Form(max_length=FORM)]


@dataclass(frozen=True)
class Site:
    """Settings shared by all pages of an app."""

    name: str  # shown on every page
    app: str  # in the cookie's name: browsers send cookies to every port of a machine
    origin: str | None = None  # the public address; None: this machine's own
    session_hours: float = 12
    home: str = "/app/"  # the page after login

    @property
    def is_secure(self) -> bool:
        """Whether the public address is https, so that the cookie is sent over https only."""
        return bool(self.origin and self.origin.startswith("https://"))

    @property
    def cookie(self) -> str:
        """The session cookie's name; browsers accept the prefix __Host- only from this host."""
        return f"__Host-align_{self.app}" if self.is_secure else f"align_{self.app}"

    @property
    def device_cookie(self) -> str:
        """The name of the cookie that outlives a session and marks a browser in which somebody logged in before."""
        return f"{self.cookie}_device"


class Accounts:
    """The account pages, and the person of a request."""

    def __init__(self, store: Store, site: Site) -> None:
        self.store, self.site = store, site
        folder = FileSystemLoader(Path(__file__).parent / "templates")
        environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined)
        environment.globals["site"] = site
        self._templates = Jinja2Templates(env=environment)
        self._computing = anyio.CapacityLimiter(4)  # threads for password hashing

    def person(self, request: Request) -> PersonInfo | None:
        """The person of a request's session. It queries the database: call it in a thread."""
        return sessions.person_of(self.store, request.cookies.get(self.site.cookie))

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """Renders a template as a page."""
        return self._templates.TemplateResponse(request, f"{template}.j2", values, status_code=status)

    def router(self) -> APIRouter:
        """The routes of all account pages."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/login", self._login_page, methods=["GET"], response_class=HTMLResponse)
        router.add_api_route("/login", self._login, methods=["POST"], response_class=HTMLResponse)
        router.add_api_route("/logout", self._logout, methods=["POST"], response_class=HTMLResponse)
        router.add_api_route("/account", self._account, methods=["GET"], response_class=HTMLResponse)
        router.add_api_route("/invitation/{token}", self._invitation_page, methods=["GET"], response_class=HTMLResponse)
        router.add_api_route("/invitation/{token}", self._accept, methods=["POST"], response_class=HTMLResponse)
        return router

    def _login_page(self, request: Request, next: str = "") -> Response:
        return self.page(request, "login", name="", next=_local(next), problem="")

    async def _login(self, request: Request, name: Field, password: Field, next: Field = "") -> Response:
        address = request.client.host if request.client else ""
        hours, device, next_device = self._devices(request)
        try:
            token = await self._hashing(
                lambda: sessions.login(self.store, name, password, address, hours, device, next_device)
            )
        except (LoginRefused, TooManyAttempts) as refused:
            waits = isinstance(refused, TooManyAttempts)
            problem = sentence(str(refused))
            answer = self.page(request, "login", 429 if waits else 401, name=name, next=_local(next), problem=problem)
            if isinstance(refused, TooManyAttempts):
                answer.headers["retry-after"] = str(max(1, round(refused.wait_s)))
            return answer
        return self._logged_in(token, next_device, _local(next))

    def _logout(self, request: Request, everywhere: Field = "") -> Response:
        person = self.person(request)
        if everywhere and person:
            invitations.revoke(self.store, person.name, by=person.id)
        else:
            sessions.logout(self.store, request.cookies.get(self.site.cookie))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(self.site.cookie, secure=self.site.is_secure, httponly=True, samesite="strict")
        return answer

    def _account(self, request: Request) -> Response:
        person = self.person(request)
        if person is None:
            return RedirectResponse("/login?next=/account", 303)
        return self.page(request, "account", person=person)

    def _invitation_page(self, request: Request, token: str) -> Response:
        try:
            found = invitations.invitation(self.store, token)
        except LoginRefused as refused:
            return self.page(request, "message", 404, title="Invitation", message=sentence(str(refused)))
        return self._form(request, found)

    async def _accept(
        self, request: Request, token: str, password: Field, again: Field = "", name: Field = ""
    ) -> Response:
        try:
            found = await run_sync(invitations.invitation, self.store, token)
            if password != again:
                return self._form(request, found, name, "The two passwords differ. Type the same password twice.", 422)
            person = await self._hashing(lambda: invitations.accept(self.store, token, name, password))
        except LoginRefused as refused:
            return self.page(request, "message", 404, title="Invitation", message=sentence(str(refused)))
        except BadPayload as refused:
            return self._form(request, found, name, sentence(str(refused)), 422)
        hours, device, next_device = self._devices(request)
        token = await run_sync(sessions.begin, self.store, person.id, hours, device, next_device)
        return self._logged_in(token, next_device, "")

    def _form(
        self, request: Request, found: invitations.OpenInvitation, name: str = "", problem: str = "", status: int = 200
    ) -> Response:
        values = {"name": name, "problem": problem, "shortest": SHORTEST, "longest": LONGEST}
        return self.page(request, "invitation", status, invitation=found, **values)

    def _devices(self, request: Request) -> tuple[float, str, str]:
        """The session's length in hours, the browser's device token (or ""), and its next device token."""
        return self.site.session_hours, request.cookies.get(self.site.device_cookie, ""), secrets.token_urlsafe(32)

    def _logged_in(self, token: str, device: str, next: str) -> Response:
        answer = RedirectResponse(next or self.site.home, 303)
        for name, value, seconds in (
            (self.site.cookie, token, self.site.session_hours * 3600),
            (self.site.device_cookie, device, sessions.DEVICE_S),
        ):
            answer.set_cookie(
                name, value, max_age=int(seconds), secure=self.site.is_secure, httponly=True, samesite="strict"
            )
        return answer

    async def _hashing(self, work: Callable[[], Result]) -> Result:
        """Runs password hashing in its own threads, so that guessing does not slow down other work."""
        if self._computing.statistics().tasks_waiting >= MOST_WAITING:
            raise TooManyAttempts(10)
        return await run_sync(work, limiter=self._computing)


def sentence(words: str) -> str:
    """An error's text as a sentence: capitalised, with a full stop."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _local(path: str) -> str:
    """A path on this server for the redirect after login; "" if it leads elsewhere."""
    parts = urlsplit(path)
    is_ours = path.startswith("/") and not path.startswith("//") and "\\" not in path and not parts.netloc
    return path if is_ours and path.isprintable() else ""
