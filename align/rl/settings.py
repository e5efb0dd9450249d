"""The keys of a PPO recipe that align/rl reads: reward, rollout, ppo, kl. No torch here, so that --help is quick."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from align.config import Section


class Reward(Section):
    """Where scores come from: give path or function."""

    path: str | None = None
    """A reward model that align.rm trained."""
    function: str | None = None
    """module:function, called with (prompts, responses), returns a score for each."""
    missing_eos: float | None = -1.0
    """The score of an answer that never says EOS, whatever it says (N+ item 11); none keeps its own score."""
    clip: float | None = Field(None, gt=0)
    """Scores are clipped to +- this."""
    whiten: bool = False
    """Token rewards are scaled to variance 1, their mean kept (lm-human-preferences: true; N+: false)."""
    score_at: Literal["eos", "after_eos"] = "eos"
    """Which token gets the score: EOS, or the one after it as in N+'s code (item 20)."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.function is None):
            raise ValueError(f"give either reward.path or reward.function, found {self.path} and {self.function}")
        return self


class Rollout(Section):
    """How answers are sampled."""

    max_tokens: int = Field(53, gt=0)
    """Longest answer (N+: 53)."""
    temperature: float = Field(1.0, gt=0)
    """Of sampling, and of every log probability after it (InstructGPT: 1; N+: 0.7)."""
    batch_tokens: int = Field(65536, gt=0)
    """Tokens in the key-value cache at once. Changes memory and speed."""
    logprobs: Literal["recompute", "sampled"] = "recompute"
    """recompute the policy's log probabilities with the forward of the update, so that the first ratio is 1; or take
    the sampler's, which saves that pass and differs by rounding."""


class Ppo(Section):
    """The updates."""

    n_epochs: int = Field(4, gt=0)
    """Passes over each batch of answers (N+ item 27; InstructGPT: 1)."""
    n_minibatches: int = Field(1, gt=0)
    """Optimizer steps in a pass (N+: 1; InstructGPT: 8)."""
    clip_range: float = Field(0.2, gt=0)
    """Of the policy's ratio."""
    value_clip_range: float = Field(0.2, gt=0)
    """Of the critic's change."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount (InstructGPT: none)."""
    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation."""
    whiten_advantages: bool = True
    """Advantages get mean 0 and variance 1 over the batch (N+ item 24)."""
    value_learning_rate: float | None = Field(None, gt=0)
    """The critic's learning rate; optim.learning_rate if not given (InstructGPT: 9e-6)."""
    critic: str | None = None
    """What the critic starts from; reward.path if not given, else the policy's trunk with a fresh head."""
    max_ratio: float = Field(10.0, gt=1)
    """A mean ratio beyond this in a mini-batch stops the run: the policy has diverged."""


class Kl(Section):
    """The leash to the reference."""

    controller: Literal["fixed", "adaptive"] = "fixed"
    """fixed (InstructGPT, N+) or adaptive (Ziegler et al.)."""
    coefficient: float = Field(0.05, ge=0)
    """beta, or where an adaptive beta starts (N+: 0.05; InstructGPT: 0.02)."""
    target: float | None = Field(None, gt=0)
    """Nats an answer that an adaptive beta steers to (lm-human-preferences: 6)."""
    horizon: int | None = Field(None, gt=0)
    """Episodes over which it does (lm-human-preferences: 10000)."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        given = self.target is not None or self.horizon is not None
        if self.controller == "fixed" and given:
            raise ValueError(
                "kl.target and kl.horizon have no effect with controller: fixed; remove them or choose adaptive"
            )
        if self.controller == "adaptive" and (self.target is None or self.horizon is None or self.coefficient == 0):
            raise ValueError("controller: adaptive needs kl.target, kl.horizon and a kl.coefficient above 0")
        return self
