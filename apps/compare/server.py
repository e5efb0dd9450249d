"""The comparison as one web application, and how it is served."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from align import sections
from align.errors import UserError
from apps.compare.recipe import LOOPBACK, Recipe

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from apps.compare.models import StreamingModels
    from apps.store.project import Project

COLUMN = "align-compare"  # where main.js draws the page


def check(recipe: Recipe) -> None:
    """Raises `UserError` for what is missing before anything is loaded: packages, models, the arena's project."""
    from align.evals.models import check_template
    from align.models.load import load_config
    from apps.store.project import guidelines_of, read

    for package in ("gradio", "fastapi", "uvicorn", "sqlalchemy"):
        if find_spec(package) is None:
            raise UserError(f"{package} is not installed; pip install '.[apps]'")
    for name, model in recipe.models.items():
        load_config(model, f"models.{name}.path", to="generate")
        check_template(model, f"models.{name}")
    if recipe.reward is not None:
        load_config(sections.Model(path=recipe.reward), "reward", to="reward")
    if recipe.arena is not None:
        project = read(recipe.arena)
        guidelines_of(project)
        rating = project.questions.rating
        if rating.ask and rating.required:
            raise UserError(
                f"arena: {recipe.arena} asks for ratings, and a vote has none; set questions.rating.ask: false"
            )
        if not project.ranking.ties:
            raise UserError(f"arena: {recipe.arena} has no ties, and a vote may be one; set ranking.ties: true")


def serve(recipe: Recipe) -> None:
    """Loads the models and serves until SIGINT or SIGTERM."""
    from align.serve_rm import listening
    from apps.compare.models import StreamingModels
    from apps.store import people
    from apps.store.project import opened
    from apps.web import server

    with ExitStack() as stack:
        project = None if recipe.arena is None else stack.enter_context(opened(recipe.arena))
        place = stack.enter_context(listening(recipe.host, recipe.port))
        voices = StreamingModels(recipe, partial(print, flush=True))
        app = compare_app(recipe, voices, project)
        port = place.getsockname()[1]
        here = f"http://{recipe.host}:{port}"
        print(f"{recipe.name} is at {recipe.origin or here}; Ctrl-C stops it", flush=True)
        if project is not None and not people.listed(project.store):
            print(
                f"nobody can log in yet: python -m apps.label invite {recipe.arena} --role admin --port {port}",
                flush=True,
            )
        if recipe.host not in LOOPBACK and not (recipe.origin or "").startswith("https://"):
            print("warning: without https passwords can be read on the way; see `origin`", flush=True)
        server.serve(app, place, recipe.proxies)


def compare_app(recipe: Recipe, voices: StreamingModels, project: Project | None) -> ASGIApp:
    """The application. Without a project there are no accounts, and nobody is let in but from this machine."""
    from align.generation.sampling import Sampling
    from apps.compare import api
    from apps.compare.arena import Arena
    from apps.compare.queue import Line
    from apps.store.people import ROLES
    from apps.web import server
    from apps.web.accounts import Site
    from apps.web.shell import options, shell

    site = Site(recipe.name, "compare", recipe.origin)
    if project is not None:
        site = replace(site, session_hours=project.recipe.session_hours)
    store = None if project is None else project.store
    app = server.create_app(store, site, {"compare": Path(__file__).parent / "static"})
    arena = None if project is None else Arena(project, voices, Sampling(**recipe.sampling.model_dump()))
    line = Line(recipe.queue.waiting, recipe.queue.per_person)
    app.include_router(api.router(recipe, voices, line, arena))
    page = shell(recipe.name, COLUMN)
    server.mount_gradio(app, page, "/app", ROLES, **options(COLUMN, "/static/compare/main.js"))
    return server.guarded(app, site, recipe.host)
