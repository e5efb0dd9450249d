"""PPO's update: policy and critic learn from rollouts. `stats = learner.step(rollouts)`.

Schulman et al. 2017 (1707.06347) and Ziegler et al. 2019 (1909.08593); PPO-ptx and the average of the policy as in
InstructGPT (2203.02155). With `advantage: rloo` or `grpo` there is no critic, everything else is the same.
"""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.errors import UserError
from align.models.adapters import trained_parameters
from align.models.language import negative_log_likelihood, recomputing, token_logprobs
from align.rl.advantages import gae, grpo, rloo, token_rewards, whiten
from align.rl.kl import AdaptiveKL, FixedKL, KLController, full_kl, kl_estimate
from align.rl.losses import entropy, explained_variance, policy_loss, value_loss
from align.rl.mismatch import stated_limit
from align.text.batches import micro_batches
from align.train.optim import build_optimizer, learning_rate, set_learning_rate
from align.train.parallel import synced_at_last, total
from align.train.state import Stateful, Trainable, generator
from align.train.weights import Average

if TYPE_CHECKING:
    from align.rl.ptx import PtxRows
    from align.rl.rollouts import Rollouts
    from align.rl.sampler import Roles
    from align.rl.settings import Keys, Kl


class Learner:
    """Optimizers, KL controller, and all other state that changes from step to step; `parts` lists it."""

    def __init__(self, roles: Roles, recipe: Keys, n_steps: int, accelerator: Any, ptx: PtxRows | None = None) -> None:
        self.roles, self.recipe, self.n_steps, self.accelerator, self.ptx = roles, recipe, n_steps, accelerator, ptx
        self.summed = partial(total, accelerator)
        self.kl = make_kl(recipe.kl)
        self.policy, self.policy_optimizer = self._prepare(roles.policy)
        self.average = Average(roles.policy, recipe.ppo.ema) if recipe.ppo.ema else None
        self.critic: Any = None
        if roles.critic is not None:
            self.critic, self.critic_optimizer = self._prepare(roles.critic)
        self.n_done = 0  # steps

    def _prepare(self, role: Any) -> tuple[Any, Any]:
        """A role and its optimizer, prepared by `accelerate`. Only the role's own gradients are synchronised."""
        own = trained_parameters(role)
        role._ddp_params_and_buffers_to_ignore = [name for name, _ in role.named_parameters() if name not in own]
        return self.accelerator.prepare(role, build_optimizer(self.recipe.optim, role))

    @property
    def parts(self) -> dict[str, Stateful]:
        """The state that a checkpoint saves."""
        parts: dict[str, Stateful] = {
            "policy": Trainable(self.roles.policy),
            "policy_optimizer": self.policy_optimizer,
            "kl": self.kl,
        }
        if self.roles.critic is not None:
            parts |= {"critic": Trainable(self.roles.critic), "critic_optimizer": self.critic_optimizer}
        if self.average is not None:
            parts["average"] = self.average
        if self.recipe.kl.reference_every:
            parts["reference"] = MovingReference(self.roles.policy, self.roles.reference)
        return parts

    def averaged(self) -> Any:
        """Context manager: the policy has its averaged weights, if the recipe keeps an average."""
        return self.average.in_place() if self.average is not None else nullcontext()

    def step(self, rollouts: Rollouts, step: int | None = None) -> dict[str, float]:
        """One PPO step on a batch of answers: several epochs of mini-batches. Returns metrics for metrics.jsonl.

        `step` counts from 1 and decides learning rate and shuffling; the default is the next step.
        """
        step = self.n_done + 1 if step is None else step
        self.n_done = step
        rate = learning_rate(self.recipe.optim, step - 1, self.n_steps)
        self._set_learning_rates(rate)
        seen = self._seen(rollouts)
        updated = self._update(rollouts, step)
        self.kl.update(seen["objective/kl"], round(seen.pop("n_answers")))
        if self.average is not None:
            self.average.update()
        every = self.recipe.kl.reference_every
        if every and step % every == 0:
            MovingReference(self.roles.policy, self.roles.reference).copy_policy()
        return seen | updated | {"lr": rate}

    def _set_learning_rates(self, rate: float) -> None:
        settings, optim = self.recipe.ppo, self.recipe.optim
        set_learning_rate(self.policy_optimizer, rate)
        if self.critic is not None:
            scale = (settings.value_learning_rate or optim.learning_rate) / optim.learning_rate
            set_learning_rate(self.critic_optimizer, rate * scale)

    def _seen(self, rollouts: Rollouts) -> dict[str, float]:
        """Means over all answers of all processes."""
        beta, mask = self.kl.coefficient, rollouts.mask
        answer_kl = rollouts.token_kl.sum(1)
        columns = rollouts.figures | {
            "objective/kl": answer_kl,
            "objective/entropy": -(rollouts.logprobs * mask).sum(1),
            "objective/non_score_reward": -beta * answer_kl,
            "objective/rlhf_reward": rollouts.scores - beta * answer_kl,
            "objective/scores": rollouts.scores,
            "val/response_length": mask.sum(1),
            "val/ended": rollouts.ended,
        }
        figures = means(self.accelerator, columns) | {"objective/kl_coef": beta}
        if rollouts.gap is not None:
            figures |= {"rollout/logprob_gap_mean": rollouts.gap.mean, "rollout/logprob_gap_max": rollouts.gap.max}
        return figures

    def targets(self, rollouts: Rollouts, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Advantages of the tokens and returns of the states of these rows, (len(rows), time) each."""
        settings = self.recipe.ppo
        mask, states = rollouts.mask[rows], rollouts.states[rows]
        beta = self.kl.coefficient if self.recipe.kl.placement == "reward" else 0.0
        rewards = token_rewards(rollouts.scores[rows], rollouts.token_kl[rows], mask, beta, states)
        if self.recipe.reward.whiten:
            rewards = whiten(rewards, states, shift_mean=False, summed=self.summed)
        if settings.advantage == "gae":
            advantages, returns = gae(rewards, rollouts.values[rows], states, settings.gamma, settings.lam)
        else:
            compare = rloo if settings.advantage == "rloo" else grpo
            returns = rewards.sum(1)
            advantages = compare(returns, self.recipe.rollout.answers)[:, None] * mask
            returns = returns[:, None] * mask
        wanted = settings.advantage == "gae" if settings.whiten_advantages is None else settings.whiten_advantages
        return (whiten(advantages, mask, summed=self.summed) if wanted else advantages), returns

    def _update(self, rollouts: Rollouts, step: int) -> dict[str, float]:
        settings = self.recipe.ppo
        sums: dict[str, float] = defaultdict(float)
        everything = list(range(len(rollouts)))
        whole = self.targets(rollouts, everything)
        shuffle = generator("cpu", self.recipe.seed, step, self.accelerator.process_index, 1)
        n_updates = 0
        number = (
            (step - 1) * settings.n_epochs * settings.n_minibatches
        )  # optimizer steps before this one, if no epoch ended early
        for _ in range(settings.n_epochs):
            order = torch.randperm(len(rollouts), generator=shuffle)
            for part in order.tensor_split(settings.n_minibatches):
                rows = part.tolist()
                targets = whole[0][rows], whole[1][rows]
                if settings.whiten_over == "minibatch":
                    targets = self.targets(rollouts, rows)
                number, n_updates = number + 1, n_updates + 1
                figures = self._minibatch(rollouts, rows, *targets, number, step)
                for name, value in figures.items():
                    sums[name] += value
            if settings.target_kl is not None and figures.get("policy/approxkl_avg", 0.0) > settings.target_kl:
                break
        averages = {name: value / n_updates for name, value in sums.items()}
        averages["val/n_updates"] = n_updates
        if self.critic is not None:
            values, returns = rollouts.values[rollouts.states], whole[1][rollouts.states]
            averages["val/explained_variance"] = explained_variance(values, returns, self.summed)
        return averages

    def _minibatch(
        self, rollouts: Rollouts, rows: list[int], advantages: Tensor, returns: Tensor, number: int, step: int
    ) -> dict[str, float]:
        """Gradients of all losses on these rows, then one optimizer step for policy and critic."""
        micros = self._micro_batches(rollouts, rows)
        n_tokens = self.summed(rollouts.mask[rows].sum())[0]
        ppo = self.recipe.ppo
        warming_up = step <= ppo.critic_warmup_steps
        first = ppo.critic_warmup_steps * ppo.n_epochs * ppo.n_minibatches  # updates before the first one of the policy
        figures: dict[str, float] = {}
        if not warming_up:
            figures |= self._policy_gradient(rollouts, rows, micros, advantages, n_tokens)
            if self.ptx is not None:
                figures |= self._ptx_gradient(self.ptx, number)
        if self.critic is not None:
            n_states = self.summed(rollouts.states[rows].sum())[0]
            figures |= self._critic_gradient(rollouts, rows, micros, returns, n_states)
        if "val/ratio" in figures:
            check_ratio(figures["val/ratio"], self.recipe)
            if number == first + 1:
                self._check_first(figures["policy/approxkl_avg"])
            figures["policy/grad_norm"] = self._optimize(self.roles.policy, self.policy_optimizer)
        if self.critic is not None:
            figures["val/grad_norm"] = self._optimize(self.roles.critic, self.critic_optimizer)
            self.policy_optimizer.zero_grad()  # gradients of a shared trunk while only the critic learned
        return figures

    def _check_first(self, approx_kl: float) -> None:
        """Raise `UserError` if log ratios before the first update are not 0 up to rounding.

        approx_kl: the mean of half their squares. The mean ratio shows nothing: over sampled tokens it is 1 in
        expectation, however wrong the sampler is.
        """
        if self.recipe.rollout.logprobs == "sampled":  # `Sampler.check_gap` compares those with a training pass
            return
        gap, limit = math.sqrt(2 * approx_kl), stated_limit(self.recipe.model.quantization, self.accelerator)
        if not gap <= 2 * limit:  # a root mean square: a few large values raise it
            raise UserError(
                f"model.path: before the first update log probabilities differ by {gap:.3g} nats from those of the "
                f"samples; up to {2 * limit:g} is rounding. A layer is random in eval mode: take another model"
            )

    def _micro_batches(self, rollouts: Rollouts, rows: list[int]) -> list[list[int]]:
        """Positions in `rows`, grouped into micro-batches of similar length."""
        return micro_batches([rollouts.lengths[row] for row in rows], self.recipe.train.micro_batch_tokens)

    def _optimize(self, role: Any, optimizer: Any) -> float:
        own = trained_parameters(role).values()
        norm = self.accelerator.clip_grad_norm_(list(own), self.recipe.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return float(norm)

    def _policy_gradient(
        self, rollouts: Rollouts, rows: list[int], micros: list[list[int]], advantages: Tensor, n_tokens: float
    ) -> dict[str, float]:
        settings, kl, temperature = self.recipe.ppo, self.recipe.kl, self.recipe.rollout.temperature
        sums: dict[str, Any] = defaultdict(float)
        wanted = self.recipe.train.gradient_checkpointing
        with self.roles.policy.active(), recomputing(self.policy, wanted):
            for micro in synced_at_last(self.accelerator, self.policy, micros):
                picked = [rows[i] for i in micro]
                mask = rollouts.mask[picked]
                ids, is_answer = rollouts.part(picked)
                logits = self.policy(ids, is_answer)
                logprobs = token_logprobs(logits, ids[is_answer], temperature)
                parts = policy_loss(
                    logprobs,
                    rollouts.logprobs[picked][mask],
                    advantages[micro][mask],
                    settings.clip_range,
                    settings.dual_clip,
                )
                loss = parts.loss
                if settings.entropy_coefficient:
                    entropy_sum = entropy(logits.float() / temperature).sum()
                    loss = loss - settings.entropy_coefficient * entropy_sum
                    sums["policy/entropy_avg"] += entropy_sum.detach()
                if kl.placement == "loss":
                    reference = rollouts.reference_logprobs[picked][mask]
                    charged = self._kl_in_loss(logits, logprobs, ids, is_answer, reference)
                    loss = loss + self.kl.coefficient * charged.sum()
                    sums["loss/kl_avg"] += charged.detach().sum()
                self.accelerator.backward(loss * self.accelerator.num_processes / n_tokens)
                sums["loss/policy_avg"] += parts.loss.detach()
                sums["policy/approxkl_avg"] += parts.approx_kl
                sums["policy/clipfrac_avg"] += parts.clipped
                sums["val/ratio"] += parts.ratio
        return dict(zip(sums, (v / n_tokens for v in self.summed(*sums.values())), strict=True))

    def _kl_in_loss(
        self, logits: Tensor, logprobs: Tensor, ids: Tensor, is_answer: Tensor, reference: Tensor
    ) -> Tensor:
        """KL to the reference at each token, (n_tokens,), with a gradient."""
        if self.recipe.kl.estimator != "full":
            return kl_estimate(logprobs, reference, self.recipe.kl.estimator)
        temperature = self.recipe.rollout.temperature
        with torch.no_grad(), self.accelerator.autocast():
            others = self.roles.reference(ids, is_answer).float() / temperature
        return full_kl(logits.float() / temperature, others)

    def _ptx_gradient(self, ptx: PtxRows, number: int) -> dict[str, float]:
        """Add gamma times the gradient of the mean loss over pretraining tokens."""
        rows = ptx.of_update(number)[self.accelerator.process_index :: self.accelerator.num_processes]
        n_targets = self.summed(sum(sum(row.is_target[1:]) for row in rows))[0]
        nll_sum: Any = 0.0
        micros = micro_batches([len(row.ids) for row in rows], self.recipe.train.micro_batch_tokens)
        with self.roles.policy.active(), recomputing(self.policy, self.recipe.train.gradient_checkpointing):
            for micro in synced_at_last(self.accelerator, self.policy, micros):
                nll, _ = negative_log_likelihood(self.policy, [rows[i] for i in micro], self.accelerator.device)
                weight = ptx.settings.coefficient * self.accelerator.num_processes / n_targets
                self.accelerator.backward(nll * weight)
                nll_sum += nll.detach()
        return {"loss/ptx_avg": self.summed(nll_sum)[0] / n_targets}

    def _critic_gradient(
        self, rollouts: Rollouts, rows: list[int], micros: list[list[int]], returns: Tensor, n_states: float
    ) -> dict[str, float]:
        settings, role = self.recipe.ppo, self.roles.critic
        assert role is not None
        weight = settings.value_coefficient if role.borrows_trunk else 1.0
        loss: Any = 0.0
        clipped: Any = 0.0
        with role.active(), recomputing(self.critic, self.recipe.train.gradient_checkpointing):
            for micro in synced_at_last(self.accelerator, self.critic, micros):
                picked = [rows[i] for i in micro]
                states = rollouts.states[picked]
                parts = value_loss(
                    self.critic(*rollouts.states_part(picked)),
                    rollouts.values[picked][states],
                    returns[micro][states],
                    settings.value_clip_range,
                )
                self.accelerator.backward(parts.loss * weight * self.accelerator.num_processes / n_states)
                loss, clipped = loss + parts.loss.detach(), clipped + parts.clipped
        loss, clipped = (value / n_states for value in self.summed(loss, clipped))
        return {"loss/value_avg": loss, "val/clipfrac_avg": clipped}


class MovingReference:
    """A reference that is set to the policy every `kl.reference_every` steps. A `Stateful`."""

    def __init__(self, policy: Any, reference: Any) -> None:
        leaders = trained_parameters(policy)
        followers = dict(reference.named_parameters())
        names = {name: name.replace(f".{policy.adapter}.", f".{reference.adapter}.") for name in leaders}
        self.pairs = {name: (followers[names[name]], leader) for name, leader in leaders.items()}

    @torch.no_grad()
    def copy_policy(self) -> None:
        """Copy the policy's weights into the reference."""
        for mine, leader in self.pairs.values():
            mine.copy_(leader)

    def state_dict(self) -> dict[str, Any]:
        return {name: mine.detach() for name, (mine, _) in self.pairs.items()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, (mine, _) in self.pairs.items():
            mine.copy_(state_dict[name])


def make_kl(settings: Kl) -> KLController:
    """The KL controller of the recipe."""
    if settings.controller == "fixed":
        return FixedKL(settings.coefficient)
    return AdaptiveKL(settings.coefficient, float(settings.target or 0), int(settings.horizon or 0))


def means(accelerator: Any, columns: dict[str, Tensor]) -> dict[str, float]:
    """Mean of each (batch,) column over all answers of all processes, and their number as `n_answers`."""
    count = len(next(iter(columns.values())))
    *sums, n_answers = total(accelerator, *(column.sum() for column in columns.values()), count)
    return {name: value / n_answers for name, value in zip(columns, sums, strict=True)} | {"n_answers": n_answers}


def check_ratio(ratio: float, recipe: Keys) -> None:
    """Raise `UserError` if the policy has diverged; the last checkpoint is still good."""
    if not (math.isfinite(ratio) and ratio < recipe.ppo.max_ratio):
        raise UserError(
            f"the policy diverged: mean ratio {ratio:.4g} in a mini-batch; ppo.max_ratio is {recipe.ppo.max_ratio}. "
            "Lower optim.learning_rate or raise kl.coefficient; the last checkpoint is kept"
        )
