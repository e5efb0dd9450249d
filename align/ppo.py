"""PPO: trains the policy against a reward model, with a KL penalty to the reference (InstructGPT step 3, 2203.02155).

    align ppo recipes/ppo.yaml

Each step samples an answer to every prompt of a batch and scores it. Every token's reward has a KL penalty to the
reference (the SFT model). Policy and critic then take several passes of clipped updates (Schulman et al. 2017,
1707.06347; Ziegler et al. 2019, 1909.08593). Every choice in which published implementations differ is a key; each
default names its source. The two halves of a step can be used in your own loop:

    sampler, learner, prompts = ppo.build(recipe)
    rollouts = sampler.collect(prompts[:64], step)
    stats = learner.step(rollouts)
"""

from __future__ import annotations

import json
import math
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import model_validator

from align import sections
from align.config import DryRun, parse_training
from align.errors import UserError, exit_on_user_error
from align.rewards.settings import Reward
from align.rl.settings import Evaluation, Kl, Ppo, Ptx, Rollout
from align.text.records import last_question

if TYPE_CHECKING:
    from align.rl.learner import Learner
    from align.rl.ptx import PtxRows
    from align.rl.rollouts import Rollouts
    from align.rl.sampler import EncodedPrompt, Roles, Sampler
    from align.text.records import Prompt
    from align.train.weights import Best


OF_A_CRITIC = (
    "gamma",
    "lam",
    "value_clip_range",
    "value_learning_rate",
    "critic",
    "value_coefficient",
    "critic_warmup_steps",
)


class Recipe(sections.Run):
    """PPO. Defaults are N+'s (the reproduction of Stiennon et al. 2020), unless a key says otherwise."""

    model: sections.Model
    """The model that the policy starts from. It is also the reference."""
    data: sections.Data = sections.Data.defaults(too_long="drop", validation=0.0)
    reward: Reward
    rollout: Rollout = Rollout()
    ppo: Ppo = Ppo()
    kl: Kl = Kl()
    ptx: Ptx | None = None
    """Pretraining text to mix into the updates (PTX); none is no mixing."""
    evaluation: Evaluation = Evaluation()
    gold: str | None = None
    """module:function with the true reward, such as align.lab.judge:reward. Logged, never trained on."""
    optim: sections.Optim = sections.Optim(
        learning_rate=3e-6, batch_size=512, schedule="linear", final_ratio=0.0, eps=1e-5, betas=(0.9, 0.999)
    )
    train: sections.Train = sections.Train.defaults(log_every=1)

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        size, answers = self.optim.batch_size, self.rollout.answers
        if self.data.too_long != "drop":
            raise ValueError("data.too_long: a cut prompt would lose its end; ppo only takes drop")
        for key, value in (("ppo.n_minibatches", self.ppo.n_minibatches), ("rollout.answers", answers)):
            if size % value:
                raise ValueError(f"{key} = {value} does not divide optim.batch_size = {size}; give a divisor of it")
        return self

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        ppo = self.ppo
        if self.model.lora.dropout:
            raise ValueError("model.lora.dropout has no effect: ppo turns dropout off in every role; remove it")
        if ppo.advantage == "gae":
            return self
        if self.rollout.answers < 2:
            raise ValueError(
                f"ppo.advantage: {ppo.advantage} compares several answers to a prompt; set rollout.answers to 2 or more"
            )
        plain = Ppo()
        idle = [key for key in OF_A_CRITIC if getattr(ppo, key) != getattr(plain, key)]
        if idle:
            raise ValueError(
                f"ppo.{idle[0]} has no effect with ppo.advantage: {ppo.advantage}, which has no critic; remove it"
            )
        if ppo.whiten_over == "minibatch":
            raise ValueError(
                f"ppo.whiten_over: minibatch would separate the answers to a prompt, which {ppo.advantage} compares; "
                "set batch"
            )
        return self

    @model_validator(mode="after")
    def _evaluates(self) -> Self:
        if self.evaluation.best is not None and not self.data.validation:
            raise ValueError("evaluation.best is measured on held-out prompts; set data.validation, such as 0.05")
        return self


