"""Collects experience: answers sampled from the policy, and all that was measured of them before it learns.

rollouts = sampler.collect(prompts, step)
stats = learner.step(rollouts)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from align.errors import UserError
from align.generation.sampling import Sampling, sample
from align.models.language import token_logprobs
from align.rewards.build import judge
from align.rl.kl import full_kl, kl_estimate
from align.rl.mismatch import Gap, check_gap, gap_limit, gap_over_processes
from align.rl.rollouts import Rollouts
from align.rl.shaping import Shaping
from align.text.batches import micro_batches
from align.text.encode import decode_answer
from align.text.ends import ends_of
from align.train.parallel import failing_together
from align.train.state import generator

if TYPE_CHECKING:
    from align.models.language import LanguageModel
    from align.models.scalar import ScalarModel
    from align.rewards.reward import Reward
    from align.rl.settings import Keys
    from align.text.records import Message


class Asked(NamedTuple):
    """A prompt, as turns and as tokens."""

    messages: tuple[Message, ...]
    ids: list[int]


class Roles(NamedTuple):
    """The models of a PPO run. Several may stand on one base; see `align/models/adapters.py`."""

    policy: LanguageModel
    reference: LanguageModel
    critic: ScalarModel | None  # none where answers to a prompt are compared with each other
    reward: Reward
    gold: Reward | None  # knows the truth; watched, never trained on


class Sampler:
    """Asks the policy, and measures its answers with every role."""

    def __init__(self, roles: Roles, tokenizer: Any, recipe: Keys, accelerator: Any) -> None:
        self.roles, self.tokenizer, self.accelerator = roles, tokenizer, accelerator
        self.rollout, self.kl, self.quantization = recipe.rollout, recipe.kl, recipe.model.quantization
        self._limit: float | None = None  # of the gap between sampler and trainer; from the first answers
        self.values_after_end = recipe.reward.score_at == "after_eos"
        self.shaping = Shaping(recipe.reward, tokenizer, accelerator)
        self.micro_batch_tokens, self.seed = recipe.train.micro_batch_tokens, recipe.seed

    def collect(self, asked: Sequence[Asked], step: int) -> Rollouts:
        """Answers to prompts, measured. What is sampled is a function of the policy, seed, step and process alone."""
        asked = self.repeated(asked)
        rollouts = self.measure(asked, self.sample(asked, step))
        self.check_gap(rollouts)
        return rollouts

    def repeated(self, asked: Sequence[Asked]) -> list[Asked]:
        """Each prompt as often as it is to be answered, side by side."""
        return [prompt for prompt in asked for _ in range(self.rollout.answers)]

    def sample(self, asked: Sequence[Asked], step: int, temperature: float | None = None) -> Rollouts:
        """An answer to each prompt from the policy as it is."""
        policy, settings = self.roles.policy, self.rollout
        how = Sampling(
            settings.max_tokens,
            settings.temperature if temperature is None else temperature,
            batch_tokens=settings.batch_tokens,
        )
        randomness = generator(self.accelerator.device, self.seed, step, self.accelerator.process_index)
        policy.eval()  # dropout stays off in every role, as in lm-human-preferences and N+ (item 18)
        ids = [prompt.ids for prompt in asked]
        ends = ends_of(self.tokenizer).ids
        with policy.active(), self.accelerator.autocast():
            answers = sample(policy.model, ids, how, ends, policy.never_sampled, randomness)
        longest = settings.max_tokens if self.values_after_end else None
        return Rollouts.of(ids, answers, self.accelerator.device, longest)

    @torch.no_grad()
    def measure(self, asked: Sequence[Asked], rollouts: Rollouts, remember: bool = True) -> Rollouts:
        """Log probabilities, KL, values and scores of answers; fills these fields of `rollouts` and returns it.

        `remember` says whether to learn from them: whether running statistics of the scores take them in. Others may
        have been sampled at another temperature than the one that log probabilities are wanted at.
        """
        with self.accelerator.autocast():
            rollouts.logprobs = rollouts.sampled_logprobs
            if self.rollout.logprobs == "recompute" or not remember:
                rollouts.logprobs = self._logprobs(self.roles.policy, rollouts)
            if remember:
                rollouts.gap = self._gap(rollouts)
            rollouts.reference_logprobs = self._logprobs(self.roles.reference, rollouts)
            rollouts.token_kl = self._token_kl(rollouts) * rollouts.mask
            rollouts.values = torch.zeros_like(rollouts.logprobs)
            if self.roles.critic is not None:
                rollouts.values = rollouts.for_each_state(self.roles.critic, self.micro_batch_tokens)
            self._score(asked, rollouts, remember)
        return rollouts

    @torch.no_grad()
    def check_leash(self, rollouts: Rollouts) -> None:
        """Before the first update the policy must be the reference: KL <= 1e-6 nats a token over the vocabulary.

        Looked at on the first micro-batch. Raises `UserError` with the reason.
        """
        rows = micro_batches(rollouts.lengths, self.micro_batch_tokens)[0]
        ids, is_answer = rollouts.part(rows)
        with self.accelerator.autocast():
            kl = float(full_kl(self.roles.policy(ids, is_answer), self.roles.reference(ids, is_answer)).mean())
        if not kl <= 1e-6:
            raise UserError(
                f"model.path: KL to the reference is {kl:.4g} nats a token before the first update; it must be 0. An "
                "adapter that is no start from zero, or a layer that answers differently each time, does that"
            )

    def check_gap(self, rollouts: Rollouts) -> None:
        """Raises `RewardError` if the policy that sampled is not the one that will learn, but for rounding."""
        if self._limit is None:
            self._limit = gap_limit(self.quantization, self.accelerator, self._logits(rollouts))
        check_gap(rollouts.gap, self._limit, self.roles.policy.model)

    @torch.no_grad()
    def _logits(self, rollouts: Rollouts) -> Tensor:
        """Of the sampled tokens of the first micro-batch, (n_tokens,)."""
        ids, is_answer = rollouts.part(micro_batches(rollouts.lengths, self.micro_batch_tokens)[0])
        with self.accelerator.autocast():
            logits = self.roles.policy(ids, is_answer)
        return logits.gather(-1, ids[is_answer][:, None])[:, 0].float() / self.rollout.temperature

    def _gap(self, rollouts: Rollouts) -> Gap:
        """Over all answers where their log probabilities are recomputed, else over the first micro-batch."""
        rows, logprobs = list(range(len(rollouts))), rollouts.logprobs[rollouts.mask]
        if self.rollout.logprobs == "sampled":
            rows = micro_batches(rollouts.lengths, self.micro_batch_tokens)[0]
            logprobs = logprob_function(self.roles.policy, self.rollout.temperature)(*rollouts.part(rows))
        return gap_over_processes(rollouts.gaps(logprobs, rows), self.accelerator)

    def _logprobs(self, model: LanguageModel, rollouts: Rollouts) -> Tensor:
        return rollouts.for_each_token(logprob_function(model, self.rollout.temperature), self.micro_batch_tokens)

    def _token_kl(self, rollouts: Rollouts) -> Tensor:
        if self.kl.estimator != "full":
            return kl_estimate(rollouts.logprobs, rollouts.reference_logprobs, self.kl.estimator)
        policy, reference, temperature = self.roles.policy, self.roles.reference, self.rollout.temperature
        return rollouts.for_each_token(
            lambda ids, is_answer: full_kl(
                policy(ids, is_answer).float() / temperature, reference(ids, is_answer).float() / temperature
            ),
            self.micro_batch_tokens,
        )

    def _score(self, asked: Sequence[Asked], rollouts: Rollouts, remember: bool) -> None:
        part = self.shaping.scored_part(rollouts)
        messages = [prompt.messages for prompt in asked]
        answers = [ids[len(prompt.ids) :] for prompt, ids in zip(asked, part.sequences, strict=True)]
        said = [decode_answer(self.tokenizer, ids, one.ids) for one, ids in zip(asked, answers, strict=True)]
        rollouts.texts, rollouts.thoughts = [one.text for one in said], [one.thoughts for one in said]
        read = [[] if one.thoughts else ids for one, ids in zip(said, part.sequences, strict=True)]
        gold: list[float] | None = None
        with failing_together(self.accelerator):
            scores, seen = judge(self.roles.reward, messages, rollouts.texts, read)
            if self.roles.gold is not None:
                gold = self.roles.gold.score(messages, rollouts.texts, read)
        rollouts.figures = {name: torch.tensor(values) for name, values in seen.items()}
        if gold is not None:
            rollouts.figures["objective/gold"] = torch.tensor(gold)
        raw = torch.tensor(scores, device=rollouts.ids.device)
        if self.shaping.moments is not None:
            rollouts.figures["objective/raw_scores"] = raw
        rollouts.scores = self.shaping.shape(raw, part, remember)


def logprob_function(model: Any, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """(ids, is_answer) -> log p of each answer token at the sampling temperature, (n_tokens,)."""
    return lambda ids, is_answer: token_logprobs(model(ids, is_answer), ids[is_answer], temperature)
