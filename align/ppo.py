"""PPO: the policy learns what the reward model prefers, on a leash to where it began (InstructGPT step 3, 2203.02155).

    python -m align.ppo recipes/ppo.yaml

Each step samples an answer to every prompt of a batch, scores it, pays for leaving the reference (the SFT model) with
KL at every token, and improves policy and critic by several passes of clipped updates (Schulman et al. 2017,
1707.06347; Ziegler et al. 2019, 1909.08593). What differs between the published codes is a key here, and each default
names its source.
"""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import model_validator

from align import sections
from align.config import DryRun, parse_training
from align.errors import UserError, exit_on_user_error
from align.rl.settings import Kl, Ppo, Reward, Rollout

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from align.models.language import LanguageModel
    from align.models.scalar import ScalarModel
    from align.rl.kl import KLController
    from align.rl.rewards import Reward as RewardSource
    from align.rl.rollouts import Rollouts
    from align.text.records import Message, Prompt


class Recipe(sections.Run):
    """PPO. Defaults are N+'s (the reproduction of Stiennon et al. 2020), unless a key says otherwise."""

    model: sections.Model
    """The policy to start from, and the reference."""
    data: sections.Data = sections.Data.defaults(too_long="drop", validation=0.0)
    reward: Reward
    rollout: Rollout = Rollout()
    ppo: Ppo = Ppo()
    kl: Kl = Kl()
    gold: str | None = None
    """module:function that knows the truth, such as align.lab.judge:reward; logged, never trained on."""
    optim: sections.Optim = sections.Optim(
        learning_rate=3e-6, batch_size=512, schedule="linear", final_ratio=0.0, eps=1e-5, betas=(0.9, 0.999)
    )
    train: sections.Train = sections.Train.defaults(log_every=1)

    @model_validator(mode="after")
    def _whole_minibatches(self) -> Self:
        if self.data.too_long != "drop":
            raise ValueError("data.too_long: a prompt cannot be cut without losing its end; ppo only knows drop")
        if self.optim.batch_size % self.ppo.n_minibatches:
            raise ValueError(
                f"ppo.n_minibatches = {self.ppo.n_minibatches} does not divide optim.batch_size = "
                f"{self.optim.batch_size}; give a divisor of it"
            )
        return self


class Asked(NamedTuple):
    """A prompt, as turns and as tokens."""

    messages: tuple[Message, ...]
    ids: list[int]


class Roles(NamedTuple):
    """The models of a PPO run."""

    policy: LanguageModel
    reference: LanguageModel | None  # none with LoRA: then it is the policy without its adapter
    critic: ScalarModel
    reward: RewardSource
    gold: RewardSource | None


class Learners(NamedTuple):
    """Policy and critic as `accelerate` prepared them, with their optimizers."""

    policy: Any
    policy_optimizer: Any
    critic: Any
    critic_optimizer: Any


class Experience(NamedTuple):
    """What a batch of answers taught, each (batch, time) by answer token."""

    rollouts: Rollouts
    logprobs: Tensor  # of the policy before the update
    values: Tensor  # of the critic before the update
    advantages: Tensor
    returns: Tensor


