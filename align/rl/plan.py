"""The roles of a PPO run and what goes through them at once, for the memory estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from align.models.load import adapter_base, is_adapter, load_config
from align.models.memory import Role, Workload
from align.train.plan import Describe, Described, Device, rows_at_once, shared_workload, with_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Shapes(NamedTuple):
    """The configurations of a PPO run's models."""

    policy: PretrainedConfig
    critic: PretrainedConfig | None  # none where there is no critic, or a head on the policy's trunk
    reward: PretrainedConfig | None  # none where a function scores
    reward_is_adapter: bool = False  # on the policy's own base


def ppo_roles(shapes: Shapes, prompt_length: int) -> Describe:
    """Describes PPO to the estimate; `prompt_length` is that of the longest prompt, in tokens."""

    def describe(recipe: Any, device: Device) -> Described:
        precision = device.precision(recipe.train.precision)
        length = prompt_length + recipe.rollout.max_tokens
        rows = rows_at_once(length, recipe.train.micro_batch_tokens, recipe.optim.batch_size)
        roles = _one_base(recipe, shapes, precision) if recipe.model.adapter == "lora" else _whole_models(shapes)
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
    """Describes the run of a recipe whose models are there."""

    def shape(path: str) -> PretrainedConfig:
        return load_config(recipe.model.model_copy(update={"path": path}))

    reward = next(iter(recipe.reward.paths), None)  # of an ensemble the first; the others are not counted
    return ppo_roles(
        Shapes(
            policy=shape(recipe.model.path),
            critic=shape(recipe.ppo.critic or reward or recipe.model.path) if has_critic(recipe) else None,
            reward=None if reward is None else shape(reward),
            reward_is_adapter=reward is not None and is_adapter(reward) and adapter_base(reward) == recipe.model.path,
        ),
        prompt_length,
    )


def plan_of_shape(recipe: Any, shape: PretrainedConfig) -> Describe:
    """Describes the run of a recipe if all its models had this shape, a reward model being an adapter like the others.

    The longest prompt is then all that `data.max_tokens` leaves beside the answer.
    """
    critic, reward = shape if has_critic(recipe) else None, shape if recipe.reward.paths else None
    shapes = Shapes(shape, critic, reward, reward_is_adapter=True)
    return ppo_roles(shapes, max(1, recipe.data.max_tokens - recipe.rollout.max_tokens))


def has_critic(recipe: Any) -> bool:
    """Whether a critic takes memory of its own."""
    return recipe.ppo.advantage == "gae" and recipe.ppo.critic != "trunk"


def _whole_models(shapes: Shapes) -> list[Role]:
    """Without adapters each role is a model of its own, in fp32."""
    roles = [
        Role("policy", shapes.policy, "trained", ("prompt", "score", "update")),
        Role("reference", shapes.policy, "frozen", ("score",)),
    ]
    if shapes.critic is not None:
        roles.append(Role("critic", shapes.critic, "trained", ("score", "update"), "scalar"))
    if shapes.reward is not None:
        roles.append(Role("reward", shapes.reward, "frozen", ("score",), "scalar"))
    return roles


def _one_base(recipe: Any, shapes: Shapes, precision: Literal["fp32", "bf16"]) -> list[Role]:
    """With adapters one frozen base serves all; a reward model that is another whole model stands beside it."""
    passes = ("prompt", "score", "update")
    base, policy = with_adapter("policy", shapes.policy, recipe.model, precision, "vocabulary", passes)
    below: dict[str, Any] = {"dtype": base.dtype, "quantization": base.quantization}
    roles = [
        base,
        policy,
        Role("reference", shapes.policy, "shared", ("score",), **below),
    ]
    if shapes.critic is not None:
        lora = recipe.model.lora
        roles.append(Role("critic", shapes.policy, "adapter", ("score", "update"), "scalar", lora=lora, **below))
    if shapes.reward is not None and shapes.reward_is_adapter:
        roles.append(Role("reward", shapes.policy, "shared", ("score",), "scalar", lora=recipe.model.lora, **below))
    elif shapes.reward is not None:
        roles.append(Role("reward", shapes.reward, "frozen", ("score",), "scalar", dtype=torch.float32))
    return roles
