"""Recipe keys of PPO: rollout, ppo, kl, ptx, evaluation. Imports no torch, so that --help is quick."""

from __future__ import annotations

from typing import Literal, Protocol, Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section
from align.rewards.settings import Reward


class Rollout(Section):
    """Sampling of answers."""

    max_tokens: int = Field(53, gt=0)
    """Longest answer (N+: 53)."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; all log probabilities use it too (InstructGPT: 1; N+: 0.7)."""
    batch_tokens: int = Field(65536, gt=0)
    """Tokens in the key-value cache at once. Changes memory and speed, not results."""
    logprobs: Literal["recompute", "sampled"] = "recompute"
    """recompute: log probabilities come from the forward pass of the update, so the first ratio is 1. sampled: they
    come from the sampler, which saves that pass and differs by rounding."""
    answers: int = Field(1, gt=0)
    """Answers per prompt; optim.batch_size counts answers. rloo and grpo compare them and need at least 2."""


class Ppo(Section):
    """PPO's updates."""

    n_epochs: int = Field(4, gt=0)
    """Epochs over each batch of answers (N+ item 27; InstructGPT: 1)."""
    n_minibatches: int = Field(1, gt=0)
    """Optimizer steps per epoch (N+: 1; InstructGPT: 8)."""
    clip_range: float = Field(0.2, gt=0)
    """Clip range of the policy's probability ratio."""
    dual_clip: float | None = Field(None, gt=1)
    """Bounds the loss of bad tokens whose ratio exceeds this (Ye et al., 1912.09729: 3); none: no bound."""
    value_clip_range: float | None = Field(0.2, gt=0)
    """Clip range of the change in values; none: no clipping."""
    entropy_coefficient: float = Field(0.0, ge=0)
    """Weight of the entropy bonus in the loss (lm-human-preferences, N+: none)."""
    target_kl: float | None = Field(None, gt=0)
    """Stops the epochs of a batch once policy/approxkl_avg (nats a token) exceeds this; none: never."""
    advantage: Literal["gae", "rloo", "grpo"] = "gae"
    """gae needs a critic; rloo (2402.14740) and grpo (2402.03300) compare the answers to a prompt instead."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount factor (InstructGPT: 1)."""
    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation."""
    whiten_advantages: bool | None = None
    """Scales advantages to mean 0 and variance 1 (N+ item 24). Default: only with gae, as published."""
    whiten_over: Literal["batch", "minibatch"] = "batch"
    """Whitening uses the statistics of the batch or minibatch over all processes (N+: batch, per process;
    lm-human-preferences: minibatch)."""
    value_learning_rate: float | None = Field(None, gt=0)
    """The critic's learning rate. Default: optim.learning_rate (InstructGPT: 9e-6)."""
    critic: str | None = None
    """Path of the model that the critic starts from: a reward model, or model.path with a head of zeros. Default: the
    first reward.path with the policy's tokenizer and a linear head, else model.path. trunk: a value head on the
    policy's trunk (lm-human-preferences)."""
    value_coefficient: float = Field(0.1, gt=0)
    """Weight of the value loss with critic: trunk (lm-human-preferences: 0.1)."""
    critic_warmup_steps: int = Field(0, ge=0)
    """Number of first steps in which only the critic learns."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the moving average of the policy's weights. The average is evaluated and saved (InstructGPT: 0.992)."""
    max_ratio: float = Field(10.0, gt=1)
    """Stops the run if a mini-batch's mean ratio exceeds this: the policy has diverged."""


class Kl(Section):
    """KL penalty that keeps the policy near the reference."""

    placement: Literal["reward", "loss"] = "reward"
    """Where the penalty applies: each token's reward (InstructGPT, N+), or a term of the loss (GRPO paper)."""
    estimator: Literal["k1", "k2", "k3", "full"] = "k1"
    """k1 = log pi/ref (InstructGPT, N+), k2 = k1^2 / 2, k3 (GRPO paper), or full: over the whole vocabulary."""
    controller: Literal["fixed", "adaptive"] = "fixed"
    """fixed coefficient (InstructGPT, N+), or adaptive (Ziegler et al.)."""
    coefficient: float = Field(0.05, ge=0)
    """beta; with adaptive, its start (N+: 0.05; InstructGPT: 0.02)."""
    target: float | None = Field(None, gt=0)
    """Target KL of an adaptive beta, in nats per answer (lm-human-preferences: 6)."""
    horizon: int | None = Field(None, gt=0)
    """Horizon of an adaptive beta, in episodes (lm-human-preferences: 10000)."""
    budget: float | None = Field(None, gt=0)
    """Ends and saves the run before the first update with a KL above this, in nats per answer."""
    reference_every: int | None = Field(None, gt=0)
    """Sets the reference to the current policy every so many steps; none: it stays the policy of step 0."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        given = self.target is not None or self.horizon is not None
        if self.controller == "fixed" and given:
            raise ValueError(
                "kl.target and kl.horizon have no effect with controller: fixed; remove them or choose adaptive"
            )
        if self.controller == "adaptive" and (self.target is None or self.horizon is None or self.coefficient == 0):
            raise ValueError("controller: adaptive needs kl.target, kl.horizon and a kl.coefficient above 0")
        if self.placement == "loss" and self.estimator == "k1":
            raise ValueError(
                "kl.estimator: k1 has a gradient of mean 0 in the loss, so it has no effect; "
                "choose k2, k3 or full, or placement: reward"
            )
        return self


class Ptx(Section):
    """PPO-ptx: pretraining gradients mixed into PPO's (InstructGPT, section 3.5)."""

    path: str
    """Documents or conversations, in any format that data.path takes."""
    kind: Literal["documents", "conversations"] = "documents"
    """documents: all tokens are trained on, packed as in pretraining; conversations: only the answers, as in sft."""
    coefficient: float = Field(27.8, gt=0)
    """gamma: weight of the mean loss per token, in nats (InstructGPT: 27.8)."""
    batch_size: int = Field(64, gt=0)
    """Rows of at most data.max_tokens tokens in each optimizer step (InstructGPT: 8 to an episode)."""


class Evaluation(Section):
    """Evaluation on held-out prompts (data.validation), every train.eval_every steps."""

    best: str | None = None
    """A metric such as eval/scores or eval/gold: the weights with its highest value are saved in best/."""
    samples: int = Field(8, ge=0)
    """Prompts whose answers are written to samples.jsonl."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature of these answers."""


class Keys(Protocol):
    """The part of a PPO recipe that this package reads; `align.ppo.Recipe` has it."""

    @property
    def model(self) -> sections.Model: ...
    @property
    def reward(self) -> Reward: ...
    @property
    def rollout(self) -> Rollout: ...
    @property
    def ppo(self) -> Ppo: ...
    @property
    def kl(self) -> Kl: ...
    @property
    def gold(self) -> str | None: ...
    @property
    def optim(self) -> sections.Optim: ...
    @property
    def train(self) -> sections.Train: ...
    @property
    def seed(self) -> int: ...