def main() -> None:
    """Parses the command line and trains."""
    recipe, dry_run = parse_training(Recipe, "ppo")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: DryRun | bool = False) -> None:
    """Trains into `recipe.output`. `dry_run` only prints the plan and its memory estimate."""
    from align.models.load import load_config
    from align.models.lora import shares
    from align.models.save import save_language_model, save_scalar_model, write_card
    from align.rl.plan import plan_of_models, plan_of_shape
    from align.rl.roles import critic_section
    from align.train.machine import accelerator as make_accelerator
    from align.train.plan import check_memory, fitted, print_plan, requested_shape
    from align.train.run import Run

    if (shape := requested_shape(dry_run)) is not None:
        recipe = fitted(recipe, shape)
        print_plan(recipe, plan_of_shape(recipe, shape), {}, dry_run)
        return
    recipe = fitted(recipe, load_config(recipe.model, to="generate"))
    inputs = read(recipe)
    memory = plan_of_models(recipe, max(len(asked.ids) for asked in inputs.prompts))
    if dry_run:
        rows = {"prompts": inputs.prompts, "held-out prompts": inputs.heldout}
        print_plan(recipe, memory, {name: asked for name, asked in rows.items() if asked}, dry_run)
        return
    check_memory(recipe, memory)
    accelerator = make_accelerator(recipe.train.precision)
    with Run(recipe, "ppo", accelerator) as folder:
        sampler, learner = assemble(recipe, inputs, accelerator)
        reach = shares(learner.roles.policy).lines(recipe.model.quantization)
        folder.say(*reach)
        figures, best = train(recipe, learner.roles, sampler, learner, inputs, folder, accelerator)
        policy, critic = learner.roles.policy, learner.roles.critic
        if folder.writes:
            words, save_dtype = inputs.tokenizer, recipe.train.save_dtype
            with learner.averaged():
                save_language_model(policy.model, recipe.model, words, folder.folder, save_dtype=save_dtype)
            if recipe.evaluation.best:
                with best.in_place():
                    save_language_model(policy.model, recipe.model, words, folder.folder, "best", save_dtype)
            if critic is not None:
                save_scalar_model(critic, critic_section(recipe), words, folder.folder, "critic", save_dtype)
            write_card(folder.folder, "ppo", recipe, figures, "\n".join([*reach, ""]))
        folder.finish(figures)


class Inputs(NamedTuple):
    """Everything that a run reads before it loads a model."""

    tokenizer: Any
    prompts: list[EncodedPrompt]
    heldout: list[EncodedPrompt]
    ptx: PtxRows | None


def read(recipe: Recipe) -> Inputs:
    """Reads tokenizer and data. Raises `UserError` for anything that cannot work, before anything costly."""
    from align.models.load import load_config
    from align.models.purpose import head_role
    from align.rl.ptx import load_ptx
    from align.rl.roles import TRUNK
    from align.text.load import load
    from align.text.tokenizer import plain_tokenizer, same_words
    from align.train.inputs import tokenizer_of
    from align.train.parallel import say
    from align.train.plan import check_positions

    tokenizer = tokenizer_of(recipe)
    for key, path in (*(("reward.path", path) for path in recipe.reward.paths), ("ppo.critic", recipe.ppo.critic)):
        if path is None or path == TRUNK:
            continue
        model = recipe.model.model_copy(update={"path": path})
        values = key == "ppo.critic" and (path == recipe.model.path or head_role(path) == "value")
        other = load_config(model, key, to=None if values else "reward")
        # With another tokenizer the number of tokens is known only when an answer is scored.
        if same_words(plain_tokenizer(path, recipe.model.trust_remote_code), tokenizer):
            check_positions(other, recipe.data.max_tokens, key)
    loaded = load(recipe.data, "prompts", recipe.seed)
    say(*loaded.report.lines())
    prompts = encode(recipe, tokenizer, loaded.train)
    heldout = loaded.validation[: recipe.train.eval_rows]
    ptx = load_ptx(recipe.ptx, tokenizer, recipe.data, recipe.seed) if recipe.ptx else None
    return Inputs(tokenizer, prompts, encode(recipe, tokenizer, heldout) if heldout else [], ptx)


def build(recipe: Recipe) -> tuple[Sampler, Learner, list[EncodedPrompt]]:
    """The sampler, the learner and the prompts, for your own training loop."""
    from align.models.load import load_config
    from align.train.machine import accelerator as make_accelerator
    from align.train.plan import fitted
    from align.train.state import seed_everything

    recipe = fitted(recipe, load_config(recipe.model, to="generate"))
    inputs = read(recipe)
    seed_everything(recipe.seed)
    sampler, learner = assemble(recipe, inputs, make_accelerator(recipe.train.precision))
    return sampler, learner, inputs.prompts


