"""Memory estimate of PPO: the roles that `align.rl.roles` loads, and how much goes through each at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from align import sections
from align.models.load import adapter_shape, load_config
from align.models.memory import Role, Workload
from align.models.purpose import head_role
from align.models.scalar import n_heads
from align.rl.roles import TRUNK, critic_section, stands_on
from align.train.plan import Describe, Described, Device, rows_at_once, shared_workload, with_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Scalar(NamedTuple):
    """A reward model, or the start of a critic."""

    path: str
    config: PretrainedConfig
    heads: int = 1
    on_policy: sections.Lora | None = None  # shape of its adapter, if it is one on the policy's base


class Shapes(NamedTuple):
    """The models of a PPO run."""

    policy: PretrainedConfig
    critic: Scalar | None  # None without a critic, or for a head on the policy's trunk
    rewards: Sequence[Scalar] = ()  # all reward models loaded in this run


def ppo_roles(shapes: Shapes, prompt_length: int) -> Describe:
    """Describe PPO to the memory estimate. `prompt_length`: tokens of the longest prompt."""

    def describe(recipe: Any, device: Device) -> Described:
        precision = device.precision(recipe.train.precision)
        length = prompt_length + recipe.rollout.max_tokens
        rows = rows_at_once(length, recipe.train.micro_batch_tokens, recipe.optim.batch_size)
        roles = _few_bases(recipe, shapes, precision) if recipe.model.adapter == "lora" else _whole_models(shapes)
        return roles, Workload(
            rows=rows,
            length=length,
            n_scored=rows * recipe.rollout.max_tokens,
            loss="policy",
            rollout_rows=rows_at_once(length, recipe.rollout.batch_tokens, recipe.optim.batch_size),
            prompt_length=prompt_length,
            answer_length=recipe.rollout.max_tokens,
            **shared_workload(recipe, recipe.model, device),
        )

    return describe


def plan_of_models(recipe: Any, prompt_length: int) -> Describe:
    """Describe a recipe whose models exist."""

    def shape(path: str) -> PretrainedConfig:
        return load_config(recipe.model.model_copy(update={"path": path}))

    def scalar(path: str) -> Scalar:
        own = adapter_shape(path) if stands_on(path, recipe.model.path) else None
        return Scalar(path, shape(path), n_heads(path), own)

    policy, critic = shape(recipe.model.path), None
    if has_critic(recipe):
        path = critic_section(recipe).path
        starts_as_policy = path == recipe.model.path
        critic = Scalar(path, policy, on_policy=recipe.model.lora) if starts_as_policy else scalar(path)
    return ppo_roles(Shapes(policy, critic, [scalar(path) for path in recipe.reward.paths]), prompt_length)


def plan_of_shape(recipe: Any, shape: PretrainedConfig) -> Describe:
    """Describe a recipe as if all its models had this shape and reward models were adapters.

    The longest prompt is then what `data.max_tokens` leaves after the answer.
    """
    rewards = [Scalar(path, shape, on_policy=recipe.model.lora) for path in recipe.reward.paths]
    critic = Scalar(recipe.model.path, shape, on_policy=recipe.model.lora) if has_critic(recipe) else None
    return ppo_roles(Shapes(shape, critic, rewards), max(1, recipe.data.max_tokens - recipe.rollout.max_tokens))


def has_critic(recipe: Any) -> bool:
    """Whether the run has a critic with memory of its own."""
    return recipe.ppo.advantage == "gae" and recipe.ppo.critic != TRUNK


def _whole_models(shapes: Shapes) -> list[Role]:
    """Without adapters: each role is a model of its own, in fp32."""
    roles = [
        Role("policy", shapes.policy, "trained", ("prompt", "score", "update")),
        Role("reference", shapes.policy, "frozen", ("score",)),
    ]
    if shapes.critic is not None:
        roles.append(Role("critic", shapes.critic.config, "trained", ("score", "update"), "scalar"))
    frozen = [Role("", reward.config, "frozen", ("score",), "scalar", heads=reward.heads) for reward in shapes.rewards]
    return roles + _named(frozen)


def _few_bases(recipe: Any, shapes: Shapes, precision: Literal["fp32", "bf16"]) -> list[Role]:
    """With adapters: one frozen base serves all adapters on it; other whole models are separate."""
    model, critic = recipe.model, shapes.critic
    base, policy = with_adapter("policy", shapes.policy, model, precision, "vocabulary", ("prompt", "score", "update"))
    below: dict[str, Any] = {"dtype": base.dtype, "quantization": base.quantization}
    follows = model.lora if recipe.kl.reference_every else None
    roles = [base, policy, Role("reference", shapes.policy, "shared", ("score",), lora=follows, **below)]
    if critic is not None:
        if critic.on_policy is None:
            roles.append(Role("critic base", critic.config, "frozen", head="scalar", heads=0, **below))
        lora = critic.on_policy or model.lora
        roles.append(Role("critic", critic.config, "adapter", ("score", "update"), "scalar", lora=lora, **below))
    rewards = []
    for reward in shapes.rewards:
        on_critic = critic is not None and reward.path == critic.path and head_role(reward.path) is not None
        shares = reward.on_policy is not None or on_critic
        how: dict[str, Any] = {"lora": reward.on_policy, **below} if shares else {}
        kind: Literal["shared", "frozen"] = "shared" if shares else "frozen"
        rewards.append(Role("", reward.config, kind, ("score",), "scalar", heads=reward.heads, **how))
    return roles + _named(rewards)


def _named(rewards: list[Role]) -> list[Role]:
    """Reward roles with names, numbered if there are several."""
    names = ["reward"] if len(rewards) == 1 else [f"reward {number}" for number, _ in enumerate(rewards, 1)]
    return [replace(role, name=name) for role, name in zip(rewards, names, strict=True)]
