"""The ranking app as one web application: the annotators' page, the lead's page, the API behind them."""

from __future__ import annotations

from pathlib import Path

from starlette.types import ASGIApp

from align.serve_rm import listening
from apps.label import api, dashboard
from apps.label.apart import Apart
from apps.label.lead import Compute, computed
from apps.store import people
from apps.store.people import LEADS, ROLES
from apps.store.project import Project, opened
from apps.web import server
from apps.web.accounts import Site
from apps.web.shell import options, shell

COLUMN = "align-label"  # where main.js draws the labelling page


def serve(path: str, host: str, port: int) -> None:
    """Serves the project of a project.yaml until SIGINT or SIGTERM."""
    with opened(path) as project, listening(host, port) as place:
        app = ranking_app(project, host, Apart())
        here = f"http://{host}:{place.getsockname()[1]}"
        print(f"{project.recipe.name} is at {project.recipe.origin or here}; Ctrl-C stops it", flush=True)
        if not people.listed(project.store):
            print(f"nobody can log in yet: python -m apps.label invite {path} --role admin", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1") and not (project.recipe.origin or "").startswith("https://"):
            print("warning: without https passwords can be read on the way; see `origin`", flush=True)
        server.serve(app, place, behind_proxy=project.recipe.origin is not None)


def ranking_app(project: Project, host: str = "127.0.0.1", compute: Compute = computed) -> ASGIApp:
    """The application that is served at `host`. `compute`: what computes the lead's figures."""
    recipe = project.recipe
    site = Site(recipe.name, "label", recipe.origin, recipe.session_hours)
    app = server.create_app(project.store, site, {"label": Path(__file__).parent / "static"})
    app.include_router(api.router(project))
    page = shell(recipe.name, COLUMN)
    server.mount_gradio(app, page, "/app", ROLES, **options(COLUMN, "/static/label/main.js"))
    lead = dashboard.dashboard(project, compute)
    server.mount_gradio(app, lead, "/lead", LEADS, theme=dashboard.theme(), css=dashboard.CSS)
    return server.guarded(app, site, host)