def main() -> None:
    """Parses the command line and trains."""
    recipe, dry_run = parse_training(Recipe, "ppo")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: DryRun | bool = False) -> None:
    """Optimises into `recipe.output`; `dry_run` says what it would do and what it would cost."""
    from align.models.load import load_config
    from align.models.save import save_language_model, save_scalar_model, write_card
    from align.rl.plan import plan_of_models, plan_of_shape
    from align.text.load import load
    from align.text.tokenizer import load_tokenizer
    from align.train.machine import accelerator as make_accelerator
    from align.train.parallel import say
    from align.train.plan import asked_shape, check_memory, check_positions, print_plan
    from align.train.run import Run

    if (shape := asked_shape(dry_run)) is not None:
        check_positions(shape, recipe.data.max_tokens, "--model-shape")
        print_plan(recipe, plan_of_shape(recipe, shape), {}, dry_run)
        return
    tokenizer = load_tokenizer(recipe.model.path, recipe.model.trust_remote_code)
    config = load_config(recipe.model)
    check_positions(config, recipe.data.max_tokens)
    for key, path in (("reward.path", recipe.reward.path), ("ppo.critic", recipe.ppo.critic)):
        if path is not None:
            other = load_config(recipe.model.model_copy(update={"path": path}))
            check_positions(other, recipe.data.max_tokens, key)
    loaded = load(recipe.data, "prompts", recipe.seed)
    say(*loaded.report.lines())
    prompts = encode(recipe, tokenizer, loaded.train)
    memory = plan_of_models(recipe, max(len(prompt.ids) for prompt in prompts))
    if dry_run:
        print_plan(recipe, memory, {"prompts": prompts}, dry_run)
        return
    check_memory(recipe, memory)
    accelerator = make_accelerator(recipe.train.precision)
    with Run(recipe, "ppo", accelerator) as folder:
        roles = load_roles(recipe, tokenizer, accelerator)
        figures = train(recipe, roles, tokenizer, prompts, folder, accelerator)
        if folder.writes:
            save_language_model(roles.policy.model, recipe.model, tokenizer, folder.folder)
            save_scalar_model(roles.critic, critic_section(recipe), tokenizer, folder.folder, "critic")
            write_card(folder.folder, "ppo", recipe, figures)
        folder.finish(figures)


def train(
    recipe: Recipe, roles: Roles, tokenizer: Any, prompts: list[Asked], run: Any, accelerator: Any
) -> dict[str, float]:
    """The loop: sample, appraise, update. Returns the last step's figures."""
    from align.text.batches import rows_of_step, steps_in
    from align.train.optim import build_optimizer, learning_rate, set_learning_rate
    from align.train.parallel import my_share
    from align.train.state import Trainable

    n_steps = recipe.train.steps or steps_in(recipe.train.epochs or 1, len(prompts), recipe.optim.batch_size)
    kl = make_kl(recipe.kl)
    policy, policy_optimizer = accelerator.prepare(roles.policy, build_optimizer(recipe.optim, roles.policy))
    critic, critic_optimizer = accelerator.prepare(roles.critic, build_optimizer(recipe.optim, roles.critic))
    critic_scale = (recipe.ppo.value_learning_rate or recipe.optim.learning_rate) / recipe.optim.learning_rate
    learners = Learners(policy, policy_optimizer, critic, critic_optimizer)
    parts = {
        "policy": Trainable(roles.policy),
        "policy_optimizer": policy_optimizer,
        "critic": Trainable(roles.critic),
        "critic_optimizer": critic_optimizer,
        "kl": kl,
    }
    first = run.restore(parts)
    figures: dict[str, float] = {}
    for step in run.steps(first, n_steps, parts):
        rate = learning_rate(recipe.optim, step - 1, n_steps)
        set_learning_rate(policy_optimizer, rate)
        set_learning_rate(critic_optimizer, rate * critic_scale)
        rows = rows_of_step(step, len(prompts), recipe.optim.batch_size, recipe.seed)
        asked = [prompts[row] for row in my_share(rows, accelerator)]

        clock = [time.monotonic()]
        rollouts = collect(recipe, roles, tokenizer, asked, step, accelerator)
        clock.append(time.monotonic())
        experience, seen = appraise(recipe, roles, tokenizer, asked, rollouts, kl, accelerator)
        if step == 1:
            check_leash(seen["objective/kl"], recipe)
        clock.append(time.monotonic())
        figures = seen | update(recipe, learners, experience, step, accelerator)
        clock.append(time.monotonic())

        kl.update(seen["objective/kl"], len(rows))
        figures |= {"lr": rate, "episode": step * len(rows)} | timings(clock, rollouts, accelerator)
        if run.is_time(step, n_steps, recipe.train.log_every):
            run.log(step, figures)
    return figures


