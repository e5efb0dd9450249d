"""Shapes by name, for estimates without a model."""

import pytest

from align.errors import UserError
from align.models.memory import count_parameters
from align.models.shapes import SIZES, model_shape


@pytest.mark.parametrize(
    ("name", "n"), [("124M", 124_439_808), ("1.5B", 1_557_611_200), ("7B", 6_658_404_352), ("13B", 12_853_386_240)]
)
def test_sizes_are_those_of_the_papers(name, n):
    assert count_parameters(model_shape(name)) == n


def test_presets_and_folders_have_shapes_too(world):
    assert model_shape("demo").n_embd == 128
    assert model_shape(world.gpt2).n_embd == 32


def test_another_name_is_refused_with_those_that_exist(tmp_path):
    with pytest.raises(UserError, match=r"--model-shape 8B: unknown; give a size \(124M"):
        model_shape("8B")
    assert set(SIZES) == {"124M", "1.5B", "7B", "13B"}
