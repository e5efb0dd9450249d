"""The benchmarks count what they say they count."""

import sys
from pathlib import Path

import bitsandbytes
import pytest
import torch
from helpers import recipe_of
from torch import nn

from align import ppo
from align.rl.roles import load_roles
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from roles_memory import distinct_bytes


def test_weights_on_one_storage_count_once():
    one, other = nn.Linear(8, 4, bias=False), nn.Linear(8, 4, bias=False)
    other.weight = one.weight
    assert distinct_bytes((one, other)) == 8 * 4 * 4
    assert distinct_bytes((one, nn.Linear(8, 4, bias=False))) == 2 * 8 * 4 * 4


def test_the_constants_of_4_bit_weights_count():
    layer = bitsandbytes.nn.Linear4bit(128, 64, bias=False, compress_statistics=False).to("cpu")
    layer(torch.zeros(1, 128))  # quantised by now
    state = layer.weight.quant_state
    table, absmax = state.code.numel() * 4, state.absmax.numel() * 4
    assert state.absmax.numel() == 128 * 64 // state.blocksize
    assert distinct_bytes((layer,)) == 128 * 64 // 2 + table + absmax


@pytest.mark.parametrize(("adapter", "low", "high"), [("none", 4.0, 4.01), ("lora", 1.0, 4.0)])
def test_whole_roles_are_four_models_and_a_head_or_two(adapter, low, high, world, tmp_path):
    recipe = recipe_of(ppo, world, tmp_path / "run", model__adapter=adapter)
    roles = load_roles(recipe, load_tokenizer(world.base), accelerator("fp32"))
    whole = distinct_bytes((roles.policy, roles.reference, roles.critic, roles.reward.model))
    assert low < whole / distinct_bytes((roles.reference,)) <= high
