"""The recipe keys of judges. Nothing heavy is imported: --help is quick."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from align.config import Section


class Llm(Section):
    """A language model at an OpenAI-compatible address, which reads both answers in both orders."""

    url: str
    """The address that /chat/completions follows, such as http://127.0.0.1:8000/v1."""
    model: str
    """The model's name there."""
    key_env: str | None = None
    """The environment variable that holds the key. The key itself stands in no file."""
    template: str = "data/prompts/judge.yaml"
    """How it is asked: a file like this one."""
    max_tokens: int = Field(1024, gt=0)
    """Longest reply; a model that thinks first needs more."""
    body: dict[str, Any] = Field(default_factory=dict)
    """More keys of a request, {seed: 1}; null leaves one out: {max_tokens: null, max_completion_tokens: 4096}."""
    concurrency: int = Field(4, gt=0)
    """Requests under way at once."""
    timeout_s: float = Field(120.0, gt=0)
    """How long it may take for a reply before it is asked again."""
    retries: int = Field(5, ge=0)
    """How often it is asked again while it is down, slow or busy, after 0.5 s, 1 s, 2 s and so on."""

    @field_validator("url")
    @classmethod
    def _address(cls, given: str) -> str:
        if not given.startswith(("http://", "https://")):
            raise ValueError(f"url = {given!r}: an address begins with http:// or https://")
        return given.rstrip("/").removesuffix("/chat/completions")


class Judge(Section):
    """Who says which answer is better: give one of these."""

    function: str | None = None
    """module:function (prompt, answer) -> a score, or an object with .score and flags; as align.lab.judge:judge."""
    reward_model: str | list[str] | None = None
    """A reward model: of align.rm, or a sequence classifier with one label; or a list of them, whose mean counts."""
    votes: str | None = None
    """People's: the folder that `apps.label export` wrote, or a file of rankings."""
    llm: Llm | None = None
    """Another language model."""

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in Judge.model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(Judge.model_fields)}; found {' and '.join(given) or 'none'}")
        if not getattr(self, given[0]):
            raise ValueError(f"{given[0]} is empty")
        return self
