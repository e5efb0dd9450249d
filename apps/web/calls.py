"""Shared by all API calls: the calling person, their roles, and strict request bodies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict

from apps.store import tokens
from apps.store.people import LEADS, PersonInfo
from apps.web.accounts import Accounts
from apps.web.security import HEADER, bearer

PERSON = "x-align-person"


class Body(BaseModel):
    """A request body; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


def require_header(request: Request) -> None:
    """Raises 403 without the X-Align header, which no other site's page can send."""
    if HEADER not in request.headers:
        raise HTTPException(403, "Add the header X-Align: 1")


def caller(request: Request) -> PersonInfo:
    """The person of a call's session or of a script's token.

    Raises 401 without either, and if the page belongs to another person; 403 if no page of ours sent the call.
    """
    accounts: Accounts = request.app.state.accounts
    if (token := bearer(request.headers)) is not None:
        person = tokens.person_of(accounts.store, token)
        if person is None:
            raise HTTPException(401, "This token is unknown or no longer valid: ask for a new one")
        return person
    require_header(request)
    person = accounts.person(request)
    if person is None:
        raise HTTPException(401, "You are logged out")
    if request.headers.get(PERSON, str(person.id)) != str(person.id):
        raise HTTPException(401, f"You are logged out: {person.name} is now logged in in this browser")
    return person


def visitor(request: Request) -> PersonInfo | None:
    """The caller, or None in an app without accounts, which only this machine can reach."""
    if request.app.state.accounts is None:
        require_header(request)
        return None
    return caller(request)


Person = Annotated[PersonInfo, Depends(caller)]


def reviewer(person: Person) -> PersonInfo:
    """The caller, if they are currently a reviewer or an admin. Raises 403 for others."""
    return _one_of(LEADS, person)


def admin(person: Person) -> PersonInfo:
    """The caller, if they are currently an admin. Raises 403 for others."""
    return _one_of(("admin",), person)


def _one_of(roles: tuple[str, ...], person: PersonInfo) -> PersonInfo:
    if person.role not in roles:
        raise HTTPException(403, f"This is for {' and '.join(roles)} only")
    return person


Reviewer = Annotated[PersonInfo, Depends(reviewer)]
Admin = Annotated[PersonInfo, Depends(admin)]
Visitor = Annotated[PersonInfo | None, Depends(visitor)]
