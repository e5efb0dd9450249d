"""Our side: TRL's rollouts, measured by our sampler and used by our learner, with our rules or TRL's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rules import NONE, Batch, RuledLearner, Rules
from safetensors.torch import load_file
from torch import Tensor
from work import COMMON, Case, Work

from align import ppo, sections
from align.config import build
from align.generation.sampling import Answer
from align.models.adapters import trained_parameters
from align.models.load import load_causal_lm
from align.rl.learner import Learner
from align.rl.roles import load_roles
from align.rl.rollouts import Rollouts
from align.rl.sampler import EncodedPrompt, Sampler
from align.text.records import Message
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator as make_accelerator
from align.train.state import seed_everything


class Update(NamedTuple):
    """One update, under TRL's names."""

    tensors: dict[str, Tensor]
    figures: dict[str, float]


class Found(NamedTuple):
    """The results of a run."""

    updates: list[Update]
    first_gradients: dict[str, Tensor]  # of its first optimizer step
    last_weights: dict[str, Tensor]


def read_theirs(folder: Path) -> Found:
    """The output of theirs.py. Gradients and weights may be missing."""
    updates = [
        Update(load_file(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
        for path in sorted(folder.glob("[0-9].safetensors"))
    ]
    files = [folder / f"{name}.safetensors" for name in ("first_gradients", "last_weights")]
    return Found(updates, *(load_file(file) if file.exists() else {} for file in files))


def run(folder: Path, work: Work, case: Case, rules: Rules, theirs: Found) -> Found:
    """Our results on the same rollouts."""
    ours = Ours(folder, work, case, rules)
    updates = [ours.update(update.tensors, number) for number, update in enumerate(theirs.updates, 1)]
    gradients = ours.first_gradients["policy"] | ours.first_gradients["critic"]
    return Found(updates, gradients, ours.read("policy", "data") | ours.read("critic", "data"))


class Ours:
    """Sampler and learner on the common models. Without rules the learner is ours, unchanged."""

    def __init__(self, folder: Path, work: Work, case: Case, rules: Rules) -> None:
        recipe = recipe_of(folder, work, case, rules)
        tokenizer = load_tokenizer(recipe.model.path)
        self.work, self.case, self.rules = work, case, rules
        self.pad, self.eos = tokenizer.pad_token_id, tokenizer.eos_token_id
        accelerator = make_accelerator("fp32", "cpu")
        seed_everything(recipe.seed)
        self.roles = roles = load_roles(recipe, tokenizer, accelerator)
        policy = load_causal_lm(sections.Model(path=str(folder / f"{case.policy}-policy")))
        roles.policy.model.load_state_dict(policy.state_dict())
        if rules.head_has_no_bias:
            roles.critic.head.bias.requires_grad_(False)
        if rules.pad_has_probability:
            roles.policy.never_sampled, roles.reference.never_sampled = [], []
        self.sampler = Sampler(roles, tokenizer, recipe, accelerator)
        kind: Any = Learner if rules == NONE else RuledLearner
        self.learner = kind(roles, recipe, work.n_updates, accelerator)
        self.learner.rules, self.learner.case, self.learner.pad = rules, case, self.pad
        self.first_gradients: dict[str, dict[str, Tensor]] = {}  # by role
        self.learner.policy_optimizer.optimizer.register_step_pre_hook(lambda *_: self.before_step("policy"))
        self.learner.critic_optimizer.optimizer.register_step_pre_hook(lambda *_: self.before_step("critic"))

    def before_step(self, role: str) -> None:
        """Stores a role's gradients of the first step."""
        if role not in self.first_gradients:
            self.first_gradients[role] = self.read(role, "grad")

    def update(self, theirs: dict[str, Tensor], number: int) -> Update:
        """Our statistics on TRL's rollouts of update `number`."""
        batch = self.learner.batch = self.batch_of(theirs, number)
        rollouts = self.sampler.measure(batch.asked, batch.rollouts)
        if self.rules.penalty_is_subtracted:
            says_eos = (theirs["responses"] == self.eos).any(1)
            rollouts.scores -= self.case.settings.get("missing_eos_penalty", 0.0) * ~says_eos
        advantages, returns = self.learner.targets(rollouts, list(range(len(rollouts))))
        tensors = {
            "logprobs": rollouts.logprobs,
            "ref_logprobs": rollouts.reference_logprobs,
            "kl": rollouts.token_kl,
            "scores": rollouts.scores,
            "values": rollouts.values,
            "advantages": advantages,
            "returns": returns,
        }
        figures = self.learner.step(rollouts, number)
        return Update(tensors, figures | {"n_steps": figures["val/n_updates"]})

    def batch_of(self, theirs: dict[str, Tensor], number: int) -> Batch:
        """TRL's rollouts as ours. An answer ends with its first EOS, or before its first pad."""
        queries, responses = theirs["queries"].long(), theirs["responses"].long()
        prompts = [[token for token in row if token != self.pad] for row in queries.tolist()]
        answers = [self.answer(row) for row in responses.tolist()]
        n_columns = responses.shape[1]
        return Batch(
            [EncodedPrompt((Message("user", ""),), ids) for ids in prompts],
            laid_out(prompts, answers, n_columns, self.rules.state_after_the_end),
            torch.cat([queries, responses], 1),
            theirs["orders"].tolist(),
            number == self.work.n_updates,
        )

    def answer(self, response: list[int]) -> Answer:
        """The tokens of a TRL response that count."""
        runs_on = self.rules.eos_ends_nothing and self.case.settings["stop_token"] is None
        tokens = response[: response.index(self.pad)] if self.pad in response else response
        ended = self.eos in tokens and not runs_on
        return Answer(tokens[: tokens.index(self.eos) + 1] if ended else tokens, [], ended)

    def read(self, role: str, what: str) -> dict[str, Tensor]:
        """Data or gradients of a role's trained parameters, under TRL's names."""
        parameters = trained_parameters(getattr(self.roles, role)).items()
        return {their_name(name): getattr(parameter, what).detach().clone() for name, parameter in parameters}


def laid_out(prompts: list[list[int]], answers: list[Answer], n_columns: int, state_after_the_end: bool) -> Rollouts:
    """Rollouts with as many columns as TRL has."""
    rollouts = Rollouts.of(prompts, answers, "cpu", n_columns if state_after_the_end else None)
    more = (0, n_columns - rollouts.mask.shape[1])
    rollouts.mask, rollouts.states = F.pad(rollouts.mask, more), F.pad(rollouts.states, more)
    return rollouts


def their_name(name: str) -> str:
    """TRL's name of a parameter of our policy (model) or critic (trunk, head)."""
    part, rest = name.split(".", 1)
    return {"model": "policy.", "trunk": "value_model.transformer.", "head": "value_model.score."}[part] + rest


def recipe_of(folder: Path, work: Work, case: Case, rules: Rules) -> ppo.Recipe:
    """TRL's settings as keys of our recipe."""
    theirs = {"learning_rate": work.learning_rate} | COMMON | case.settings
    penalty = theirs.get("missing_eos_penalty")
    return build(
        ppo.Recipe,
        {
            "model": {"path": str(folder / f"{case.policy}-reference")},
            "data": {"path": str(folder / "prompts.jsonl"), "max_tokens": work.shape["n_positions"]},
            "reward": {
                "path": str(folder / "reward"),
                "missing_eos": None if penalty is None or rules.penalty_is_subtracted else -penalty,
                "whiten": theirs.get("whiten_rewards", False),
                "score_at": "after_eos" if rules.state_after_the_end else "eos",
            },
            "rollout": {"max_tokens": work.n_tokens, "temperature": theirs["temperature"]},
            "ppo": {
                "critic": str(folder / "critic"),
                "n_epochs": theirs["num_ppo_epochs"],
                "n_minibatches": case.num_mini_batches,
                "clip_range": theirs["cliprange"],
                "value_clip_range": theirs["cliprange_value"],
                "gamma": theirs["gamma"],
                "lam": theirs["lam"],
                "entropy_coefficient": 1e-9,  # negligible, but with it the entropy is logged
            },
            "kl": {"coefficient": theirs["kl_coef"], "estimator": theirs["kl_estimator"]},
            "optim": {
                "batch_size": work.batch_size,
                "learning_rate": theirs["learning_rate"],
                "eps": theirs["adam_epsilon"],
                "betas": [0.9, 0.999],
                "schedule": "linear",
                "final_ratio": 0.0,
                "max_grad_norm": 1e9 if rules.gradients_are_not_clipped else theirs["max_grad_norm"],
            },
            "train": {"steps": work.n_updates, "precision": "fp32"},
            "output": str(folder / "unused"),
        },
        "work.py",
    )
