"""The comparison app's web server."""

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

COLUMN = "align-compare"  # the element in which main.js builds the page


def check(recipe: Recipe) -> None:
    """Checks packages, models and the arena's project before anything is loaded. Raises `UserError`."""
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
                f"arena: {recipe.arena} requires ratings, but votes have none; set questions.rating.ask: false"
            )
        if not project.ranking.ties:
            raise UserError(f"arena: {recipe.arena} forbids ties, but a vote can be a tie; set ranking.ties: true")


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
        models = StreamingModels(recipe, partial(print, flush=True))
        app = compare_app(recipe, models, project)
        port = place.getsockname()[1]
        here = f"http://{recipe.host}:{port}"
        print(f"{recipe.name} is at {recipe.origin or here}; Ctrl-C stops it", flush=True)
        if project is not None and not people.all_people(project.store):
            print(
                f"nobody can log in yet: align label invite {recipe.arena} --role admin --port {port}",
                flush=True,
            )
        if recipe.host not in LOOPBACK and not (recipe.origin or "").startswith("https://"):
            print("warning: without https, others can read passwords on the network; see `origin`", flush=True)
        server.serve(app, place, recipe.proxies)


def compare_app(recipe: Recipe, models: StreamingModels, project: Project | None) -> ASGIApp:
    """The application. Without a project there are no accounts, and only this machine has access."""
    from align.generation.sampling import Sampling
    from apps.compare import api
    from apps.compare.arena import Arena
    from apps.compare.queue import AnswerQueue
    from apps.store.people import ROLES
    from apps.web import server
    from apps.web.accounts import Site
    from apps.web.shell import options, shell

    site = Site(recipe.name, "compare", recipe.origin)
    if project is not None:
        site = replace(site, session_hours=project.recipe.session_hours)
    store = None if project is None else project.store
    app = server.create_app(store, site, {"compare": Path(__file__).parent / "static"})
    arena = None if project is None else Arena(project, models, Sampling(**recipe.sampling.model_dump()))
    queue = AnswerQueue(recipe.queue.waiting, recipe.queue.per_person)
    app.include_router(api.router(recipe, models, queue, arena))
    page = shell(recipe.name, COLUMN)
    server.mount_gradio(app, page, "/app", ROLES, **options(COLUMN, "/static/compare/main.js"))
    return server.guarded(app, site, recipe.host)
