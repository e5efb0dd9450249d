"""Recipe keys of judges. Imports nothing heavy, so that --help is quick."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from align.config import Section


class Llm(Section):
    """A language model at an OpenAI-compatible address. It compares two answers, in both orders."""

    url: str
    """Base address, without /chat/completions, such as http://127.0.0.1:8000/v1."""
    model: str
    """The model's name on the server."""
    key_env: str | None = None
    """Environment variable with the API key. The key itself is never in a file."""
    template: str = "data/prompts/judge.yaml"
    """Prompt template: a YAML file in the form of this one."""
    max_tokens: int = Field(1024, gt=0)
    """Longest reply in tokens; a model that thinks first needs more."""
    body: dict[str, Any] = Field(default_factory=dict)
    """More keys of a request, {seed: 1}; null removes a key: {max_tokens: null, max_completion_tokens: 4096}."""
    concurrency: int = Field(4, gt=0)
    """Number of concurrent requests."""
    timeout_s: float = Field(120.0, gt=0)
    """Timeout of a request, before a retry."""
    retries: int = Field(5, ge=0)
    """Retries while the server is down, slow or busy, after 0.5 s, 1 s, 2 s and so on."""

    @field_validator("url")
    @classmethod
    def _address(cls, given: str) -> str:
        if not given.startswith(("http://", "https://")):
            raise ValueError(f"url = {given!r} must begin with http:// or https://")
        return given.rstrip("/").removesuffix("/chat/completions")


class Judge(Section):
    """A judge of which answer is better. Give exactly one key."""

    function: str | None = None
    """module:function (prompt, answer) -> a score, or an object with .score and flags: align.lab.judge:judge."""
    reward_model: str | list[str] | None = None
    """A reward model: of align.rm, or a sequence classifier with one label; or a list of them (mean score)."""
    votes: str | None = None
    """Human rankings: the folder written by `align label export`, or a file of rankings."""
    llm: Llm | None = None
    """A language model as judge."""

    @property
    def kind(self) -> str:
        """The key that is given."""
        return next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in Judge.model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(Judge.model_fields)}; found {' and '.join(given) or 'none'}")
        if not getattr(self, given[0]):
            raise ValueError(f"{given[0]} is empty")
        return self
