"""The ranking app as one web application: the annotators' page, the lead's page, the API behind them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp

from align.commands import program
from align.errors import UserError
from apps.label import api, lead_api, people_api
from apps.label.background import Apart
from apps.label.lead import Compute, Lead, computed
from apps.store import people
from apps.store.people import LEADS, ROLES
from apps.store.project import Project, opened
from apps.web import server
from apps.web.accounts import Accounts, Site
from apps.web.shell import options, shell
from apps.web.workers import listening_places, supervise

MOST_WORKERS = 64
COLUMN = "align-label"  # where main.js draws the labelling page
LEAD = "align-lead"  # and lead.js the lead's


def serve(paths: Sequence[str], host: str, port: int, n_workers: int = 1) -> None:
    """Serves projects until SIGINT or SIGTERM. Raises `UserError` unless their files name one database."""
    if not 1 <= n_workers <= MOST_WORKERS:
        raise UserError(f"--workers {n_workers}: give 1 to {MOST_WORKERS}; about one for each core")
    with ExitStack() as outer:
        with ExitStack() as stack:
            projects = [stack.enter_context(opened(path)) for path in paths]
            _share_a_server(paths, projects)
            places = [outer.enter_context(one) for one in listening_places(host, port, n_workers)]
            _tell(paths, projects, host, places[0].getsockname()[1])
            if n_workers == 1:
                serve_at(places[0], projects, host)
                return
        supervise(places, work, paths, host)  # with the database closed: its connections must not be shared by a fork


def _tell(paths: Sequence[str], projects: Sequence[Project], host: str, port: int) -> None:
    """What whoever started the server should know."""
    first = projects[0]
    names = ", ".join(project.recipe.name for project in projects)
    print(f"{names}: {first.recipe.origin or f'http://{host}:{port}'}; Ctrl-C stops it", flush=True)
    if not people.listed(first.store):
        print(f"nobody can log in yet: {program('apps.label')} invite {paths[0]} --role admin", flush=True)
    if host not in ("127.0.0.1", "localhost", "::1") and not (first.recipe.origin or "").startswith("https://"):
        print("warning: without https passwords can be read on the way; see `origin`", flush=True)


def work(place: socket.socket, paths: Sequence[str], host: str) -> None:
    """One of several processes that serve the same projects at the same socket."""
    with ExitStack() as stack:
        serve_at(place, [stack.enter_context(opened(path)) for path in paths], host)


def serve_at(place: socket.socket, projects: Sequence[Project], host: str) -> None:
    """Serves until SIGINT or SIGTERM."""
    server.serve(ranking_app(projects, host, Apart()), place, projects[0].recipe.proxies)


def ranking_app(projects: Sequence[Project], host: str = "127.0.0.1", compute: Compute = computed) -> ASGIApp:
    """The application that is served at `host`. `compute`: what computes the lead's figures."""
    first = projects[0]
    several = len(projects) > 1
    name = "Ranking" if several else first.recipe.name
    home = "/projects" if several else "/app/"
    site = Site(name, "label", first.recipe.origin, first.recipe.session_hours, home)
    app = server.create_app(first.store, site, {"label": Path(__file__).parent / "static"})
    app.state.projects = {project.id: project for project in projects}
    app.state.leads = {project.id: Lead(project, compute=compute) for project in projects}
    for routes in (api, lead_api, people_api):
        app.include_router(routes.router())
    app.add_api_route("/projects", _projects, include_in_schema=False)
    for title, path, roles, column, script in (
        (name, "/app", ROLES, COLUMN, "/static/label/main.js"),
        (f"{name}: lead", "/lead", LEADS, LEAD, "/static/label/lead.js"),
    ):
        server.mount_gradio(app, shell(title, column), path, roles, **options(column, script))
    return server.guarded(app, site, host)


def _projects(request: Request) -> Response:
    """Which project to work in."""
    accounts: Accounts = request.app.state.accounts
    person = accounts.person(request)
    if person is None:
        return RedirectResponse("/login?next=/projects", 303)
    projects = {project.id: project.recipe.name for project in request.app.state.projects.values()}
    return accounts.page(request, "projects", projects=projects, leads=person.role in LEADS)


def _share_a_server(paths: Sequence[str], projects: Sequence[Project]) -> None:
    """One server has one set of accounts, one address and one length of sessions."""
    for path, project in zip(paths[1:], projects[1:], strict=True):
        for key in ("database", "origin", "trusted_proxies", "session_hours"):
            mine, others = getattr(project.recipe, key), getattr(projects[0].recipe, key)
            if mine != others:
                raise UserError(f"{path}: {key} = {mine}, but {paths[0]} has {others}; one server has one of each")
        if project.id in [one.id for one in projects if one is not project]:
            raise UserError(f"{path}: name: another file here has the project {project.recipe.name!r}; leave one out")
