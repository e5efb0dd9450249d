from typing import get_args

import pytest
import torch

from align import pretrain
from align.gpt import PRESETS, GPTForCausalLM, preset


def n_parameters(name: str) -> int:
    with torch.device("meta"):
        return GPTForCausalLM(preset(name)).num_parameters()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_gpt2_sizes_are_exact(name, count):
    assert n_parameters(name) == count


def test_gpt3_175b_is_that():
    assert 174.5e9 < n_parameters("gpt3-175b") < 174.7e9  # 12 n_layer n_embd^2 = 173.95e9, and the embeddings


@pytest.mark.parametrize(("name", "least", "most"), [("demo", 0.6e6, 0.8e6), ("small", 13e6, 15e6)])
def test_the_small_ones_are_small(name, least, most):
    assert least < n_parameters(name) < most


def test_a_recipe_can_name_every_preset():
    """They are written out in the recipe too, so that --help need not load the models' code."""
    assert get_args(pretrain.Preset) == tuple(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration(name):
    assert preset(name).n_embd == PRESETS[name]["n_embd"]


def test_overrides_win():
    assert preset("demo", vocab_size=300, dropout=0.1).to_dict().items() >= {"vocab_size": 300, "dropout": 0.1}.items()


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"'gpt5'; the presets are demo, small, gpt2,"):
        preset("gpt5")
