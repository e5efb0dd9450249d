"""Recipe keys of a task. Imports nothing heavy, so that --help is quick.

tasks:
  gsm8k: {kind: generate, path: data/gsm8k.jsonl.gz, template: data/prompts/gsm8k.yaml, shots: [0, 4], limit: 200}
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from align.config import Section

Metric = Literal["per_token", "raw", "per_byte", "exact", "f1", "rouge_l"]

METRICS: dict[str, tuple[Metric, ...]] = {
    "choice": ("per_token", "raw", "per_byte"),
    "generate": ("exact", "f1", "rouge_l"),
    "perplexity": (),
}
BY_DEFAULT: dict[str, tuple[Metric, ...]] = METRICS | {"generate": ("exact", "f1")}

# Keys that only some kinds read.
ASKED = ("choice", "generate")
READ_BY: dict[str, tuple[str, ...]] = dict.fromkeys(("template", "examples", "shots", "metrics"), ASKED)
READ_BY |= dict.fromkeys(("max_tokens", "votes", "temperature"), ("generate",)) | {"stride": ("perplexity",)}


class Task(Section):
    """Questions with known answers, or texts to predict."""

    kind: Literal["choice", "generate", "perplexity"]
    """choice: the likeliest of several choices; generate: a generated answer; perplexity: likelihood of texts."""
    path: str
    """A file, folder or hub name: rows {question, choices, answer}, {question, answer} or {text}."""
    split: str = "test"
    """The split of a hub data set, or of a folder of several."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Maps our column names to the file's: {question: ctx}."""
    limit: int | None = Field(None, gt=0)
    """Use only the first so many rows."""
    template: str | None = None
    """Prompt template, such as data/prompts/gsm8k.yaml."""
    shots: list[int] = Field(default_factory=lambda: [0])
    """Numbers of solved examples before a question (few-shot); each number is a separate round."""
    examples: str | None = None
    """File with examples. Default: the rows of path after the first `limit`."""
    metrics: list[Metric] | None = Field(None, min_length=1)
    """Metrics; models are compared by the first. choice: per_token (GPT-3's), raw, per_byte; generate: exact,
    f1, rouge_l."""
    max_tokens: int = Field(256, gt=0)
    """Longest answer."""
    votes: int = Field(1, gt=0, le=1000)
    """Samples per question; the most frequent answer counts (self-consistency)."""
    temperature: float | None = Field(None, ge=0)
    """Sampling temperature. Default: 0 (greedy), or 0.7 with several votes (2203.11171)."""
    stride: int | None = Field(None, gt=0)
    """Tokens by which a window over a long text moves. Default: half of the window."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        for key, kinds in READ_BY.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].get_default(
                call_default_factory=True
            ):
                raise ValueError(f"{key} has no effect with kind: {self.kind}; leave it out")
        if self.kind != "perplexity" and self.template is None:
            raise ValueError("template is missing; give a prompt template, see data/prompts/")
        if wrong := [name for name in self.metrics or () if name not in METRICS[self.kind]]:
            raise ValueError(f"metrics: {wrong[0]} is none of {self.kind}; there are {', '.join(METRICS[self.kind])}")
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(f"votes: {self.votes} samples at temperature 0 are all equal; raise temperature")
        return self

    @model_validator(mode="after")
    def _shots(self) -> Self:
        if not self.shots or min(self.shots) < 0 or len(set(self.shots)) < len(self.shots):
            raise ValueError(f"shots = {self.shots}: give different numbers of at least 0")
        if max(self.shots) > 0 and self.examples is None and self.limit is None:
            raise ValueError(
                f"shots = {self.shots}: examples need rows of their own; give examples, a separate file, or limit, and "
                "the rows after it become examples"
            )
        return self

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The metrics; models are compared by the first."""
        return tuple(self.metrics or BY_DEFAULT[self.kind])
