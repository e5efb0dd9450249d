"""What every call to an app's API has in common: who asks, and bodies that are what they say."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict

from apps.store import tokens
from apps.store.people import LEADS, Somebody
from apps.web.accounts import Accounts
from apps.web.security import HEADER, bearer

PERSON = "x-align-person"


class Body(BaseModel):
    """What a call sends; anything that is not named is refused."""

    model_config = ConfigDict(extra="forbid")


def ours(request: Request) -> None:
    """Raises 403 without the header that no other site's page can send."""
    if HEADER not in request.headers:
        raise HTTPException(403, "Add the header X-Align: 1")


def who(request: Request) -> Somebody:
    """The person of a call's session, or of the token that a script sends.

    Raises 401 without either, and where the page is somebody else's; 403 where no page of ours sent it.
    """
    accounts: Accounts = request.app.state.accounts
    if (token := bearer(request.headers)) is not None:
        person = tokens.person_of(accounts.store, token)
        if person is None:
            raise HTTPException(401, "This token is unknown, or is not valid any more: ask for a new one")
        return person
    ours(request)
    person = accounts.person(request)
    if person is None:
        raise HTTPException(401, "You are logged out")
    if request.headers.get(PERSON, str(person.id)) != str(person.id):
        raise HTTPException(401, f"You are logged out: {person.name} is logged in in this browser now")
    return person


def visitor(request: Request) -> Somebody | None:
    """The same where an app may be served without accounts, to this machine alone: then it is None."""
    if request.app.state.accounts is None:
        ours(request)
        return None
    return who(request)


Person = Annotated[Somebody, Depends(who)]


def reviewer(person: Person) -> Somebody:
    """Who asks, if they are a reviewer or an admin, as the database knows them now. Raises 403 for others."""
    return _one_of(LEADS, person)


def admin(person: Person) -> Somebody:
    """The same for admins alone: they manage people."""
    return _one_of(("admin",), person)


def _one_of(roles: tuple[str, ...], person: Somebody) -> Somebody:
    if person.role not in roles:
        raise HTTPException(403, f"This is for {' and '.join(roles)} only")
    return person


Reviewer = Annotated[Somebody, Depends(reviewer)]
Admin = Annotated[Somebody, Depends(admin)]
Visitor = Annotated[Somebody | None, Depends(visitor)]