def collect(recipe: Recipe, roles: Roles, tokenizer: Any, asked: list[Asked], step: int, accelerator: Any) -> Rollouts:
    """Samples an answer to each prompt from the policy as it is."""
    from align.rl.rollouts import Rollouts
    from align.rl.sampling import Sampling, sample
    from align.train.state import generator

    how = Sampling(recipe.rollout.max_tokens, recipe.rollout.temperature, batch_tokens=recipe.rollout.batch_tokens)
    randomness = generator(accelerator.device, recipe.seed, step, accelerator.process_index)
    roles.policy.eval()  # dropout stays off in every role, as in lm-human-preferences and N+ (item 18)
    ids = [prompt.ids for prompt in asked]
    with accelerator.autocast():
        unspeakable = roles.policy.unspeakable
        answers = sample(roles.policy.model, ids, how, [tokenizer.eos_token_id], unspeakable, randomness)
    return Rollouts.of(ids, answers, accelerator.device)


def appraise(
    recipe: Recipe,
    roles: Roles,
    tokenizer: Any,
    asked: list[Asked],
    rollouts: Rollouts,
    kl: KLController,
    accelerator: Any,
) -> tuple[Experience, dict[str, float]]:
    """Scores answers, charges KL, and finds each token's advantage. Also returns the figures that are logged of it."""
    import torch

    from align.rl.advantages import gae, token_rewards, whiten, with_end

    temperature, budget = recipe.rollout.temperature, recipe.train.micro_batch_tokens
    mask = rollouts.mask
    with torch.no_grad(), accelerator.autocast():
        logprobs = rollouts.sampled_logprobs
        if recipe.rollout.logprobs == "recompute":
            logprobs = rollouts.for_each_token(logprob_function(roles.policy, temperature), budget)
        with roles.policy.without_adapter() if roles.reference is None else nullcontext():
            reference = roles.reference or roles.policy
            reference_logprobs = rollouts.for_each_token(logprob_function(reference, temperature), budget)
        values = rollouts.for_each_token(value_function(roles.critic), budget)
        scores, seen = score(recipe, roles, tokenizer, asked, rollouts)
    token_kl = (logprobs - reference_logprobs) * mask
    rewards = token_rewards(scores, token_kl, mask, kl.coefficient, recipe.reward.score_at)
    if recipe.reward.whiten:
        rewards = whiten(rewards, with_end(mask, recipe.reward.score_at), shift_mean=False)
    advantages, returns = gae(rewards, values, mask, recipe.ppo.gamma, recipe.ppo.lam)
    if recipe.ppo.whiten_advantages:
        advantages = whiten(advantages, mask)
    answer_kl = token_kl.sum(1)
    seen |= {
        "objective/kl": answer_kl,
        "objective/entropy": -(logprobs * mask).sum(1),
        "objective/non_score_reward": -kl.coefficient * answer_kl,
        "objective/rlhf_reward": scores - kl.coefficient * answer_kl,
        "objective/scores": scores,
        "val/response_length": mask.sum(1),
        "val/ended": rollouts.ended,
    }
    figures = means(accelerator, seen) | {"objective/kl_coef": kl.coefficient}
    return Experience(rollouts, logprobs, values, advantages, returns), figures


