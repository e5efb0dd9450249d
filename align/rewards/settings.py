"""The recipe keys of rewards: where scores come from, and a reward server. No torch: --help is quick."""

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
    """What counts of an ensemble's scores: their mean, the lowest, or the mean less uncertainty times their standard
    deviation."""
    uncertainty: float = Field(1.0, ge=0)
    """How many standard deviations mean_minus_std subtracts."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run. Read it first."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        if not self.path:
            raise ValueError("model.path is empty; name at least one reward model")
        if self.uncertainty != 1 and self.ensemble != "mean_minus_std":
            raise ValueError("model.uncertainty: it counts with ensemble: mean_minus_std")
        return self

    @property
    def paths(self) -> list[str]:
        """The members of an ensemble, or the one model."""
        return listed(self.path)


class Source(Section):
    """One of several rewards that are added up: give path, function or url."""

    path: str | list[str] | None = None
    """A reward model: of align.rm, or a sequence classifier with one label; or a list of them, an ensemble."""
    function: str | None = None
    """module:function, called with (prompts, responses), returns a score for each."""
    url: str | None = None
    """Where a reward server answers, such as http://127.0.0.1:8000/score (align.serve_rm)."""
    weight: float = 1.0
    """Its scores are multiplied by this; 0 has them logged and nothing else."""
    name: str | None = None
    """What its mean is logged under, objective/scores/<name>; made of path, function or url if not given."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        check_one_source("a source", path=self.path, function=self.function, url=self.url)
        return self

    @property
    def label(self) -> str:
        """The name that it is logged under."""
        if self.name is not None:
            return self.name
        if self.function is not None:
            return self.function.rpartition(":")[2]
        if self.url is not None:
            return self.url.split("://")[-1].split("/")[0]
        parts = [part for part in listed(self.path)[0].split("/") if part not in ("", "model")]
        return parts[-1] if parts else "model"


class Reward(Section):
    """Where scores come from, and what is made of them: give path, function, url or sources."""

    path: str | list[str] | None = None
    """A reward model: of align.rm, or a sequence classifier with one label; or a list of them, an ensemble."""
    function: str | None = None
    """module:function, called with (prompts, responses), returns a score for each."""
    url: str | None = None
    """Where a reward server answers, such as http://127.0.0.1:8000/score (align.serve_rm)."""
    sources: list[Source] | None = None
    """Several of these, [{path: ..., weight: 1}, {function: ..., weight: 0.1}], whose weighted scores are added."""
    ensemble: Ensemble = "mean"
    """What counts of an ensemble's scores: their mean, the lowest, or the mean less uncertainty times their standard
    deviation (after Coste et al., 2310.02743, who subtract the variance)."""
    uncertainty: float = Field(1.0, ge=0)
    """How many standard deviations mean_minus_std subtracts."""
    timeout_s: float = Field(30.0, gt=0)
    """How long a reward server may take for a request before it is asked again."""
    retries: int = Field(5, ge=0)
    """How often a server that is down, slow or busy is asked again, after 0.5 s, 1 s, 2 s and so on."""
    url_batch: int = Field(64, gt=0)
    """Answers in one request."""
    normalize: Literal["none", "running"] = "none"
    """running divides scores by their standard deviation over all answers so far, this batch included."""
    normalize_mean: bool = True
    """Whether running also subtracts their mean."""
    clip: float | None = Field(None, gt=0)
    """Scores are clipped to +- this, after normalize."""
    length_penalty: float = Field(0.0, ge=0)
    """Subtracted, after clip, for each token of an answer beyond length_free. EOS counts, as in val/response_length."""
    length_free: int = Field(0, ge=0)
    """Tokens that cost nothing."""
    missing_eos: float | None = -1.0
    """The score of an answer that never says EOS, whatever it says (N+ item 11); none keeps its own score."""
    min_tokens: int = Field(0, ge=0)
    """An answer with fewer tokens, EOS counted, gets the score missing_eos."""
    truncate_token: str | int | None = None
    """A text that is one token, or its number. Answers are cut after it before they are scored, and so count as ended;
    without it they get the score missing_eos (lm-human-preferences: "." for books, "\\n" for summaries)."""
    truncate_after: int = Field(0, ge=0)
    """Tokens of an answer in which truncate_token is not looked for (lm-human-preferences: 16 and 55)."""
    whiten: bool = False
    """Token rewards are scaled to variance 1, their mean kept (lm-human-preferences: true; N+: false)."""
    score_at: Literal["eos", "after_eos"] = "eos"
    """Where the score stands: at EOS, or in the state after it, which the critic then values as well (N+'s code, items
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
        """A key that would do nothing is a mistake."""
        no_model, no_server = not self.paths, not self.urls
        refused = {
            "ensemble: an ensemble is of reward models; give reward.path": self.ensemble != "mean" and no_model,
            "uncertainty: it counts with ensemble: mean_minus_std": (
                self.uncertainty != 1 and self.ensemble != "mean_minus_std"
            ),
            "timeout_s, retries and url_batch: they are for reward servers; give reward.url": (
                (self.timeout_s, self.retries, self.url_batch) != (30, 5, 64) and no_server
            ),
            "normalize_mean: it counts with normalize: running": (not self.normalize_mean and self.normalize == "none"),
            "length_free: it counts with a length_penalty above 0": self.length_free > 0 and self.length_penalty == 0,
            "min_tokens: a shorter answer gets the score missing_eos, which is none; give it a number": (
                self.min_tokens > 0 and self.missing_eos is None
            ),
            "truncate_after: it counts with a truncate_token": self.truncate_after > 0 and self.truncate_token is None,
        }
        if told := [reason for reason, is_so in refused.items() if is_so]:
            raise ValueError("; ".join(f"reward.{reason}" for reason in told))
        return self

    @property
    def parts(self) -> list[Source]:
        """The sources, also where there is but one."""
        return self.sources or [Source(path=self.path, function=self.function, url=self.url)]

    @property
    def paths(self) -> list[str]:
        """Every reward model that is loaded here, the first one being what a critic may start from."""
        return [path for part in self.parts for path in listed(part.path)]

    @property
    def urls(self) -> list[str]:
        """Every reward server."""
        return [part.url for part in self.parts if part.url is not None]


def listed(path: str | list[str] | None) -> list[str]:
    """One path, several or none, as a list."""
    return path if isinstance(path, list) else [path] if path is not None else []


def check_one_source(of: str, **given: object) -> None:
    """Raises `ValueError` unless exactly one is given, and something stands in it."""
    names = [f"reward.{name}" if of == "reward" else name for name in given]
    found = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None) or "none of them"
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(f"give either {' or '.join(names)}, found {found}")
    if not next(value for value in given.values() if value is not None):
        raise ValueError(f"{found} is empty; name at least one")
    url = given.get("url")
    if isinstance(url, str) and not url.startswith(("http://", "https://")):
        raise ValueError(f"url = {url!r}: an address begins with http:// or https://")


class Limits(Section):
    """What a reward server takes."""

    items: int = Field(512, gt=0)
    """Answers in one request; more are refused with status 413."""
    characters: int = Field(2_000_000, gt=0)
    """Characters in one request, prompts and answers together; more are refused with status 413."""
    queue: int = Field(4096, gt=0)
    """Answers that may wait to be scored; requests beyond them are refused with status 429."""

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        if self.queue < self.items:
            raise ValueError(f"limits.queue = {self.queue} is less than limits.items = {self.items}; raise it")
        return self


class Batching(Section):
    """How a reward server puts requests together."""

    wait_ms: float = Field(5.0, ge=0)
    """How long the first request of a batch waits for others."""
    items: int = Field(256, gt=0)
    """A batch that has this many answers does not wait for more."""
    tokens: int = Field(16384, gt=0)
    """Tokens, padding included, that go through a model at once. Changes memory and speed."""
