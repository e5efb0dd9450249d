"""TRL's definitions where they differ from ours, each as a rule that our learner can follow.

With all rules our numbers must equal TRL's. Without one of them, any difference is due to that rule. README.md lists
each rule with its place in TRL's source.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from work import COMMON, Case

from align.rl.advantages import gae, masked_mean, token_rewards, whiten
from align.rl.learner import Learner
from align.rl.losses import entropy
from align.rl.rollouts import Rollouts
from align.rl.sampler import EncodedPrompt


@dataclass(frozen=True)
class Rules:
    """True: TRL's definition; False: ours."""

    eos_ends_nothing: bool = True
    pad_has_probability: bool = True
    penalty_is_subtracted: bool = True
    state_after_the_end: bool = True
    whitening_is_unbiased: bool = True
    micro_batches_count_alike: bool = True
    one_step_a_pass: bool = True
    more_steps_in_the_last_batch: bool = True
    critic_is_scaled: bool = True
    gradients_are_not_clipped: bool = True
    head_has_no_bias: bool = True
    figures_count_padding: bool = True
    figures_count_empty_places: bool = True

    def without(self, name: str) -> Rules:
        """All of these but one."""
        return replace(self, **{name: False})


NAMES = [field.name for field in fields(Rules)]
NONE = Rules(*[False] * len(NAMES))


class Batch(NamedTuple):
    """TRL's rollouts of one update as ours, in as many columns as TRL has."""

    asked: list[EncodedPrompt]
    rollouts: Rollouts
    raw: Tensor  # (batch, context + time): TRL's own tensor of queries and responses
    orders: list[list[int]]  # of the rows, pass by pass
    ends_the_data: bool  # the last batch of a pass over the prompts


class RuledLearner(Learner):
    """Our learner under some of TRL's rules, on `batch`, with its rows in TRL's order."""

    rules: Rules
    case: Case
    pad: int
    batch: Batch

    def targets(self, rollouts: Rollouts, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Advantages and returns; here always of the whole batch."""
        settings = self.recipe.ppo
        standing = whiten_unbiased if self.rules.whitening_is_unbiased else whiten
        states = rollouts.states
        rewards = token_rewards(rollouts.scores, rollouts.token_kl, rollouts.mask, self.kl.coefficient, states)
        if self.recipe.reward.whiten:
            rewards = standing(rewards, states, shift_mean=False)
        advantages, returns = gae(rewards, rollouts.values, states, settings.gamma, settings.lam)
        return standing(advantages, rollouts.mask), returns

    def _update(self, rollouts: Rollouts, step: int) -> dict[str, float]:
        advantages, returns = self.targets(rollouts, list(range(len(rollouts))))
        sums: dict[str, float] = defaultdict(float)
        n_parts = n_updates = 0
        for order in self.batch.orders:
            for parts in self._steps(order):
                share = 1 / (self._n_accumulated if self._steps_more else len(parts))
                for rows in parts:
                    for name, value in self._gradients(rollouts, rows, advantages[rows], returns[rows], share).items():
                        sums[name] += value
                    n_parts += 1
                self._optimize(self.roles.policy, self.policy_optimizer)
                self._optimize(self.roles.critic, self.critic_optimizer)
                n_updates += 1
        if self.rules.figures_count_empty_places and self._n_accumulated > 1:
            n_parts *= self.case.num_mini_batches
        return {name: value / n_parts for name, value in sums.items()} | {"val/n_updates": n_updates}

    @property
    def _n_accumulated(self) -> int:
        """Micro-batches of which TRL adds up the gradients before a step."""
        return self.recipe.optim.batch_size // self.case.micro_batch_size

    @property
    def _steps_more(self) -> bool:
        """Whether every micro-batch is its own step, with the weight of a part of the step."""
        return self.rules.more_steps_in_the_last_batch and self.batch.ends_the_data and self._n_accumulated > 1

    def _steps(self, order: list[int]) -> list[list[list[int]]]:
        """The optimizer steps of a pass: of each the parts whose mean losses are averaged, of each part its rows."""
        size, n_minibatches = self.case.micro_batch_size, self.case.num_mini_batches
        if self._steps_more:
            return [[rows] for rows in split(order, size)]
        one_step = self.rules.one_step_a_pass and self._n_accumulated > 1
        steps = [order] if one_step else split(order, len(order) // n_minibatches)
        return [split(rows, size) if self.rules.micro_batches_count_alike else [rows] for rows in steps]

    def _gradients(
        self, rollouts: Rollouts, rows: list[int], advantages: Tensor, returns: Tensor, share: float
    ) -> dict[str, float]:
        """Adds `share` of the gradients of these rows' mean losses. Returns their figures."""
        rules = self.rules
        n_tokens, n_states = int(rollouts.mask[rows].sum()), int(rollouts.states[rows].sum())
        micros = self._micro_batches(rollouts, rows)
        found = self._policy_gradient(rollouts, rows, micros, advantages, n_tokens / share)
        figures = {name: value / share for name, value in found.items()}
        weight = share * (self.case.settings["vf_coef"] if rules.critic_is_scaled else 1.0)
        found = self._critic_gradient(rollouts, rows, micros, returns, n_states / weight)
        figures |= {name: value / weight for name, value in found.items()}
        if rules.figures_count_padding:
            filled = n_tokens / rollouts.mask[rows].numel()
            figures["policy/approxkl_avg"] *= filled
            figures["val/ratio"] = figures["val/ratio"] * filled + 1 - filled
            figures["policy/entropy_avg"] = self._entropy_everywhere(rows)
        return figures

    @torch.no_grad()
    def _entropy_everywhere(self, rows: list[int]) -> float:
        """The mean entropy over all columns of the responses, also after an answer's end, in TRL's layout."""
        ids = self.batch.raw[rows]
        is_token = ids != self.pad
        logits = self.roles.policy.model(
            input_ids=ids.masked_fill(~is_token, 0),
            attention_mask=is_token,
            position_ids=is_token.cumsum(1) - is_token.long(),
        ).logits[:, -self.batch.rollouts.mask.shape[1] - 1 : -1]
        return float(entropy(logits / COMMON["temperature"]).mean())


def whiten_unbiased(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """As `whiten`, with the variance divided by n - 1."""
    n = mask.sum()
    whitened = whiten(values, mask) * ((n - 1) / n).sqrt()
    return whitened if shift_mean else torch.where(mask, whitened + masked_mean(values, mask), 0.0)


def split(rows: list[int], size: int) -> list[list[int]]:
    """Consecutive parts of `size` rows."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]
