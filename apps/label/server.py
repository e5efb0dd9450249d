"""The ranking app's web server: the annotators' page, the lead's page, and their APIs."""

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
from apps.label.background import BackgroundCompute
from apps.label.lead import Compute, Lead, computed
from apps.store import people
from apps.store.people import LEADS, ROLES
from apps.store.project import Project, opened
from apps.web import server
from apps.web.accounts import Accounts, Site
from apps.web.shell import options, shell
from apps.web.workers import listening_sockets, supervise

MOST_WORKERS = 64
COLUMN = "align-label"  # the element in which main.js builds the labelling page
LEAD = "align-lead"  # the element of lead.js


def serve(paths: Sequence[str], host: str, port: int, n_workers: int = 1) -> None:
    """Serves projects until SIGINT or SIGTERM. Raises `UserError` unless they share one database."""
    if not 1 <= n_workers <= MOST_WORKERS:
        raise UserError(f"--workers {n_workers}: give 1 to {MOST_WORKERS}, about one per core")
    with ExitStack() as outer:
        with ExitStack() as stack:
            projects = [stack.enter_context(opened(path)) for path in paths]
            _check_shared_keys(paths, projects)
            places = [outer.enter_context(one) for one in listening_sockets(host, port, n_workers)]
            _print_address(paths, projects, host, places[0].getsockname()[1])
            if n_workers == 1:
                serve_at(places[0], projects, host)
                return
        supervise(places, work, paths, host)  # after the database is closed: forks must not share its connections


def _print_address(paths: Sequence[str], projects: Sequence[Project], host: str, port: int) -> None:
    """Prints the address, and what is missing before people can use it."""
    first = projects[0]
    names = ", ".join(project.recipe.name for project in projects)
    print(f"{names}: {first.recipe.origin or f'http://{host}:{port}'}; Ctrl-C stops it", flush=True)
    if not people.all_people(first.store):
        print(f"nobody can log in yet: {program('apps.label')} invite {paths[0]} --role admin", flush=True)
    if host not in ("127.0.0.1", "localhost", "::1") and not (first.recipe.origin or "").startswith("https://"):
        print("warning: without https, others can read passwords on the network; see `origin`", flush=True)


def work(place: socket.socket, paths: Sequence[str], host: str) -> None:
    """Runs one of several processes that serve the same projects on the same port."""
    with ExitStack() as stack:
        serve_at(place, [stack.enter_context(opened(path)) for path in paths], host)


def serve_at(place: socket.socket, projects: Sequence[Project], host: str) -> None:
    """Serves until SIGINT or SIGTERM."""
    server.serve(ranking_app(projects, host, BackgroundCompute()), place, projects[0].recipe.proxies)


def ranking_app(projects: Sequence[Project], host: str = "127.0.0.1", compute: Compute = computed) -> ASGIApp:
    """The application to serve at `host`. `compute`: computes the lead's figures."""
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
    """The page to choose a project."""
    accounts: Accounts = request.app.state.accounts
    person = accounts.person(request)
    if person is None:
        return RedirectResponse("/login?next=/projects", 303)
    projects = {project.id: project.recipe.name for project in request.app.state.projects.values()}
    return accounts.page(request, "projects", projects=projects, leads=person.role in LEADS)


def _check_shared_keys(paths: Sequence[str], projects: Sequence[Project]) -> None:
    """Checks that the projects share their accounts, address and session length. Raises `UserError`."""
    for path, project in zip(paths[1:], projects[1:], strict=True):
        for key in ("database", "origin", "trusted_proxies", "session_hours"):
            mine, others = getattr(project.recipe, key), getattr(projects[0].recipe, key)
            if mine != others:
                raise UserError(
                    f"{path}: {key} = {mine}, but {paths[0]} has {others}; projects on one server need the same value"
                )
        if project.id in [one.id for one in projects if one is not project]:
            raise UserError(f"{path}: name: another file also has the project {project.recipe.name!r}; remove one")
