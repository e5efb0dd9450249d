"""Recipe keys of rewards and of the reward server. Imports no torch, so that --help is quick."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from align.config import Section

Ensemble = Literal["mean", "min", "mean_minus_std"]


class RewardModel(Section):
    """A reward model to score with."""

    path: str | list[str]
    """A reward model: of align.rm, or a sequence classifier with one label; or a list of them, an ensemble."""
    ensemble: Ensemble = "mean"
    """How an ensemble's scores are combined: mean, minimum, or mean minus uncertainty times their standard
    deviation."""
    uncertainty: float = Field(1.0, ge=0)
    """How many standard deviations mean_minus_std subtracts."""
    trust_remote_code: bool = False
    """Allows code in the model's folder to run. Read it first."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        if not self.path:
            raise ValueError("model.path is empty; give at least one reward model")
        if self.uncertainty != 1 and self.ensemble != "mean_minus_std":
            raise ValueError("model.uncertainty has no effect without ensemble: mean_minus_std")
        return self

    @property
    def paths(self) -> list[str]:
        """All model paths, as a list."""
        return listed(self.path)


class Source(Section):
    """One term of a sum of rewards. Give path, function or url."""

    path: str | list[str] | None = None
    """A reward model: of align.rm, or a sequence classifier with one label; or a list of them, an ensemble."""
    function: str | None = None
    """module:function, called with (prompts, responses), returns a score for each."""
    url: str | None = None
    """Where a reward server answers, such as http://127.0.0.1:8000/score (align.serve_rm)."""
    weight: float = 1.0
    """Factor of its scores; with 0 they are only logged."""
    name: str | None = None
    """Name in the metrics, objective/scores/<name>. Default: derived from path, function or url."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        check_one_source("a source", path=self.path, function=self.function, url=self.url)
        return self

    @property
    def label(self) -> str:
        """The name in the metrics."""
        if self.name is not None:
            return self.name
        if self.function is not None:
            return self.function.rpartition(":")[2]
        if self.url is not None:
            return self.url.split("://")[-1].split("/")[0]
        parts = [part for part in listed(self.path)[0].split("/") if part not in ("", "model")]
        return parts[-1] if parts else "model"


class Reward(Section):
    """Where scores come from, and how they are shaped. Give path, function, url or sources."""

    path: str | list[str] | None = None
    """A reward model: of align.rm, or a sequence classifier with one label; or a list of them, an ensemble."""
    function: str | None = None
    """module:function, called with (prompts, responses), returns a score for each."""
    url: str | None = None
    """Where a reward server answers, such as http://127.0.0.1:8000/score (align.serve_rm)."""
    sources: list[Source] | None = None
    """A weighted sum of rewards: [{path: ..., weight: 1}, {function: ..., weight: 0.1}]."""
    ensemble: Ensemble = "mean"
    """How an ensemble's scores are combined: mean, minimum, or mean minus uncertainty times their standard
    deviation (after Coste et al., 2310.02743, who subtract the variance)."""
    uncertainty: float = Field(1.0, ge=0)
    """How many standard deviations mean_minus_std subtracts."""
    timeout_s: float = Field(30.0, gt=0)
    """Timeout of a request to a reward server, before a retry."""
    retries: int = Field(5, ge=0)
    """Retries if a server is down, slow or busy, after 0.5 s, 1 s, 2 s and so on."""
    url_batch: int = Field(64, gt=0)
    """Answers per request."""
    normalize: Literal["none", "running"] = "none"
    """running divides scores by the standard deviation of all scores so far, this batch included."""
    normalize_mean: bool = True
    """Subtracts the mean too, with normalize: running."""
    clip: float | None = Field(None, gt=0)
    """Clips scores to +- this, after normalize."""
    length_penalty: float = Field(0.0, ge=0)
    """Penalty, after clip, for each token beyond length_free. EOS counts, as in val/response_length."""
    length_free: int = Field(0, ge=0)
    """Number of tokens without penalty."""
    missing_eos: float | None = -1.0
    """Score of an answer without EOS (N+ item 11); none: it keeps its own score."""
    min_tokens: int = Field(0, ge=0)
    """Answers with fewer tokens, EOS included, get the score missing_eos."""
    truncate_token: str | int | None = None
    """A token, as text or id. Answers are cut after it before scoring, and then count as ended;
    answers without it get the score missing_eos (lm-human-preferences: "." for books, "\\n" for summaries)."""
    truncate_after: int = Field(0, ge=0)
    """Number of first tokens in which truncate_token is ignored (lm-human-preferences: 16 and 55)."""
    whiten: bool = False
    """Scales token rewards to variance 1, with their mean unchanged (lm-human-preferences: true; N+: false)."""
    score_at: Literal["eos", "after_eos"] = "eos"
    """Position of the score: at EOS, or at the state after it, which the critic then values too (N+'s code, items
    20 and 25)."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        check_one_source("reward", path=self.path, function=self.function, url=self.url, sources=self.sources)
        labels = [source.label for source in self.sources or []]
        if doubled := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two of reward.sources are called {doubled[0]!r}; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        """Refuse keys without an effect."""
        no_model, no_server = not self.paths, not self.urls
        refused = {
            "ensemble has no effect without reward models; give reward.path": self.ensemble != "mean" and no_model,
            "uncertainty has no effect without ensemble: mean_minus_std": (
                self.uncertainty != 1 and self.ensemble != "mean_minus_std"
            ),
            "timeout_s, retries and url_batch have no effect without a reward server; give reward.url": (
                (self.timeout_s, self.retries, self.url_batch) != (30, 5, 64) and no_server
            ),
            "normalize_mean has no effect without normalize: running": (
                not self.normalize_mean and self.normalize == "none"
            ),
            "length_free has no effect without a length_penalty above 0": self.length_free > 0
            and self.length_penalty == 0,
            "min_tokens has no effect with missing_eos: none; set reward.missing_eos to a number": (
                self.min_tokens > 0 and self.missing_eos is None
            ),
            "truncate_after has no effect without a truncate_token": self.truncate_after > 0
            and self.truncate_token is None,
        }
        if found := [reason for reason, is_so in refused.items() if is_so]:
            raise ValueError("; ".join(f"reward.{reason}" for reason in found))
        return self

    @property
    def parts(self) -> list[Source]:
        """All sources, also if there is only one."""
        return self.sources or [Source(path=self.path, function=self.function, url=self.url)]

    @property
    def paths(self) -> list[str]:
        """All reward models to load. A critic may start from the first."""
        return [path for part in self.parts for path in listed(part.path)]

    @property
    def urls(self) -> list[str]:
        """All reward servers."""
        return [part.url for part in self.parts if part.url is not None]


def listed(path: str | list[str] | None) -> list[str]:
    """One path, several or none, as a list."""
    return path if isinstance(path, list) else [path] if path is not None else []


def check_one_source(of: str, **given: object) -> None:
    """Raise `ValueError` unless exactly one is given and not empty."""
    names = [f"reward.{name}" if of == "reward" else name for name in given]
    found = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None) or "none of them"
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(f"give either {' or '.join(names)}, found {found}")
    if not next(value for value in given.values() if value is not None):
        raise ValueError(f"{found} is empty; give at least one")
    url = given.get("url")
    if isinstance(url, str) and not url.startswith(("http://", "https://")):
        raise ValueError(f"url = {url!r} must begin with http:// or https://")


class Limits(Section):
    """Limits of a reward server."""

    items: int = Field(512, gt=0)
    """Most answers per request; more get status 413."""
    characters: int = Field(2_000_000, gt=0)
    """Most characters per request, prompts and answers together; more get status 413."""
    queue: int = Field(4096, gt=0)
    """Most answers in the queue; further requests get status 429."""

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        if self.queue < self.items:
            raise ValueError(f"limits.queue = {self.queue} is less than limits.items = {self.items}; raise it")
        return self


class Batching(Section):
    """How a reward server batches requests."""

    wait_ms: float = Field(5.0, ge=0)
    """How long a batch waits for more requests."""
    items: int = Field(256, gt=0)
    """A batch with this many answers does not wait."""
    tokens: int = Field(16384, gt=0)
    """Tokens per forward pass, padding included. Changes memory and speed."""
