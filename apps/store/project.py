"""A labelling project: the keys of project.yaml, and opening its database.

    name: harmless-1
    database: runs/labels.db
    instructions: guidelines.md
    overlap: 2

Paths are relative to the working directory. `${NAME}` in `database` is taken from the environment: passwords belong
there, not in a file.
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
                f"{one!r} is not an IP address or network; give one such as 10.0.0.5 or 172.16.0.0/12"
            ) from None
    return given


Addresses = Annotated[tuple[str, ...], AfterValidator(_are_addresses)]


class Recipe(Settings):
    """A labelling project."""

    name: str = Field(min_length=1, max_length=100)
    """The project's name on pages and in exports. Several projects can share a database."""
    database: str
    """A path (SQLite) or postgresql://user:${PASSWORD}@host/name; ${PASSWORD} comes from the environment."""
    instructions: str | None = None
    """A Markdown file with the guidelines for annotators."""
    show: Literal["markdown", "raw"] = "markdown"
    """How texts are shown at first; each person can switch."""
    session_hours: float = Field(12, gt=0, le=24 * 30)
    """How long a login lasts."""
    origin: str | None = Field(None, pattern=r"^https?://[^/\s]+$")
    """The address that browsers use if the app is behind a proxy: https://label.example.org."""
    trusted_proxies: Addresses = ()
    """Addresses or networks (172.16.0.0/12) of proxies on other machines. Their X-Forwarded-For header is trusted."""

    @property
    def proxies(self) -> tuple[str, ...] | None:
        """Trusted proxies on other machines; None if there is no proxy."""
        return self.trusted_proxies if self.origin or self.trusted_proxies else None

    def settings(self) -> Settings:
        """The part that the store needs."""
        return Settings.model_validate({name: getattr(self, name) for name in Settings.model_fields})

    @model_validator(mode="after")
    def _password_from_the_environment(self) -> Self:
        if re.match(r"postgresql(\+\w+)?://[^:/@]*:[^@$]+@", self.database):
            raise ValueError("database: this file contains a password; replace it by ${NAME} and set NAME")
        return self


class Project(NamedTuple):
    """An open project."""

    recipe: Recipe
    store: Store
    id: int  # in the store


def read(path: str) -> Recipe:
    """The checked project.yaml. Raises `UserError` with all mistakes at once."""
    return build(Recipe, read_yaml(path), path)


def guidelines_of(recipe: Recipe) -> str:
    """The guidelines' text. Raises `UserError` if the file cannot be read."""
    if recipe.instructions is None:
        return ""
    try:
        return Path(recipe.instructions).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"instructions: cannot read {recipe.instructions} ({error})") from None


def database_url(recipe: Recipe) -> str:
    """`database` with environment variables filled in, URL-quoted. Raises `UserError` for an unset one."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise UserError(f"database: the environment variable {found[1]} is not set; set it before this command")
        given = os.environ[found[1]]
        return given if found[0] == recipe.database else quote(given, safe="")

    return re.sub(r"\$\{(\w+)\}", value, recipe.database)


@contextmanager
def opened(path: str, use: Literal["work", "read", "look"] = "work") -> Iterator[Project]:
    """Opens the project with its database; closes it at the end.

    `work` creates a missing database and brings the keys of project.yaml into it. `read` needs both to exist. `look`
    takes a missing database or project as empty. Raises `UserError`.
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
            raise UserError(f"name: the database has no project {recipe.name!r} yet; `import` or `serve` creates it")
        if found is None or use == "work":
            found = sync(store, recipe.name, settings, guidelines)
        yield Project(recipe, store, found)
