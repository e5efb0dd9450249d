"""The memory estimate's roles are those that a PPO run loads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import recipe_of, run
from tiny import tiny_gpt
from transformers import LlamaConfig, LlamaForSequenceClassification

from align import ppo, rm
from align.models.memory import estimate
from align.models.scalar import ScalarModel
from align.rl.plan import plan_of_models
from align.rl.roles import load_roles
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator as make_accelerator
from align.train.plan import Device

pytestmark = pytest.mark.heavy

CPU = Device("cpu", 1e9)
WIDTHS: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
LORA: dict[str, Any] = {"model__adapter": "lora", "model__lora__rank": 3}


@pytest.fixture(scope="module")
def rewards(world, tokenizer, tmp_path_factory) -> dict[str, str]:
    """A whole reward model of three heads, and two adapters on the policy's base, of another rank than the policy's."""
    folder = tmp_path_factory.mktemp("rewards")
    ScalarModel(tiny_gpt(tokenizer).transformer, heads=3).save(folder / "heads")
    tokenizer.save_pretrained(folder / "heads")
    for name, heads in (("one", 1), ("two", 2)):
        keys = {"model__adapter": "lora", "model__lora__rank": 5, "train__steps": 1, "heads": heads}
        run(rm, world, folder / name, **keys)
    adapters = {name: str(folder / name / "adapter") for name in ("one", "two")}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, num_hidden_layers=2, **WIDTHS)
    LlamaForSequenceClassification(config).save_pretrained(folder / "foreign")
    tokenizer.save_pretrained(folder / "foreign")
    return {"whole": world.reward, "foreign": str(folder / "foreign"), "heads": str(folder / "heads"), **adapters}


CASES: dict[str, dict[str, Any]] = {
    "whole": {"reward__path": ["whole"]},
    "whole, an ensemble": {"reward__path": ["heads", "whole"]},
    "whole, two sources": {"reward__path": ..., "reward__sources": [{"path": "whole"}, {"path": "heads"}]},
    "whole, somebody else's": {"reward__path": ["foreign"]},
    "lora, somebody else's": LORA | {"reward__path": ["foreign"]},
    "lora, an adapter on the base": LORA | {"reward__path": ["one"]},
    "lora, an ensemble on the base": LORA | {"reward__path": ["one", "two"]},
    "lora, one on the base and one whole": LORA | {"reward__path": ["two", "heads"]},
    "lora, the critic starts from a whole one": LORA | {"reward__path": ["heads", "whole"]},
    "lora, a critic of its own": LORA | {"reward__path": ["one"], "ppo__critic": "whole"},
    "lora, a critic of zeros": LORA | {"reward__path": ["two"], "ppo__critic": "base"},
    "lora, a reference that follows": LORA | {"reward__path": ["one"], "kl__reference_every": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_has_the_bytes_of_all_that_is_loaded(case, rewards, world, tmp_path):
    files = rewards | {"base": world.base}
    changes = dict(CASES[case])
    if changes["reward__path"] is ...:
        changes["reward__sources"] = [{"path": files[source["path"]]} for source in changes["reward__sources"]]
    else:
        changes["reward__path"] = [files[name] for name in changes["reward__path"]]
    changes |= {"ppo__critic": files[changes["ppo__critic"]]} if "ppo__critic" in changes else {}
    recipe = recipe_of(ppo, world, tmp_path / "run", **changes)
    roles = load_roles(recipe, load_tokenizer(world.base), make_accelerator("fp32"))
    costs = estimate(*plan_of_models(recipe, 10)(recipe, CPU)).costs
    found = sum(cost.weights + cost.adapters for cost in costs)
    assert found == pytest.approx(loaded_bytes(roles), abs=4)  # somebody else's head has no bias


def loaded_bytes(roles: Any) -> int:
    """Of all parameters, each counted once however many roles stand on it."""
    reward = roles.reward
    sources = [source.reward for source in getattr(reward, "sources", [])] or [reward]
    members = [member for source in sources for member in getattr(source, "members", [source])]
    models = [roles.policy, roles.reference, roles.critic, roles.critic.base, *(member.model for member in members)]
    parameters: dict[int, torch.Tensor] = {id(p): p for model in models for p in model.parameters()}
    return sum(p.nbytes for p in parameters.values())
