"""Serves a reward model or an ensemble of them over HTTP.

    align serve-rm recipes/serve_rm.yaml
    align serve-rm model.path=runs/rm/model port=8001

POST /score takes {"prompts": ["..."], "responses": ["..."]} and returns {"scores": [0.5]}. GET /health returns the
model and the limits. PPO uses such a server with reward.url=http://127.0.0.1:8000/score. Scores are computed in fp32.
There is no authentication: everyone who can reach the port can use the server.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pydantic import Field

from align.config import Section, parse_command, to_yaml
from align.errors import UserError, exit_on_user_error
from align.rewards.settings import Batching, Limits, RewardModel

if TYPE_CHECKING:
    from fastapi import FastAPI

    from align.rewards.reward import Prompts
    from align.rewards.scorer import Scored, Scorer


class Recipe(Section):
    """Serving a reward model."""

    model: RewardModel
    max_tokens: int = Field(512, gt=1)
    """Longest sequence: prompt and answer together. Requests with longer ones are refused."""
    host: str = "127.0.0.1"
    """The address to listen on: 127.0.0.1 accepts only this machine, 0.0.0.0 everyone who can reach it."""
    port: int = Field(8000, ge=0, le=65535)
    """The port to listen on. 0 takes a free one and prints it."""
    limits: Limits = Limits()
    batching: Batching = Batching()


def main() -> None:
    """Parses the command line and serves until it is stopped."""
    recipe, dry_run = parse_command(Recipe, "serve_rm", needs_file=False)
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Serves until SIGINT or SIGTERM. `dry_run` only checks the recipe and that the models exist."""
    from align.rewards.scorer import longest_row

    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise UserError(f"{package} is not installed. Run: pip install 'align[serve]'")
    longest = longest_row(recipe.model, recipe.max_tokens, "max_tokens")
    recipe = recipe.model_copy(update={"max_tokens": longest})
    if dry_run:
        print(to_yaml(recipe))
        return
    import uvicorn

    with listening(recipe.host, recipe.port) as place:  # before the model loads: a taken port fails at once
        app = build_app(recipe)
        host, port = place.getsockname()[:2]
        print(f"serving {recipe.model.path} on http://{host}:{port}/score; Ctrl-C stops it", flush=True)
        if recipe.host not in ("127.0.0.1", "localhost", "::1"):
            print("warning: there is no authentication; everyone who can reach this port can use it", flush=True)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after its shutdown
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[place])


def build_app(recipe: Recipe) -> FastAPI:
    """Loads the models and returns the web application."""
    from align.rewards.scorer import Scorer
    from align.rewards.server import create_app

    scorer = Scorer(recipe.model, recipe.batching.tokens)
    about = recipe.model.model_dump() | {"max_tokens": recipe.max_tokens}
    about = {"model": about.pop("path"), **about}
    return create_app(
        lambda prompts, texts: score(scorer, recipe.max_tokens, prompts, texts), recipe.limits, recipe.batching, about
    )


def score(scorer: Scorer, max_tokens: int, prompts: Prompts, texts: Sequence[str]) -> Scored:
    """Scores answers. Raises `UserError` for an answer that is too long."""
    encoded = scorer.encode(prompts, texts)
    for text, answer in zip(texts, encoded, strict=True):
        longest = max(len(member.ids) for member in answer)
        if longest > max_tokens:
            raise UserError(
                f"the answer {text[:40]!r} has {longest} tokens with its prompt; this server takes at most "
                f"{max_tokens} (max_tokens)"
            )
    return scorer.score([[member.ids for member in answer] for answer in encoded])


def listening(host: str, port: int, shared: bool = False) -> Any:
    """A listening socket. Raises `UserError` if the port is taken or the address is not this machine's.

    With `shared`, several sockets listen on one port and the system divides the connections among them.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        place = socket.create_server((host, port), family=family, reuse_port=shared)
        # Connections inherit this. asyncio sets it only for sockets that name their protocol. Without it the second
        # part of a response waits for the acknowledgement of the first, which systems delay by 40 ms.
        place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return place
    except OSError as error:
        raise UserError(
            f"host = {host}, port = {port}: cannot listen there ({error.strerror or error}); give another port, or 0 "
            "for any free port"
        ) from None


if __name__ == "__main__":
    exit_on_user_error(main)
