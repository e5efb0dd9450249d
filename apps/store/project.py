"""A labelling project: what project.yaml says, and the database that it names.

    name: harmless-1
    database: runs/labels.db
    instructions: guidelines.md
    overlap: 2

Paths are relative to where the command runs. `${NAME}` in `database` is taken from the environment: a password belongs
there and not in a file.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self
from urllib.parse import quote

from pydantic import AfterValidator, Field, model_validator

from align.config import build, read_yaml
from align.errors import UserError
from apps.store.settings import Settings

if TYPE_CHECKING:
    from apps.store.engine import Store


def _are_addresses(given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        try:
            ip_network(one)
        except ValueError:
            raise ValueError(
                f"{one!r} is no address and no network; give numbers, as 10.0.0.5 or 172.16.0.0/12"
            ) from None
    return given


Addresses = Annotated[tuple[str, ...], AfterValidator(_are_addresses)]


class Recipe(Settings):
    """A labelling project."""

    name: str = Field(min_length=1, max_length=100)
    """Told on the page and in exports. Several projects can share a database."""
    database: str
    """A path (SQLite), or postgresql://user:${PASSWORD}@host/name, where ${PASSWORD} is taken from the environment."""
    instructions: str | None = None
    """A Markdown file: the guidelines that annotators read."""
    show: Literal["markdown", "raw"] = "markdown"
    """How texts are shown at first; everybody can switch."""
    session_hours: float = Field(12, gt=0, le=24 * 30)
    """How long a login lasts."""
    origin: str | None = Field(None, pattern=r"^https?://[^/\s]+$")
    """The address that browsers use, where the app stands behind a proxy: https://label.example.org."""
    trusted_proxies: Addresses = ()
    """Addresses or networks, as 172.16.0.0/12, of a proxy on another machine: its X-Forwarded-For is believed."""

    @property
    def proxies(self) -> tuple[str, ...] | None:
        """The proxies of other machines that say who a request is from; None where no proxy stands in front."""
        return self.trusted_proxies if self.origin or self.trusted_proxies else None

    def settings(self) -> Settings:
        """What the store needs of it."""
        return Settings.model_validate({name: getattr(self, name) for name in Settings.model_fields})

    @model_validator(mode="after")
    def _password_from_the_environment(self) -> Self:
        if re.match(r"postgresql(\+\w+)?://[^:/@]*:[^@$]+@", self.database):
            raise ValueError("database: a password stands in this file; write ${NAME} in its place and set NAME")
        return self


class Project(NamedTuple):
    """An open project."""

    recipe: Recipe
    store: Store
    id: int  # in the store


def read(path: str) -> Recipe:
    """project.yaml, checked. Raises `UserError` that tells every mistake at once."""
    return build(Recipe, read_yaml(path), path)


def guidelines_of(recipe: Recipe) -> str:
    """The text of the guidelines. Raises `UserError` if the file cannot be read."""
    if recipe.instructions is None:
        return ""
    try:
        return Path(recipe.instructions).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"instructions: cannot read {recipe.instructions} ({error})") from None


def database_url(recipe: Recipe) -> str:
    """`database` with the environment's values in it, as parts of a URL. Raises `UserError` for one that is not set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise UserError(f"database: the environment has no variable {found[1]}; set it before this command")
        given = os.environ[found[1]]
        return given if found[0] == recipe.database else quote(given, safe="")

    return re.sub(r"\$\{(\w+)\}", value, recipe.database)


@contextmanager
def opened(path: str, use: Literal["work", "read", "look"] = "work") -> Iterator[Project]:
    """The project with its database open; closed at the end.

    To `work`, the database is made where there is none, and what project.yaml says is brought into it. To `read`, both
    must be there. To `look`, a database or project that is not there is taken to be empty. Raises `UserError`.
    """
    for package in ("sqlalchemy", "alembic"):
        if find_spec(package) is None:
            raise UserError(f"{package} is not installed; pip install '.[apps]'")
    from apps.store.engine import Store
    from apps.store.projects import find, sync

    recipe = read(path)
    guidelines, settings = guidelines_of(recipe), recipe.settings()
    with ExitStack() as stack:
        url = database_url(recipe)
        if use == "look" and "://" not in url and not Path(url).expanduser().exists():
            url = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "empty.db")
        store = stack.enter_context(closing(Store.open(url, create=use != "read")))
        found = find(store, recipe.name)
        if found is None and use == "look":
            nowhere = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "empty.db")
            store = stack.enter_context(closing(Store.open(nowhere)))
        if found is None and use == "read":
            raise UserError(f"name: the database has no project {recipe.name!r} yet; `import` or `serve` make it")
        if found is None or use == "work":
            found = sync(store, recipe.name, settings, guidelines)
        yield Project(recipe, store, found)
