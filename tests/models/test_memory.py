"""What a run is said to cost, before it starts."""

import torch
from transformers import AutoModelForCausalLM

from align import sections
from align.models.load import load_config, stored_config
from align.models.memory import Role, Workload, count_parameters, estimate, optimizer_bytes, size_text, table

WORK = Workload(rows=2, length=16, n_scored=20, precision="fp32", rollout_rows=4, prompt_length=6, answer_length=10)


def test_weights_gradients_and_moments_of_trained_and_frozen_models(world):
    config = load_config(sections.Model(path=world.base))
    n = count_parameters(config)
    assert n == AutoModelForCausalLM.from_pretrained(world.base).num_parameters()
    roles = [Role("policy", config, "trained", ("prompt", "score", "update")), Role("reference", config, "frozen")]
    found = estimate(roles, WORK)
    policy, reference = found.costs
    assert (policy.weights, policy.gradients, policy.optimizer) == (4 * n, 4 * n, 8 * n)
    assert (reference.weights, reference.gradients, reference.optimizer) == (4 * n, 0, 0)
    assert policy.cache == 4 * 16 * 2 * 2 * 32 * 4  # rows, tokens, keys and values, blocks, width, fp32
    assert found.always == found.libraries + 16 * n
    assert found.phases["checkpoint"] == 8 * n
    assert found.peak == found.always + max(found.phases.values())


def test_one_base_serves_all_adapters(world):
    config, lora = load_config(sections.Model(path=world.base)), sections.Lora(rank=2)
    base = {"dtype": torch.bfloat16, "quantization": "4bit"}
    roles = [
        Role("base", config, "frozen", **base),
        Role("policy", config, "adapter", ("score", "update"), lora=lora, **base),
        Role("reference", config, "shared", ("score",), **base),
        Role("critic", config, "adapter", ("score", "update"), "scalar", lora=lora, **base),
        Role("reward", config, "shared", ("score",), "scalar", lora=lora, **base),
    ]
    found = {cost.role: cost for cost in estimate(roles, WORK).costs}
    assert [name for name, cost in found.items() if cost.weights] == ["base"]
    assert found["base"].weights < count_parameters(config) * 2
    assert found["policy"].gradients == found["policy"].adapters == found["policy"].optimizer / 2 > 0
    assert found["critic"].adapters == found["policy"].adapters + 4 * (32 + 1) == found["reward"].adapters
    assert found["reference"].adapters == found["reward"].gradients == 0


def test_members_of_an_ensemble_on_one_trunk_add_their_heads_alone(world):
    config = load_config(sections.Model(path=world.base))
    head = 4 * (32 + 1)
    for kind in ("trained", "shared"):
        one, three = (
            estimate([Role("reward", config, kind, ("score",), "scalar", heads=n)], WORK).costs[0] for n in (1, 3)
        )
        assert three.weights + three.adapters == one.weights + one.adapters + 2 * head
        assert three.activations >= one.activations


def test_more_tokens_cost_more_and_every_saving_saves(world):
    config = stored_config(sections.Model(path=world.gpt2))
    roles = [Role("policy", config, "trained", ("update",))]

    def update(**changes):
        return estimate(roles, WORK.__class__(**{**WORK.__dict__, **changes})).phases["update"]

    assert update(rows=4, n_scored=40) > 1.5 * update(n_scored=20)
    assert update(checkpointing=True) < update()
    assert update(dropout=True) > update()


def test_eight_bit_moments_have_two_scales_a_block_and_small_tensors_none():
    assert optimizer_bytes("adamw", [5000, 10]) == 8 * 5010
    assert optimizer_bytes("adamw8bit", [5000, 10]) == 2 * 5000 + 2 * 4 * 20 + 8 * 10


def test_a_gpu_has_no_load_and_no_checkpoint(world):
    roles = [Role("policy", load_config(sections.Model(path=world.base)), "trained", ("update",))]
    on_gpu = estimate(roles, Workload(2, 16, 20, "bf16", device="gpu"))
    assert set(on_gpu.phases) == {"update"}
    assert on_gpu.host_phases["checkpoint"] > 0
    assert on_gpu.allocator == 0


def test_the_table_names_roles_phases_and_the_verdict(world):
    roles = [Role("policy", load_config(sections.Model(path=world.base)), "trained", ("update",))]
    found = estimate(roles, WORK)
    told = table(found, available=1e3)
    for word in ("policy", "KV cache", "phases add: update", f"peak: {size_text(found.peak)}", "does not fit into"):
        assert word in told
    assert "\nfits into" in table(found, available=1e12)
    assert (size_text(2.5e9), size_text(4e5)) == ("2.50 GB", "0.4 MB")
