"""Models answer the same prompts side by side in a browser.

    python -m apps.compare recipes/compare_app.yaml

Without `arena` it is for the person at this machine. With it, votes between two models go to a project of the ranking
app, whose people log in; then it may be served to others too.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section
from apps.store.project import Addresses

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Sampling(Section):
    """How answers are drawn: what the page begins with, and what the arena keeps to."""

    max_tokens: int = Field(128, gt=0)
    """Longest answer."""
    temperature: float = Field(1.0, ge=0, le=10)
    """0 takes the likeliest token."""
    top_k: int = Field(0, ge=0)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Keep the likeliest tokens that hold this much probability."""


class Queue(Section):
    """Who answers whom: one question is answered at a time."""

    waiting: int = Field(8, ge=0)
    """Questions that may wait meanwhile; more are refused."""
    per_person: int = Field(2, gt=0)
    """Questions of one person that may wait or be answered; without accounts everybody is one person."""


class Recipe(Section):
    """Models side by side."""

    name: str = Field("Models side by side", min_length=1, max_length=100)
    """Told on the page."""
    models: dict[str, sections.ComparedModel]
    """Name: {path: ...}, two or more. All are loaded once, in this order."""
    reference: str | None = None
    """The model that KL is measured to; the one named sft if there is one."""
    reward: str | None = None
    """A reward model, whose score of each answer is shown."""
    sampling: Sampling = Sampling()
    most_tokens: int = Field(512, gt=0)
    """The longest answer that the page may ask for."""
    conversation_tokens: int = Field(2048, gt=1)
    """The most tokens of a conversation, its last answer included; no more than a model's positions in any case."""
    seed: int = Field(1, ge=0, lt=2**53)
    """What the page begins with; the same for all models."""
    queue: Queue = Queue()
    arena: str | None = None
    """A project.yaml of the ranking app, as recipes/arena.yaml: its database keeps the votes and the accounts."""
    host: str = "127.0.0.1"
    """The address to listen at: 127.0.0.1 is this machine alone. Any other needs `arena`, for its accounts."""
    port: int = Field(7861, ge=0, le=65535)
    """The port to listen at; 0 takes any that is free, and says which."""
    origin: str | None = Field(None, pattern=r"^https?://[^/\s]+$")
    """The address that browsers use, where the app stands behind a proxy: https://compare.example.org."""
    trusted_proxies: Addresses = ()
    """Addresses or networks, as 172.16.0.0/12, of a proxy on another machine: its X-Forwarded-For is believed."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.models) < 2:
            raise ValueError(f"models: {len(self.models)} given; name two or more, to compare them")
        if unfit := [name for name in self.models if not name.strip() or len(name) > 60]:
            raise ValueError(f"models: {unfit[0]!r} is no name for a model; give one of 1 to 60 characters")
        if self.reference is not None and self.reference not in self.models:
            raise ValueError(f"reference = {self.reference!r} is none of the models: {', '.join(self.models)}")
        if self.sampling.max_tokens > self.most_tokens:
            raise ValueError(
                f"sampling.max_tokens = {self.sampling.max_tokens} is more than most_tokens, {self.most_tokens}"
            )
        if self.arena is None and (self.host not in LOOPBACK or self.proxies is not None):
            key = "host" if self.host not in LOOPBACK else "origin" if self.origin else "trusted_proxies"
            raise ValueError(f"{key} = {getattr(self, key)}: others than this machine need accounts; give arena")
        return self

    @property
    def proxies(self) -> tuple[str, ...] | None:
        """The proxies of other machines that say who a request is from; None where no proxy stands in front."""
        return self.trusted_proxies if self.origin or self.trusted_proxies else None

    @property
    def kl_reference(self) -> str | None:
        """The model that KL is measured to, if there is one."""
        return self.reference or ("sft" if "sft" in self.models else None)
