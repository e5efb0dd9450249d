"""The ranking app as one web application: the annotators' page, the lead's page, the API behind them."""

from __future__ import annotations

from pathlib import Path

from starlette.types import ASGIApp

from apps.label import api, dashboard, page
from apps.label.project import Project
from apps.store.people import LEADS, ROLES
from apps.web.accounts import Site
from apps.web.server import create_app, guarded, mount_gradio


def ranking_app(project: Project, host: str = "127.0.0.1") -> ASGIApp:
    """The application that is served at `host`."""
    recipe = project.recipe
    site = Site(recipe.name, "label", recipe.origin, recipe.session_hours)
    app, accounts = create_app(project.store, site, {"label": Path(__file__).parent / "static"})
    app.include_router(api.router(project))
    mount_gradio(app, accounts, page.labelling_page(recipe.name), "/app", ROLES, head=page.HEAD, css=page.CSS)
    mount_gradio(app, accounts, dashboard.dashboard(project), "/lead", LEADS, css=dashboard.CSS)
    return guarded(app, site, host)
