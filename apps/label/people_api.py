"""What an admin does about people from the lead's page, as JSON below /api/lead. Reviewers see the list, no more.

GET  people            {people, invited}
POST invite            {role, name or null, days} → {invited: [{name, role, link, expires_at}]}
POST invite_many       {role, names, days}        → the same; names one a line
POST reset             {name}                     → the same: a link for a new password
POST active, role, end {name, ...}                shut out or let in; another role; sessions and open links end, or the
                                                  invitation whose id is given
POST pause_person      {name, paused}             POST limit {name, most or null}    POST practice {name}
POST erase             {name}
GET  tokens            {tokens}                   POST tokens {name, purpose, days} → {token, expires_at}
POST revoke_token      {id}
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy import select

from apps.label.api import Chosen, Number
from apps.label.lead_api import Name
from apps.store import erasing, feedback, people, progress, tasks, tokens
from apps.store.people import Invited, Role
from apps.store.project import Project
from apps.store.tables import Desk
from apps.web.calls import Admin, Body, Reviewer

Days = Annotated[float, Field(gt=0, le=365)]


class Named(Body):
    name: Name


class Invite(Body):
    role: Role
    days: Days = 7


class InviteMany(Invite):
    names: Annotated[str, Field(max_length=200_000)]


class Active(Named):
    active: bool


class WithRole(Named):
    role: Role


class PausePerson(Named):
    paused: bool


class Limit(Named):
    most: Number | None


class NewToken(Named):
    purpose: Name
    days: Days


class OneToken(Body):
    id: Name


def router() -> APIRouter:
    """The routes, for all projects of `app.state.projects`."""
    lead = APIRouter(prefix="/api/lead", include_in_schema=False)
    _inviting(lead)
    _managing(lead)
    _working(lead)
    _tokens(lead)
    return lead


def _inviting(lead: APIRouter) -> None:
    @lead.get("/people")
    def listed(asks: Reviewer, project: Chosen) -> dict[str, Any]:
        done = {one.name: one for one in progress.progress(project.store, project.id).people}
        desks, failed = desks_of(project)
        rows = []
        for person in people.listed(project.store):
            said = done[person.name]._asdict() if person.name in done else {}
            paused, most = desks.get(person.id, (False, None))
            own = {"paused": paused, "most": most, "failed_practice": person.name in failed}
            rows.append(said | person._asdict() | own)
        return {"people": rows, "invited": [one._asdict() for one in people.waiting(project.store)]}

    @lead.post("/invite")
    def invite(asks: Admin, project: Chosen, body: Invite, request: Request) -> dict[str, Any]:
        made = people.invite(project.store, body.role, days=body.days, created_by=asks.id)
        return links(project, request, [made])

    @lead.post("/invite_many")
    def invite_many(asks: Admin, project: Chosen, body: InviteMany, request: Request) -> dict[str, Any]:
        made = people.invite_many(project.store, body.names, body.role, body.days, created_by=asks.id)
        return links(project, request, made)

    @lead.post("/reset")
    def reset(asks: Admin, project: Chosen, body: Named, request: Request) -> dict[str, Any]:
        return links(project, request, [people.reset(project.store, body.name, created_by=asks.id)])


def _managing(lead: APIRouter) -> None:
    @lead.post("/active")
    def set_active(asks: Admin, project: Chosen, body: Active) -> dict[str, str]:
        person = people.set_active(project.store, body.name, body.active, by=asks.id)
        return {"done": f"{person.name} {'can log in' if body.active else 'is shut out, and logged out'}."}

    @lead.post("/role")
    def set_role(asks: Admin, project: Chosen, body: WithRole) -> dict[str, str]:
        person = people.set_role(project.store, body.name, body.role, by=asks.id)
        return {"done": f"{person.name} is {person.role} now."}

    @lead.post("/end")
    def end(asks: Admin, project: Chosen, body: Named) -> dict[str, str]:
        n = people.revoke(project.store, body.name, by=asks.id)
        if body.name.startswith("#"):
            return {"done": "The invitation works no more."}
        return {"done": f"{body.name}: {n} sessions and open links ended."}

    @lead.post("/erase")
    def erase(asks: Admin, project: Chosen, body: Named) -> dict[str, str]:
        erased = erasing.erase(project.store, body.name, by=asks.id)
        return {"done": f"{body.name} is {erased.pseudonym} now; texts of {erased.n_revisions:,} versions are gone."}


def _working(lead: APIRouter) -> None:
    @lead.post("/pause_person")
    def pause_person(asks: Admin, project: Chosen, body: PausePerson) -> dict[str, str]:
        tasks.pause_person(project.store, project.id, body.name, body.paused, asks.id)
        return {"done": f"{body.name} is given {'no task now' if body.paused else 'tasks again'}."}

    @lead.post("/limit")
    def limit(asks: Admin, project: Chosen, body: Limit) -> dict[str, str]:
        tasks.limit_person(project.store, project.id, body.name, body.most, asks.id)
        many = "as many as the project says" if body.most is None else f"at most {body.most:,}"
        return {"done": f"{body.name} ranks {many}."}

    @lead.post("/practice")
    def practice(asks: Admin, project: Chosen, body: Named) -> dict[str, str]:
        n = tasks.reset_practice(project.store, project.id, body.name, asks.id)
        return {"done": f"{body.name} does {n} practice tasks again."}


def _tokens(lead: APIRouter) -> None:
    @lead.get("/tokens")
    def listed(asks: Admin, project: Chosen) -> dict[str, Any]:
        return {"tokens": [token._asdict() for token in tokens.listed(project.store)]}

    @lead.post("/tokens")
    def create(asks: Admin, project: Chosen, body: NewToken) -> dict[str, Any]:
        made = tokens.create(project.store, body.name, body.purpose, body.days, by=asks.id)
        return {"token": made.token, "expires_at": made.expires_at}

    @lead.post("/revoke_token")
    def revoke(asks: Admin, project: Chosen, body: OneToken) -> dict[str, str]:
        tokens.revoke(project.store, body.id, by=asks.id)
        return {"done": "The token works no more."}


def desks_of(project: Project) -> tuple[dict[int, tuple[bool, int | None]], set[str]]:
    """Each person's pause and limit in a project, and the names of those who did not pass the practice tasks."""
    with project.store.read() as session:
        rows = session.execute(
            select(Desk.person_id, Desk.paused, Desk.most).where(Desk.project_id == project.id)
        ).tuples()
        return {person: (paused, most) for person, paused, most in rows}, set(
            feedback.failed_practice(session, project.id)
        )


def links(project: Project, request: Request, made: Iterable[Invited]) -> dict[str, Any]:
    """The links of invitations, which are told this once."""
    origin = project.recipe.origin or f"{request.url.scheme}://{request.url.netloc}"
    found = [
        {"name": one.name, "role": one.role, "link": f"{origin}/invitation/{one.token}", "expires_at": one.expires_at}
        for one in made
    ]
    return {"invited": found}
