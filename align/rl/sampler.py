"""PPO's rollouts: answers sampled from the policy, with log probabilities, KL, values and scores.

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
from align.rewards.build import detailed_scores
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


class EncodedPrompt(NamedTuple):
    """A prompt as messages and as tokens."""

    messages: tuple[Message, ...]
    ids: list[int]


class Roles(NamedTuple):
    """The models of a PPO run. Several may share one base; see `align/models/adapters.py`."""

    policy: LanguageModel
    reference: LanguageModel
    critic: ScalarModel | None  # None with rloo and grpo
    reward: Reward
    gold: Reward | None  # the true score; logged, never trained on


class Sampler:
    """Samples answers from the policy and measures them with every role."""

    def __init__(self, roles: Roles, tokenizer: Any, recipe: Keys, accelerator: Any) -> None:
        self.roles, self.tokenizer, self.accelerator = roles, tokenizer, accelerator
        self.rollout, self.kl, self.quantization = recipe.rollout, recipe.kl, recipe.model.quantization
        self._limit: float | None = None  # of the sampler-trainer gap; set from the first answers
        self.values_after_end = recipe.reward.score_at == "after_eos"
        self.shaping = Shaping(recipe.reward, tokenizer, accelerator)
        self.micro_batch_tokens, self.seed = recipe.train.micro_batch_tokens, recipe.seed

    def collect(self, prompts: Sequence[EncodedPrompt], step: int) -> Rollouts:
        """Sample and measure answers. What is sampled depends on the policy, seed, step and process alone."""
        prompts = self.repeated(prompts)
        rollouts = self.measure(prompts, self.sample(prompts, step))
        self.check_gap(rollouts)
        return rollouts

    def repeated(self, prompts: Sequence[EncodedPrompt]) -> list[EncodedPrompt]:
        """Each prompt repeated `rollout.answers` times, adjacent."""
        return [prompt for prompt in prompts for _ in range(self.rollout.answers)]

    def sample(self, prompts: Sequence[EncodedPrompt], step: int, temperature: float | None = None) -> Rollouts:
        """One answer to each prompt from the current policy."""
        policy, settings = self.roles.policy, self.rollout
        how = Sampling(
            settings.max_tokens,
            settings.temperature if temperature is None else temperature,
            batch_tokens=settings.batch_tokens,
        )
        rng = generator(self.accelerator.device, self.seed, step, self.accelerator.process_index)
        policy.eval()  # dropout stays off in every role, as in lm-human-preferences and N+ (item 18)
        ids = [prompt.ids for prompt in prompts]
        ends = ends_of(self.tokenizer).ids
        with policy.active(), self.accelerator.autocast():
            answers = sample(policy.model, ids, how, ends, policy.never_sampled, rng)
        longest = settings.max_tokens if self.values_after_end else None
        return Rollouts.of(ids, answers, self.accelerator.device, longest)

    @torch.no_grad()
    def measure(self, prompts: Sequence[EncodedPrompt], rollouts: Rollouts, remember: bool = True) -> Rollouts:
        """Fill in log probabilities, KL, values and scores of `rollouts`, and return it.

        `remember` is true for answers that will be trained on: running statistics of the scores include them. Others
        may have been sampled at another temperature, so their log probabilities are recomputed.
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
            self._score(prompts, rollouts, remember)
        return rollouts

    @torch.no_grad()
    def check_reference(self, rollouts: Rollouts) -> None:
        """Raise `UserError` unless policy and reference agree before the first update.

        KL over the vocabulary must be at most 1e-6 nats a token, on the first micro-batch.
        """
        rows = micro_batches(rollouts.lengths, self.micro_batch_tokens)[0]
        ids, is_answer = rollouts.part(rows)
        with self.accelerator.autocast():
            kl = float(full_kl(self.roles.policy(ids, is_answer), self.roles.reference(ids, is_answer)).mean())
        if not kl <= 1e-6:
            raise UserError(
                f"model.path: KL to the reference is {kl:.4g} nats a token before the first update; it must be 0. The "
                "adapter does not start from zero, or a layer is random in eval mode: take another model"
            )

    def check_gap(self, rollouts: Rollouts) -> None:
        """Raise `RewardError` if sampler and trainer differ by more than rounding; see `align/rl/mismatch.py`."""
        if self._limit is None:
            self._limit = gap_limit(self.quantization, self.accelerator, self._logits(rollouts))
        check_gap(rollouts.gap, self._limit, self.roles.policy.model)

    @torch.no_grad()
    def _logits(self, rollouts: Rollouts) -> Tensor:
        """Logits of the sampled tokens of the first micro-batch, (n_tokens,)."""
        ids, is_answer = rollouts.part(micro_batches(rollouts.lengths, self.micro_batch_tokens)[0])
        with self.accelerator.autocast():
            logits = self.roles.policy(ids, is_answer)
        return logits.gather(-1, ids[is_answer][:, None])[:, 0].float() / self.rollout.temperature

    def _gap(self, rollouts: Rollouts) -> Gap:
        """The gap over all answers if log probabilities are recomputed, else over the first micro-batch."""
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

    def _score(self, prompts: Sequence[EncodedPrompt], rollouts: Rollouts, remember: bool) -> None:
        part = self.shaping.scored_part(rollouts)
        messages = [prompt.messages for prompt in prompts]
        answers = [ids[len(prompt.ids) :] for prompt, ids in zip(prompts, part.sequences, strict=True)]
        decoded = [decode_answer(self.tokenizer, ids, one.ids) for one, ids in zip(prompts, answers, strict=True)]
        rollouts.texts, rollouts.thoughts = [one.text for one in decoded], [one.thoughts for one in decoded]
        ids_to_score = [[] if one.thoughts else ids for one, ids in zip(decoded, part.sequences, strict=True)]
        gold: list[float] | None = None
        with failing_together(self.accelerator):
            scores, details = detailed_scores(self.roles.reward, messages, rollouts.texts, ids_to_score)
            if self.roles.gold is not None:
                gold = self.roles.gold.score(messages, rollouts.texts, ids_to_score)
        rollouts.figures = {name: torch.tensor(values) for name, values in details.items()}
        if gold is not None:
            rollouts.figures["objective/gold"] = torch.tensor(gold)
        raw = torch.tensor(scores, device=rollouts.ids.device)
        if self.shaping.moments is not None:
            rollouts.figures["objective/raw_scores"] = raw
        rollouts.scores = self.shaping.shape(raw, part, remember)


def logprob_function(model: Any, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """(ids, is_answer) -> log p of each answer token at the sampling temperature, (n_tokens,)."""
    return lambda ids, is_answer: token_logprobs(model(ids, is_answer), ids[is_answer], temperature)
