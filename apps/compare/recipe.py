"""Compare models side by side in a browser: all answer the same prompts.

    align compare recipes/compare_app.yaml

Without `arena` the app is only for this machine. With it, people log in with their accounts of a ranking-app project,
which also stores their votes; then the app can be served to others.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section
from apps.store.project import Addresses

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Sampling(Section):
    """Sampling settings: initial values on the page, fixed in the arena."""

    max_tokens: int = Field(128, gt=0)
    """Longest answer."""
    temperature: float = Field(1.0, ge=0, le=10)
    """0 takes the likeliest token."""
    top_k: int = Field(0, ge=0)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Keep the likeliest tokens that hold this much probability."""


class Queue(Section):
    """The queue of questions; one is answered at a time."""

    waiting: int = Field(8, ge=0)
    """Questions that may wait; more are refused."""
    per_person: int = Field(2, gt=0)
    """Questions of one person that may wait or be in progress; without accounts everybody counts as one person."""


class Recipe(Section):
    """Models side by side."""

    name: str = Field("Models side by side", min_length=1, max_length=100)
    """Title of the page."""
    models: dict[str, sections.ComparedModel]
    """Name: {path: ...}, two or more. All are loaded once, in this order."""
    reference: str | None = None
    """The reference model for KL; default: the model named sft, if there is one."""
    reward: str | None = None
    """A reward model; its score of each answer is shown."""
    sampling: Sampling = Sampling()
    most_tokens: int = Field(512, gt=0)
    """Largest max_tokens that the page can request."""
    conversation_tokens: int = Field(2048, gt=1)
    """Most tokens of a conversation including its last answer; never more than a model's positions."""
    seed: int = Field(1, ge=0, lt=2**53)
    """Initial seed on the page; the same for all models."""
    queue: Queue = Queue()
    arena: str | None = None
    """A project.yaml of the ranking app, such as recipes/arena.yaml. Its database has the votes and the accounts."""
    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1 is this machine only; any other needs `arena` for its accounts."""
    port: int = Field(7861, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and prints it."""
    origin: str | None = Field(None, pattern=r"^https?://[^/\s]+$")
    """The address that browsers use if the app is behind a proxy: https://compare.example.org."""
    trusted_proxies: Addresses = ()
    """Addresses or networks (172.16.0.0/12) of proxies on other machines. Their X-Forwarded-For header is trusted."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.models) < 2:
            raise ValueError(f"models: {len(self.models)} given; name at least two to compare")
        if unfit := [name for name in self.models if not name.strip() or len(name) > 60]:
            raise ValueError(f"models: {unfit[0]!r} is not a valid model name; give 1 to 60 characters")
        if self.reference is not None and self.reference not in self.models:
            raise ValueError(f"reference = {self.reference!r} is not one of the models: {', '.join(self.models)}")
        if self.sampling.max_tokens > self.most_tokens:
            raise ValueError(
                f"sampling.max_tokens = {self.sampling.max_tokens} is more than most_tokens, {self.most_tokens}"
            )
        if self.arena is None and (self.host not in LOOPBACK or self.proxies is not None):
            key = "host" if self.host not in LOOPBACK else "origin" if self.origin else "trusted_proxies"
            raise ValueError(f"{key} = {getattr(self, key)}: serving other machines needs accounts; set arena")
        return self

    @property
    def proxies(self) -> tuple[str, ...] | None:
        """Trusted proxies on other machines; None if there is no proxy."""
        return self.trusted_proxies if self.origin or self.trusted_proxies else None

    @property
    def kl_reference(self) -> str | None:
        """The reference model for KL, if there is one."""
        return self.reference or ("sft" if "sft" in self.models else None)
