"""Managing people from the lead's page: its JSON API below /api/lead. For admins; reviewers see only the list.

GET  people            {people, invited}
POST invite            {role, name or null, days} → {invited: [{name, role, link, expires_at}]}
POST invite_many       {role, names, days}        → the same; one name per line
POST reset             {name}                     → the same: a password reset link
POST active, role, end {name, ...}                (de)activate; change the role; end sessions and revoke links, or
                                                  revoke the invitation with this id
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
from apps.store import erasing, feedback, invitations, people, progress, tasks, tokens
from apps.store.invitations import NewInvitation
from apps.store.people import Role
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
    def listed(user: Reviewer, project: Chosen) -> dict[str, Any]:
        done = {one.name: one for one in progress.progress(project.store, project.id).people}
        desks, failed = desks_of(project)
        rows = []
        for person in people.all_people(project.store):
            figures = done[person.name]._asdict() if person.name in done else {}
            paused, most = desks.get(person.id, (False, None))
            own = {"paused": paused, "most": most, "failed_practice": person.name in failed}
            rows.append(figures | person._asdict() | own)
        return {"people": rows, "invited": [one._asdict() for one in invitations.pending_invitations(project.store)]}

    @lead.post("/invite")
    def invite(user: Admin, project: Chosen, body: Invite, request: Request) -> dict[str, Any]:
        made = invitations.invite(project.store, body.role, days=body.days, created_by=user.id)
        return links(project, request, [made])

    @lead.post("/invite_many")
    def invite_many(user: Admin, project: Chosen, body: InviteMany, request: Request) -> dict[str, Any]:
        made = invitations.invite_many(project.store, body.names, body.role, body.days, created_by=user.id)
        return links(project, request, made)

    @lead.post("/reset")
    def reset(user: Admin, project: Chosen, body: Named, request: Request) -> dict[str, Any]:
        return links(project, request, [invitations.reset(project.store, body.name, created_by=user.id)])


def _managing(lead: APIRouter) -> None:
    @lead.post("/active")
    def set_active(user: Admin, project: Chosen, body: Active) -> dict[str, str]:
        person = people.set_active(project.store, body.name, body.active, by=user.id)
        return {"done": f"{person.name} {'can log in' if body.active else 'is deactivated and logged out'}."}

    @lead.post("/role")
    def set_role(user: Admin, project: Chosen, body: WithRole) -> dict[str, str]:
        person = people.set_role(project.store, body.name, body.role, by=user.id)
        return {"done": f"{person.name} is now {person.role}."}

    @lead.post("/end")
    def end(user: Admin, project: Chosen, body: Named) -> dict[str, str]:
        n = invitations.revoke(project.store, body.name, by=user.id)
        if body.name.startswith("#"):
            return {"done": "The invitation is revoked."}
        return {"done": f"{body.name}: {n} sessions and links ended."}

    @lead.post("/erase")
    def erase(user: Admin, project: Chosen, body: Named) -> dict[str, str]:
        erased = erasing.erase(project.store, body.name, by=user.id)
        return {"done": f"{body.name} is now {erased.pseudonym}. Texts of {erased.n_revisions:,} versions are erased."}


def _working(lead: APIRouter) -> None:
    @lead.post("/pause_person")
    def pause_person(user: Admin, project: Chosen, body: PausePerson) -> dict[str, str]:
        tasks.pause_person(project.store, project.id, body.name, body.paused, user.id)
        return {"done": f"{body.name} {'gets no tasks now' if body.paused else 'gets tasks again'}."}

    @lead.post("/limit")
    def limit(user: Admin, project: Chosen, body: Limit) -> dict[str, str]:
        tasks.limit_person(project.store, project.id, body.name, body.most, user.id)
        limit = "the project's limit" if body.most is None else f"a limit of {body.most:,} rankings"
        return {"done": f"{body.name} has {limit}."}

    @lead.post("/practice")
    def practice(user: Admin, project: Chosen, body: Named) -> dict[str, str]:
        n = tasks.reset_practice(project.store, project.id, body.name, user.id)
        return {"done": f"{body.name} repeats {n} practice tasks."}


def _tokens(lead: APIRouter) -> None:
    @lead.get("/tokens")
    def listed(user: Admin, project: Chosen) -> dict[str, Any]:
        return {"tokens": [token._asdict() for token in tokens.all_tokens(project.store)]}

    @lead.post("/tokens")
    def create(user: Admin, project: Chosen, body: NewToken) -> dict[str, Any]:
        made = tokens.create(project.store, body.name, body.purpose, body.days, by=user.id)
        return {"token": made.token, "expires_at": made.expires_at}

    @lead.post("/revoke_token")
    def revoke(user: Admin, project: Chosen, body: OneToken) -> dict[str, str]:
        tokens.revoke(project.store, body.id, by=user.id)
        return {"done": "The token is revoked."}


def desks_of(project: Project) -> tuple[dict[int, tuple[bool, int | None]], set[str]]:
    """Each person's pause and limit in a project, and the names of those who failed the practice tasks."""
    with project.store.read() as session:
        rows = session.execute(
            select(Desk.person_id, Desk.paused, Desk.most).where(Desk.project_id == project.id)
        ).tuples()
        return {person: (paused, most) for person, paused, most in rows}, set(
            feedback.failed_practice(session, project.id)
        )


def links(project: Project, request: Request, made: Iterable[NewInvitation]) -> dict[str, Any]:
    """The links of new invitations. They can be shown only now."""
    origin = project.recipe.origin or f"{request.url.scheme}://{request.url.netloc}"
    found = [
        {"name": one.name, "role": one.role, "link": f"{origin}/invitation/{one.token}", "expires_at": one.expires_at}
        for one in made
    ]
    return {"invited": found}
