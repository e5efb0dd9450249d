"""The recipe keys that align/rl reads: rollout, ppo, kl, ptx, evaluation. No torch: --help is quick."""

from __future__ import annotations

from typing import Literal, Protocol, Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section
from align.rewards.settings import Reward


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
    answers: int = Field(1, gt=0)
    """Answers to each prompt; optim.batch_size counts answers. rloo and grpo compare them, and need at least 2."""


class Ppo(Section):
    """The updates."""

    n_epochs: int = Field(4, gt=0)
    """Passes over each batch of answers (N+ item 27; InstructGPT: 1)."""
    n_minibatches: int = Field(1, gt=0)
    """Optimizer steps in a pass (N+: 1; InstructGPT: 8)."""
    clip_range: float = Field(0.2, gt=0)
    """Of the policy's ratio."""
    dual_clip: float | None = Field(None, gt=1)
    """Bounds the loss of bad answers that became likelier by this ratio (Ye et al., 1912.09729: 3); none: no bound."""
    value_clip_range: float | None = Field(0.2, gt=0)
    """Of the critic's change; none clips nothing."""
    entropy_coefficient: float = Field(0.0, ge=0)
    """Weight of the entropy bonus in the loss (lm-human-preferences, N+: none)."""
    target_kl: float | None = Field(None, gt=0)
    """Passes over a batch end once the policy has moved so far in it (policy/approxkl, nats a token); none: never."""
    advantage: Literal["gae", "rloo", "grpo"] = "gae"
    """gae needs a critic; rloo (2402.14740) and grpo (2402.03300) compare the answers to a prompt instead."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount (InstructGPT: none)."""
    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation."""
    whiten_advantages: bool | None = None
    """Advantages get mean 0 and variance 1 (N+ item 24); by default with gae only, as published."""
    whiten_over: Literal["batch", "minibatch"] = "batch"
    """What rewards and advantages are whitened over, all processes together (N+: batch, but each process by itself;
    lm-human-preferences: minibatch)."""
    value_learning_rate: float | None = Field(None, gt=0)
    """The critic's learning rate; optim.learning_rate if not given (InstructGPT: 9e-6)."""
    critic: str | None = None
    """What the critic starts from: a reward model, or the policy's start, to put a head of zeros on. By default the
    first of reward.path that has the policy's tokenizer and a linear head, else the policy's start. trunk: no model of
    its own, but a head on the policy's trunk (lm-human-preferences)."""
    value_coefficient: float = Field(0.1, gt=0)
    """Weight of the value loss where critic: trunk adds it to the policy's (lm-human-preferences: 0.1)."""
    critic_warmup_steps: int = Field(0, ge=0)
    """First steps in which only the critic learns."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an average of the policy's weights, which is then what is evaluated and saved (InstructGPT: 0.992)."""
    max_ratio: float = Field(10.0, gt=1)
    """A mean ratio beyond this in a mini-batch stops the run: the policy has diverged."""


class Kl(Section):
    """The leash to the reference."""

    placement: Literal["reward", "loss"] = "reward"
    """Where it is charged: in each token's reward (InstructGPT, N+), or as a term of the loss (grpo's paper)."""
    estimator: Literal["k1", "k2", "k3", "full"] = "k1"
    """k1 = log pi/ref (InstructGPT, N+), k2 its half square, k3 (grpo's paper), or full: over the whole vocabulary."""
    controller: Literal["fixed", "adaptive"] = "fixed"
    """fixed (InstructGPT, N+) or adaptive (Ziegler et al.)."""
    coefficient: float = Field(0.05, ge=0)
    """beta, or where an adaptive beta starts (N+: 0.05; InstructGPT: 0.02)."""
    target: float | None = Field(None, gt=0)
    """Nats an answer that an adaptive beta steers to (lm-human-preferences: 6)."""
    horizon: int | None = Field(None, gt=0)
    """Episodes over which it does (lm-human-preferences: 10000)."""
    budget: float | None = Field(None, gt=0)
    """The run ends, whole and saved, before the first update at which KL is beyond this, in nats an answer."""
    reference_every: int | None = Field(None, gt=0)
    """Steps after which the reference becomes the policy as it is; none keeps the policy of step 0."""

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
                "kl.estimator: k1 has a gradient of mean 0 in the loss and would hold nothing back; "
                "choose k2, k3 or full, or placement: reward"
            )
        return self


class Ptx(Section):
    """PPO-ptx: the pretraining gradient, mixed in (InstructGPT, section 3.5)."""

    path: str
    """Documents or conversations, in any format that data.path takes."""
    kind: Literal["documents", "conversations"] = "documents"
    """documents are learned whole, packed as in pretraining; of conversations the answers are, as in sft."""
    coefficient: float = Field(27.8, gt=0)
    """gamma: weight of the mean loss of a token, in nats, beside the policy's (InstructGPT: 27.8)."""
    batch_size: int = Field(64, gt=0)
    """Rows of at most data.max_tokens tokens in each optimizer step (InstructGPT: 8 to an episode)."""


class Evaluation(Section):
    """What is looked at on held-out prompts (data.validation), every train.eval_every steps."""

    best: str | None = None
    """A figure such as eval/scores or eval/gold: the weights at its height are also kept, in best/."""
    samples: int = Field(8, ge=0)
    """Prompts whose answers are written to samples.jsonl."""
    temperature: float = Field(1.0, ge=0)
    """Of these answers."""


class Keys(Protocol):
    """The part of a PPO recipe that this room reads; `align.ppo.Recipe` has it."""

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
