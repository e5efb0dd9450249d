"""Load the models of a PPO run: policy, reference, critic, reward. With LoRA they share one frozen base.

Without LoRA each role is a model of its own. With LoRA one frozen base, in full precision, 8 or 4 bits, serves several:

| role | on the policy's base |
|---|---|
| policy | its adapter |
| reference | no adapter: exactly the model of step 0, since an adapter at `model.path` is merged first |
| reward | its adapter and head, if `reward.path` is an adapter folder trained on `model.path` |
| critic | its adapter and head: a copy of the reward's, or one of zeros |

A reward model of ours that is not such an adapter has a base of its own; a critic that starts from it shares that base.
A reward model from elsewhere is loaded separately.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align import sections
from align.errors import UserError
from align.models.adapters import POLICY, REFERENCE, VALUE, add_adapter, load_adapter
from align.models.foreign import has_linear_score
from align.models.language import LanguageModel, never_sampled
from align.models.load import adapter_base, base_dtype, is_adapter, load_causal_lm, load_config, load_trunk
from align.models.purpose import HEAD_FILE, head_role
from align.models.scalar import ScalarModel, load_scalar_model, n_heads
from align.rewards.build import build_reward
from align.rewards.function import FunctionReward
from align.rl.sampler import Roles
from align.text.tokenizer import plain_tokenizer, rows_needed, same_words
from align.train.parallel import say

if TYPE_CHECKING:
    from align.rewards.reward import Reward
    from align.rl.settings import Keys

TRUNK = "trunk"


def load_roles(recipe: Keys, tokenizer: Any, accelerator: Any) -> Roles:
    """Load the recipe's models onto the device, all in eval mode."""
    device, dtype = accelerator.device, base_dtype(recipe.model, accelerator.mixed_precision)
    model = load_causal_lm(recipe.model, dtype, rows_needed(tokenizer)).to(device)
    never = never_sampled(tokenizer, model)
    policy = LanguageModel(model, never)
    if not policy.has_adapter:
        frozen = copy.deepcopy(model).requires_grad_(False)
        reference = LanguageModel(frozen, never)
    elif recipe.kl.reference_every:
        add_adapter(model, REFERENCE, trained=False)
        reference = LanguageModel(model, never, adapter=REFERENCE)
    else:
        reference = LanguageModel(model, never, adapter=None)
    critic = load_critic(recipe, policy, tokenizer, dtype, accelerator)
    if recipe.train.gradient_checkpointing:
        for base in {id(m): m for m in (model, critic.base if critic else model)}.values():
            base.gradient_checkpointing_enable()
    reward = load_reward(recipe, policy, critic, tokenizer, accelerator)
    gold = FunctionReward(recipe.gold) if recipe.gold else None
    return Roles(policy.eval(), reference.eval(), critic.eval() if critic else None, reward, gold)


def critic_section(recipe: Keys) -> sections.Model:
    """The critic's `model` section: the policy's, with the path that the critic starts from.

    Without `ppo.critic` that is the first reward model that a critic can start from, or else the policy.
    """
    path = recipe.ppo.critic if recipe.ppo.critic != TRUNK else recipe.model.path
    if path is None:
        path = next((path for path in recipe.reward.paths if starts_critic(path, recipe.model)), recipe.model.path)
    return recipe.model.model_copy(update={"path": path})


def starts_critic(path: str, policy: sections.Model) -> bool:
    """Whether a critic can start from a reward model: it has the policy's tokenizer and a linear head."""
    one, other = (plain_tokenizer(each, policy.trust_remote_code) for each in (path, policy.path))
    if not same_words(one, other):
        return False
    return head_role(path) is not None or has_linear_score(load_config(policy.model_copy(update={"path": path})))


def load_critic(
    recipe: Keys, policy: LanguageModel, tokenizer: Any, dtype: torch.dtype, accelerator: Any
) -> ScalarModel | None:
    """Load the critic; None if `ppo.advantage` needs none."""
    if recipe.ppo.advantage != "gae":
        return None
    section = critic_section(recipe)
    starts_as_policy = section.path == recipe.model.path
    if recipe.ppo.critic == TRUNK:
        if accelerator.num_processes > 1:
            raise UserError("ppo.critic: trunk runs in one process only; leave ppo.critic out, or name a model")
        critic = ScalarModel.on(policy.model, POLICY)
        critic.borrows_trunk = True
    elif policy.has_adapter and (starts_as_policy or stands_on(section.path, recipe.model.path)):
        critic = adapter_on(policy.model, VALUE, None if starts_as_policy else section.path)
    elif starts_as_policy:
        critic = ScalarModel(load_trunk(section, dtype, rows_needed(tokenizer)))
    else:
        if not same_words(plain_tokenizer(section.path, section.trust_remote_code), tokenizer):
            raise UserError(
                f"ppo.critic: {section.path} has another tokenizer than the policy; set ppo.critic={recipe.model.path}"
            )
        critic = load_scalar_model(section, dtype, rows_needed(tokenizer)).averaged()
    if starts_as_policy:
        zero_head(critic.head)
        if recipe.ppo.critic is None and recipe.reward.paths:
            say(f"the critic starts from {section.path}: no reward model has its tokenizer and a linear head")
    return critic.to(accelerator.device)


def load_reward(
    recipe: Keys, policy: LanguageModel, critic: ScalarModel | None, tokenizer: Any, accelerator: Any
) -> Reward:
    """Build the reward. Its models share a base that another role has loaded, where possible."""
    loaded = {}
    for number, path in enumerate(recipe.reward.paths):
        if policy.has_adapter and stands_on(path, recipe.model.path):
            loaded[path] = adapter_on(policy.model, f"reward{number}", path, trained=False)
        elif policy.has_adapter and critic is not None and critic_section(recipe).path == path and head_role(path):
            loaded[path] = head_on(critic.base, None, path)
    at_once, trusted = recipe.train.micro_batch_tokens, recipe.model.trust_remote_code
    return build_reward(recipe.reward, tokenizer, accelerator.device, at_once, loaded, trusted)


def stands_on(path: str, base: str) -> bool:
    """Whether a folder holds an adapter of a scalar model trained on this base."""
    if not (is_adapter(path) and (Path(path) / HEAD_FILE).is_file()):
        return False
    return Path(adapter_base(path)).resolve() == Path(base).resolve()


def adapter_on(model: Any, name: str, folder: str | None, trained: bool = True) -> ScalarModel:
    """A scalar model on a PEFT model's base, with adapter and head from `folder`, or new ones."""
    if folder is None:
        add_adapter(model, name, trained)
        return ScalarModel.on(model, name)
    load_adapter(model, name, folder, trained)
    scalar = head_on(model, name, folder)
    scalar.head.requires_grad_(trained)
    return scalar.averaged() if trained else scalar


def head_on(base: Any, adapter: str | None, folder: str) -> ScalarModel:
    """A scalar model on a loaded base, with the head (all ensemble members) from `folder`."""
    scalar = ScalarModel.on(base, adapter, n_heads(folder))
    scalar.load_head(folder)
    return scalar


def zero_head(head: Any) -> None:
    """Set a head to zero: every value is then 0, and the first advantages are rewards to go (lm-human-preferences)."""
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