def score(
    recipe: Recipe, roles: Roles, tokenizer: Any, asked: list[Asked], rollouts: Rollouts
) -> tuple[Tensor, dict[str, Tensor]]:
    """The score of each answer, (batch,), and the judge's if there is one."""
    import torch

    from align.text.encode import decode_response

    sequences = rollouts.sequences()
    messages = [prompt.messages for prompt in asked]
    texts = [decode_response(tokenizer, ids[len(p.ids) :]) for p, ids in zip(asked, sequences, strict=True)]
    scores = torch.tensor(roles.reward.score(messages, texts, sequences), device=rollouts.ids.device)
    if recipe.reward.clip is not None:
        scores = scores.clamp(-recipe.reward.clip, recipe.reward.clip)
    if recipe.reward.missing_eos is not None:
        scores = torch.where(rollouts.ended, scores, recipe.reward.missing_eos)
    if roles.gold is None:
        return scores, {}
    return scores, {"objective/gold": torch.tensor(roles.gold.score(messages, texts, sequences))}


def update(recipe: Recipe, learners: Learners, experience: Experience, step: int, accelerator: Any) -> dict[str, float]:
    """Several passes over the batch in mini-batches, an optimizer step of policy and critic for each."""
    import torch

    from align.models.language import recomputing
    from align.rl.losses import explained_variance
    from align.train.state import generator

    sums: dict[str, float] = defaultdict(float)
    n_rows, n_steps = len(experience.rollouts), recipe.ppo.n_epochs * recipe.ppo.n_minibatches
    shuffle = generator("cpu", recipe.seed, step, accelerator.process_index, 1)
    for _ in range(recipe.ppo.n_epochs):
        for rows in torch.randperm(n_rows, generator=shuffle).tensor_split(recipe.ppo.n_minibatches):
            with recomputing(learners.policy, recipe.train.gradient_checkpointing):
                statistics = update_policy(recipe, learners, experience, rows.tolist(), accelerator)
            with recomputing(learners.critic, recipe.train.gradient_checkpointing):
                statistics |= update_critic(recipe, learners, experience, rows.tolist(), accelerator)
            check_ratio(statistics["val/ratio"], recipe)
            for name, value in statistics.items():
                sums[name] += value / n_steps
    mask = experience.rollouts.mask
    sums["val/explained_variance"] = explained_variance(experience.values[mask], experience.returns[mask])
    return dict(sums)


def update_policy(
    recipe: Recipe, learners: Learners, experience: Experience, rows: list[int], accelerator: Any
) -> dict[str, float]:
    """One optimizer step of the policy on a mini-batch."""
    from align.rl.losses import policy_loss
    from align.train.parallel import synced_at_last, total

    n_tokens = total(accelerator, experience.rollouts.mask[rows].sum())[0]
    loss: Any = 0.0
    approx_kl: Any = 0.0
    clipped: Any = 0.0
    ratio: Any = 0.0
    logprobs_of = logprob_function(learners.policy, recipe.rollout.temperature)
    for micro in synced_at_last(accelerator, learners.policy, minibatch_parts(recipe, experience, rows)):
        mask = experience.rollouts.mask[micro]
        logprobs = logprobs_of(*experience.rollouts.part(micro))
        parts = policy_loss(
            logprobs, experience.logprobs[micro][mask], experience.advantages[micro][mask], recipe.ppo.clip_range
        )
        accelerator.backward(parts.loss * accelerator.num_processes / n_tokens)
        loss, approx_kl = loss + parts.loss.detach(), approx_kl + parts.approx_kl
        clipped, ratio = clipped + parts.clipped, ratio + parts.ratio
    norm = accelerator.clip_grad_norm_(learners.policy.parameters(), recipe.optim.max_grad_norm)
    learners.policy_optimizer.step()
    learners.policy_optimizer.zero_grad()
    loss, approx_kl, clipped, ratio = (
        value / n_tokens for value in total(accelerator, loss, approx_kl, clipped, ratio)
    )
    return {
        "loss/policy_avg": loss,
        "policy/approxkl_avg": approx_kl,
        "policy/clipfrac_avg": clipped,
        "val/ratio": ratio,
        "policy/grad_norm": float(norm),
    }


