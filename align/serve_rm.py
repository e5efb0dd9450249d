"""Serves a reward model, or an ensemble of them, over HTTP.

    python -m align.serve_rm recipes/serve_rm.yaml
    python -m align.serve_rm model.path=runs/rm/model port=8001

POST /score takes {"prompts": ["..."], "responses": ["..."]} and answers {"scores": [0.5]}; GET /health says what is
served and its limits. PPO asks such a server with reward.url=http://127.0.0.1:8000/score, and gets the scores that the
model gives in fp32. There is no authentication: whoever reaches the port may ask.
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
    """Longest sequence, prompt and answer together; a request with a longer one is refused."""
    host: str = "127.0.0.1"
    """The address to listen at: 127.0.0.1 is this machine alone, 0.0.0.0 whoever can reach it."""
    port: int = Field(8000, ge=0, le=65535)
    """The port to listen at; 0 takes any that is free, and says which."""
    limits: Limits = Limits()
    batching: Batching = Batching()


def main() -> None:
    """Parses the command line and serves until it is stopped."""
    recipe, dry_run = parse_command(Recipe, "serve_rm", needs_file=False)
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Serves until SIGINT or SIGTERM; `dry_run` checks the recipe and that the models are there."""
    from align.rewards.scorer import longest_row

    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise UserError(f"{package} is not installed; pip install '.[serve]'")
    longest = longest_row(recipe.model, recipe.max_tokens, "max_tokens")
    recipe = recipe.model_copy(update={"max_tokens": longest})
    if dry_run:
        print(to_yaml(recipe))
        return
    import uvicorn

    with listening(recipe.host, recipe.port) as place:  # first, for a port that is taken is told at once
        app = build_app(recipe)
        host, port = place.getsockname()[:2]
        print(f"serving {recipe.model.path} on http://{host}:{port}/score; Ctrl-C stops it", flush=True)
        if recipe.host not in ("127.0.0.1", "localhost", "::1"):
            print("warning: there is no authentication; whoever reaches this port may ask", flush=True)
        with suppress(KeyboardInterrupt):  # which uvicorn raises once more when it has shut down
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[place])


def build_app(recipe: Recipe) -> FastAPI:
    """Loads the models and makes the web application of them."""
    from align.rewards.scorer import Scorer
    from align.rewards.server import create_app

    scorer = Scorer(recipe.model, recipe.batching.tokens)
    about = recipe.model.model_dump() | {"max_tokens": recipe.max_tokens}
    about = {"model": about.pop("path"), **about}
    return create_app(
        lambda prompts, texts: score(scorer, recipe.max_tokens, prompts, texts), recipe.limits, recipe.batching, about
    )


def score(scorer: Scorer, max_tokens: int, prompts: Prompts, texts: Sequence[str]) -> Scored:
    """The scores of some answers. Raises `UserError` that names one that is too long."""
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
    """A socket that listens. Raises `UserError` if the port is taken or the address is not this machine's.

    Of several `shared` ones at one port the system gives each its share of the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        place = socket.create_server((host, port), family=family, reuse_port=shared)
        # Connections inherit it. asyncio would set it only where the protocol is named, and without it the second part
        # of an answer waits for the first one's acknowledgement, which systems delay by 40 ms.
        place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return place
    except OSError as error:
        raise UserError(
            f"host = {host}, port = {port}: cannot listen there ({error.strerror or error}); give another port, or 0 "
            "for any that is free"
        ) from None


if __name__ == "__main__":
    exit_on_user_error(main)