def assemble(recipe: Recipe, inputs: Inputs, accelerator: Any) -> tuple[Sampler, Learner]:
    """Loads the models and returns the sampler and the learner."""
    from align.rl.learner import Learner
    from align.rl.roles import load_roles
    from align.rl.sampler import Sampler

    check_work(recipe, inputs, accelerator)
    roles = load_roles(recipe, inputs.tokenizer, accelerator)
    learner = Learner(roles, recipe, steps_of(recipe, len(inputs.prompts)), accelerator, inputs.ptx)
    return Sampler(roles, inputs.tokenizer, recipe, accelerator), learner


def check_work(recipe: Recipe, inputs: Inputs, accelerator: Any) -> None:
    """Raises `UserError` unless every process gets work in every part of a step."""
    from align.train.parallel import check_shares

    answers = recipe.rollout.answers  # all answers to a prompt come from one process
    prompts_each = math.ceil(recipe.ppo.n_minibatches / answers)  # so that each mini-batch has an answer
    check_shares(accelerator, "optim.batch_size", recipe.optim.batch_size, prompts_each * answers)
    if inputs.heldout:
        check_shares(accelerator, "held-out prompts (data.validation)", len(inputs.heldout))
    if recipe.ptx is not None:
        check_shares(accelerator, "ptx.batch_size", recipe.ptx.batch_size)


def steps_of(recipe: Recipe, n_prompts: int) -> int:
    """Steps of the run."""
    from align.text.batches import steps_in

    return recipe.train.steps or steps_in(recipe.train.epochs or 1, n_prompts, prompts_at_once(recipe))


def prompts_at_once(recipe: Recipe) -> int:
    """Prompts in a step, over all processes."""
    return recipe.optim.batch_size // recipe.rollout.answers