def update_critic(
    recipe: Recipe, learners: Learners, experience: Experience, rows: list[int], accelerator: Any
) -> dict[str, float]:
    """One optimizer step of the critic on a mini-batch."""
    from align.rl.losses import value_loss
    from align.train.parallel import synced_at_last, total

    n_tokens = total(accelerator, experience.rollouts.mask[rows].sum())[0]
    loss: Any = 0.0
    clipped: Any = 0.0
    values_of = value_function(learners.critic)
    for micro in synced_at_last(accelerator, learners.critic, minibatch_parts(recipe, experience, rows)):
        mask = experience.rollouts.mask[micro]
        values = values_of(*experience.rollouts.part(micro))
        parts = value_loss(
            values, experience.values[micro][mask], experience.returns[micro][mask], recipe.ppo.value_clip_range
        )
        accelerator.backward(parts.loss * accelerator.num_processes / n_tokens)
        loss, clipped = loss + parts.loss.detach(), clipped + parts.clipped
    norm = accelerator.clip_grad_norm_(learners.critic.parameters(), recipe.optim.max_grad_norm)
    learners.critic_optimizer.step()
    learners.critic_optimizer.zero_grad()
    loss, clipped = (value / n_tokens for value in total(accelerator, loss, clipped))
    return {"loss/value_avg": loss, "val/clipfrac_avg": clipped, "val/grad_norm": float(norm)}


def minibatch_parts(recipe: Recipe, experience: Experience, rows: list[int]) -> list[list[int]]:
    """The rows of a mini-batch in micro-batches of similar length."""
    from align.text.batches import micro_batches

    groups = micro_batches([experience.rollouts.lengths[row] for row in rows], recipe.train.micro_batch_tokens)
    return [[rows[i] for i in group] for group in groups]


def logprob_function(model: Any, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """(ids, is_answer) -> log p of each answer token at the sampling temperature, (n_tokens,)."""
    from align.models.language import token_logprobs

    return lambda ids, is_answer: token_logprobs(model(ids, is_answer), ids[is_answer], temperature)


def value_function(critic: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """(ids, is_answer) -> the value of the state before each answer token, (n_tokens,)."""
    from align.rl.rollouts import states_before

    return lambda ids, is_answer: critic(ids, states_before(is_answer))


def load_roles(recipe: Recipe, tokenizer: Any, accelerator: Any) -> Roles:
    """Loads the four models. With LoRA the reference is the policy without its adapter; else it is a frozen copy."""
    from align.models.language import LanguageModel, unspeakable
    from align.models.load import base_dtype, load_causal_lm
    from align.rl.rewards import FunctionReward, ModelReward

    device, budget = accelerator.device, recipe.train.micro_batch_tokens
    dtype = base_dtype(recipe.model, accelerator.mixed_precision)
    model = load_causal_lm(recipe.model, dtype, len(tokenizer))
    policy, reference = LanguageModel(model, unspeakable(tokenizer, model)), None
    if not policy.has_adapter:
        reference = LanguageModel(copy.deepcopy(model), policy.unspeakable).to(device).eval().requires_grad_(False)
    reward: RewardSource
    if recipe.reward.path is not None:
        reward = ModelReward(recipe.reward.path, tokenizer, device, budget)
    else:
        reward = FunctionReward(str(recipe.reward.function))
    gold = FunctionReward(recipe.gold) if recipe.gold else None
    critic = load_critic(recipe, tokenizer, dtype).to(device)
    if recipe.train.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable()
        critic.trunk.gradient_checkpointing_enable()
    return Roles(policy.to(device).eval(), reference, critic, reward, gold)


def load_critic(recipe: Recipe, tokenizer: Any, dtype: torch.dtype) -> ScalarModel:
    """The reward model itself where it reads the policy's tokens, else the policy's trunk with a head of zeros."""
    from align.models.load import load_trunk
    from align.models.scalar import ScalarModel, load_scalar_model
    from align.text.tokenizer import load_tokenizer

    section = critic_section(recipe)
    if section.path == recipe.model.path:
        critic = ScalarModel(load_trunk(section, dtype, len(tokenizer)))
        zero_head(critic.head)
        return critic.eval()
    if load_tokenizer(section.path).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"ppo.critic: {section.path} has another tokenizer than the policy; set ppo.critic={recipe.model.path}"
        )
    return load_scalar_model(section, dtype, len(tokenizer)).eval()


def critic_section(recipe: Recipe) -> sections.Model:
    """The `model` section of the critic: the policy's, at another path."""
    path = recipe.ppo.critic or recipe.reward.path or recipe.model.path
    return recipe.model.model_copy(update={"path": path})


def zero_head(head: Any) -> None:
    """A head of zeros values every state 0, so that the first advantages are rewards to go (lm-human-preferences)."""
    import torch

    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)


def make_kl(settings: Kl) -> KLController:
    """The controller that the recipe names."""
    from align.rl.kl import AdaptiveKL, FixedKL

    if settings.controller == "fixed":
        return FixedKL(settings.coefficient)
    return AdaptiveKL(settings.coefficient, float(settings.target or 0), int(settings.horizon or 0))


def encode(recipe: Recipe, tokenizer: Any, prompts: list[Prompt]) -> list[Asked]:
    """Prompts as tokens, without those that leave no room for an answer."""
    from align.text.encode import encode_prompts
    from align.train.parallel import say

    room = recipe.data.max_tokens - recipe.rollout.max_tokens
    ids = encode_prompts(tokenizer, [prompt.messages for prompt in prompts])
    asked = [Asked(p.messages, row) for p, row in zip(prompts, ids, strict=True) if len(row) <= room]
    if len(asked) < len(prompts):
        say(
            f"{len(prompts) - len(asked)} of {len(prompts)} prompts left out: longer than {room} tokens, which is "
            f"data.max_tokens={recipe.data.max_tokens} less rollout.max_tokens={recipe.rollout.max_tokens}"
        )
    if not asked:
        raise UserError("data.path: no prompt is short enough; raise data.max_tokens or lower rollout.max_tokens")
    return asked


def check_leash(kl: float, recipe: Recipe) -> None:
    """Before the first update the policy is the reference, so KL must be 0 but for rounding."""
    limit = 1e-3 if recipe.rollout.logprobs == "recompute" else 0.1
    if not abs(kl) < limit:
        raise UserError(f"model.path: KL to the reference is {kl:.4g} before the first update; it must be 0")


def check_ratio(ratio: float, recipe: Recipe) -> None:
    """Stops a run whose policy has diverged, while its last checkpoint is still good."""
    if not (math.isfinite(ratio) and ratio < recipe.ppo.max_ratio):
        raise UserError(
            f"the policy diverged: mean ratio {ratio:.4g} in a mini-batch, ppo.max_ratio is {recipe.ppo.max_ratio}. "
            "Lower optim.learning_rate or raise kl.coefficient; the last checkpoint is kept"
        )


def means(accelerator: Any, columns: dict[str, Tensor]) -> dict[str, float]:
    """The mean over all answers of all processes of each (batch,) column."""
    from align.train.parallel import total

    sums = total(accelerator, *(column.sum() for column in columns.values()), len(next(iter(columns.values()))))
    return {name: value / sums[-1] for name, value in zip(columns, sums, strict=False)}


def timings(clock: list[float], rollouts: Rollouts, accelerator: Any) -> dict[str, float]:
    """Seconds of each phase, and answer tokens a second over the whole step."""
    from align.train.parallel import total

    spent = dict(zip(("rollout", "score", "train"), (b - a for a, b in pairwise(clock)), strict=True))
    n_tokens = total(accelerator, rollouts.mask.sum())[0]
    return {f"time/{phase}_s": s for phase, s in spent.items()} | {"tokens_per_s": n_tokens / (clock[-1] - clock[0])}


if __name__ == "__main__":
    exit_on_user_error(main)