def train(
    recipe: Recipe, roles: Roles, sampler: Sampler, learner: Learner, inputs: Inputs, run: Any, accelerator: Any
) -> tuple[dict[str, float], Best]:
    """The training loop: collect, learn. Returns the last step's figures and the best weights (`evaluation.best`)."""
    from align.text.batches import rows_of_step
    from align.train.parallel import my_share
    from align.train.weights import Best

    n_steps = learner.n_steps
    eval_every = recipe.train.eval_every or max(1, n_steps // 10)
    best, last = Best(roles.policy), LastStep()
    parts = {**learner.parts, **sampler.shaping.parts(), "last": last}
    parts |= {"best": best} if recipe.evaluation.best else {}

    def report(step: int) -> None:
        """Evaluates and logs a step after its update."""
        evaluates = bool(inputs.heldout) and run.is_time(step, n_steps, eval_every)
        if evaluates:
            with learner.averaged():
                last.figures |= evaluate(recipe, sampler, inputs.heldout, step, run, accelerator)
                if recipe.evaluation.best:
                    best.offer(figure_named(recipe.evaluation.best, last.figures), step)
        if evaluates or run.is_time(step, n_steps, recipe.train.log_every):
            run.log(step, last.figures)
        last.reported = True

    first = run.restore(parts)
    if not last.reported:  # a reward failed during the evaluation of that step
        run.drop_rows_after(first - 1)
        report(first)
    for step in run.steps(first, n_steps, parts):
        rows = rows_of_step(step, len(inputs.prompts), prompts_at_once(recipe), recipe.seed)
        asked = [inputs.prompts[row] for row in my_share(rows, accelerator)]

        clock = [time.monotonic()]
        rollouts = sampler.sample(sampler.repeated(asked), step)
        clock.append(time.monotonic())
        sampler.measure(sampler.repeated(asked), rollouts)
        sampler.check_gap(rollouts)
        if step == 1:
            sampler.check_reference(rollouts)
        clock.append(time.monotonic())
        if beyond_budget(recipe, learner, rollouts):
            run.say(f"stopped before step {step}: KL exceeds kl.budget = {recipe.kl.budget} nats per answer")
            break
        run.updating()
        figures = learner.step(rollouts, step) | {"episode": step * recipe.optim.batch_size}
        clock.append(time.monotonic())
        last.figures, last.reported = figures | timings(clock, rollouts, accelerator), False
        run.updated(step)
        report(step)
    return last.figures, best


class LastStep:
    """The figures of the last updated step, and whether it was evaluated and logged, as a `Stateful`."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.reported = True

    def state_dict(self) -> dict[str, Any]:
        return {"figures": self.figures, "reported": self.reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.figures, self.reported = state_dict["figures"], state_dict["reported"]


def evaluate(
    recipe: Recipe, sampler: Sampler, heldout: list[EncodedPrompt], step: int, run: Any, accelerator: Any
) -> dict[str, float]:
    """Scores, KL and lengths on held-out prompts, with the same random numbers each time. Writes samples.jsonl."""
    from align.rl.learner import means
    from align.train.parallel import my_share

    mine = my_share(heldout, accelerator)
    rollouts = sampler.measure(mine, sampler.sample(mine, 0, recipe.evaluation.temperature), remember=False)
    columns = {name.replace("objective/", "eval/"): column for name, column in rollouts.figures.items()}
    columns |= {"eval/scores": rollouts.scores, "eval/kl": rollouts.token_kl.sum(1)}
    columns |= {"eval/response_length": rollouts.mask.sum(1), "eval/ended": rollouts.ended}
    if run.writes:
        with (run.folder / "samples.jsonl").open("a", encoding="utf-8") as file:
            for i, prompt in enumerate(mine[: recipe.evaluation.samples]):
                row: dict[str, Any] = {"step": step, "prompt": last_question(prompt.messages)}
                row |= {"thoughts": rollouts.thoughts[i]} if rollouts.thoughts[i] else {}
                row["answer"] = rollouts.texts[i]
                row |= {name.removeprefix("eval/"): round(float(column[i]), 4) for name, column in columns.items()}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    figures = means(accelerator, columns)
    del figures["n_answers"]
    return figures


def figure_named(name: str, figures: dict[str, float]) -> float:
    """The metric that `evaluation.best` names."""
    if name not in figures:
        known = ", ".join(sorted(key for key in figures if key.startswith("eval/")))
        raise UserError(f"evaluation.best = {name}: there is no such metric; choose one of {known}")
    return figures[name]


def beyond_budget(recipe: Recipe, learner: Learner, rollouts: Rollouts) -> bool:
    """Whether the KL to the reference exceeds `kl.budget`."""
    from align.rl.learner import means

    if recipe.kl.budget is None:
        return False
    return means(learner.accelerator, {"kl": rollouts.token_kl.sum(1)})["kl"] > recipe.kl.budget


def encode(recipe: Recipe, tokenizer: Any, prompts: list[Prompt]) -> list[EncodedPrompt]:
    """Encodes prompts. Prompts that leave no room for an answer are left out."""
    from align.rl.sampler import EncodedPrompt
    from align.text.encode import encode_prompts
    from align.train.parallel import say

    end = recipe.reward.truncate_token is not None  # an answer cut at this token gets one more token, EOS
    room = recipe.data.max_tokens - recipe.rollout.max_tokens - end
    ids = encode_prompts(tokenizer, [prompt.messages for prompt in prompts], [prompt.source for prompt in prompts])
    asked = [EncodedPrompt(p.messages, row) for p, row in zip(prompts, ids, strict=True) if len(row) <= room]
    if len(asked) < len(prompts):
        say(
            f"{len(prompts) - len(asked)} of {len(prompts)} prompts left out: longer than {room} tokens, which is "
            f"data.max_tokens={recipe.data.max_tokens} less rollout.max_tokens={recipe.rollout.max_tokens}"
            + " and an EOS after reward.truncate_token"
            * end
        )
    if not asked:
        raise UserError("data.path: all prompts are too long; raise data.max_tokens or lower rollout.max_tokens")
    return asked


def timings(clock: list[float], rollouts: Rollouts, accelerator: Any) -> dict[str, float]:
    """Seconds of each phase, and answer tokens per second over the whole step."""
    from align.train.parallel import total

    spent = dict(zip(("rollout", "score", "train"), (b - a for a, b in pairwise(clock)), strict=True))
    n_tokens = total(accelerator, rollouts.mask.sum())[0]
    return {f"time/{phase}_s": s for phase, s in spent.items()} | {"tokens_per_s": n_tokens / (clock[-1] - clock[0])}


if __name__ == "__main__":
    exit_on_user_error(main)
