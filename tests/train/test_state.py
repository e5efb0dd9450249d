"""Checkpoints: what is written comes back, and half of one is never taken for a whole."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from align.errors import UserError
from align.sections import Optim
from align.train.optim import build_optimizer
from align.train.state import (
    RandomState,
    Trainable,
    generator,
    load_checkpoint,
    save_checkpoint,
    seed_everything,
    steps_saved,
)


class Holder:
    """A part of a checkpoint that holds whatever it is given."""

    def __init__(self, state=None) -> None:
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state_dict) -> None:
        self.state = state_dict


def there_and_back(folder, state):
    save_checkpoint(folder, 1, {"part": Holder(state)}, keep=1)
    read = Holder()
    load_checkpoint(folder, 1, {"part": read})
    return read.state


def same(left, right) -> bool:
    """Equal in value, in type and, for tensors, in dtype and every bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def test_a_nested_state_comes_back_with_its_types(tmp_path):
    state = {
        "state": {0: {"step": torch.tensor(3.0), "moment": torch.randn(2, 3)}, 1: {}},
        "groups": [{"betas": (0.9, 0.95), "fused": True, "params": [0, 1], "foreach": None, "name": "a/b"}],
        "of every kind": [torch.tensor([1, 2], dtype=torch.uint8), torch.tensor(True), torch.zeros(0, 4)],
        "bf16": torch.randn(3).bfloat16(),
    }
    assert same(there_and_back(tmp_path, state), state)


LEAF = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5)
TREE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(TREE)
def test_any_tree_comes_back(tmp_path_factory, tree):
    assert same(there_and_back(tmp_path_factory.mktemp("checkpoint"), {"tree": tree}), {"tree": tree})


def test_tensors_that_share_memory_or_are_views_come_back(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    state = {"whole": whole, "again": whole, "turned": whole.T, "row": whole[1]}
    assert same(there_and_back(tmp_path, state), state)


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"a checkpoint cannot hold /a/1: set"):
        save_checkpoint(tmp_path, 1, {"part": Holder({"a": [1, {2}]})}, keep=1)


def stepped(model, optimizer, n_steps, first=0):
    for step in range(first, first + n_steps):
        torch.manual_seed(step)
        model(torch.randn(8, 64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(tmp_path, name):
    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Linear(64, 80)  # large enough for bitsandbytes to keep its moments in 8 bits
        return model, build_optimizer(Optim(name=name, learning_rate=0.01, weight_decay=0.1), model)

    whole, optimizer = fresh()
    stepped(whole, optimizer, 6)

    stopped, optimizer = fresh()
    stepped(stopped, optimizer, 3)
    save_checkpoint(tmp_path, 3, {"model": Trainable(stopped), "optimizer": optimizer}, keep=1)
    resumed, optimizer = fresh()
    load_checkpoint(tmp_path, 3, {"model": Trainable(resumed), "optimizer": optimizer})
    stepped(resumed, optimizer, 3, first=3)

    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)
    dtypes = {value.dtype for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)}
    assert (torch.uint8 in dtypes) == (name == "adamw8bit")


def test_only_what_is_trained_is_written(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert list(Trainable(model).state_dict()) == ["1.weight", "1.bias"]
    save_checkpoint(tmp_path, 1, {"model": Trainable(model)}, keep=1)
    saved = model[1].weight.clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    load_checkpoint(tmp_path, 1, {"model": Trainable(model)})
    assert torch.equal(model[1].weight, saved)
    assert model[0].weight.tolist() == [[7.0, 7.0], [7.0, 7.0]]


def drawn() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]


def test_every_random_state_is_restored(tmp_path):
    seed_everything(5)
    drawn()  # so that Python and NumPy hold a second Gaussian in reserve
    save_checkpoint(tmp_path, 1, {"random": RandomState()}, keep=1)
    expected = drawn()
    drawn()
    load_checkpoint(tmp_path, 1, {"random": RandomState()})
    assert drawn() == expected


def test_a_seed_decides_every_random_state():
    seed_everything(5)
    first = drawn()
    seed_everything(5)
    assert drawn() == first
    seed_everything(6)
    assert not set(drawn()) & set(first)


def test_a_random_state_is_data_that_json_and_safetensors_hold(tmp_path):
    assert same(there_and_back(tmp_path, RandomState().state_dict()), RandomState().state_dict())


def test_a_generator_is_a_function_of_its_numbers():
    def first(*numbers: int) -> float:
        return float(torch.rand((), generator=generator("cpu", *numbers)))

    assert first(1, 2, 3) == first(1, 2, 3)
    seeds = [(1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2), (1, 2, 3, 0), (0, 0), (0, 1), (1, 0), (2**62, 5)]
    assert len({first(*numbers) for numbers in seeds}) == len(seeds)


def test_the_latest_checkpoints_are_kept(tmp_path):
    for step in (2, 4, 10, 6):
        save_checkpoint(tmp_path, step, {"part": Holder(step)}, keep=2)
    assert steps_saved(tmp_path) == [6, 10]


def test_a_checkpoint_is_whole_or_not_there(tmp_path):
    class Breaks(Holder):
        def state_dict(self):
            raise KeyboardInterrupt

    save_checkpoint(tmp_path, 1, {"part": Holder(1)}, keep=2)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 2, {"part": Holder(2), "second": Breaks()}, keep=2)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]  # something was written
    assert steps_saved(tmp_path) == [1]
    save_checkpoint(tmp_path, 2, {"part": Holder(2), "second": Holder(3)}, keep=2)
    assert steps_saved(tmp_path) == [1, 2]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_saving_a_step_again_replaces_it(tmp_path):
    for state in ("before", "after"):
        assert there_and_back(tmp_path, state) == state


@pytest.mark.parametrize("file", ["part.json", "part.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path, file, damage):
    path = save_checkpoint(tmp_path, 7, {"part": Holder({"x": torch.ones(3)})}, keep=1) / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"step-00000007: part of this checkpoint cannot be read .*remove the folder"):
        load_checkpoint(tmp_path, 7, {"part": Holder()})


def test_no_folder_has_no_steps(tmp_path):
    assert steps_saved(tmp_path / "nowhere") == []


@pytest.mark.parametrize("width", [3, 5])
def test_a_checkpoint_of_other_weights_is_told_in_words(width):
    """Such as one whose vocabulary was larger by a pad token."""
    saved = Trainable(torch.nn.Linear(2, width)).state_dict()
    with pytest.raises(UserError, match=r"resume: the checkpoint has other weights .*\(at weight\).*overwrite=true"):
        Trainable(torch.nn.Linear(2, 4)).load_state_dict(saved)
    with pytest.raises(UserError, match=r"\(at bias\)"):
        Trainable(torch.nn.Linear(2, width, bias=False)).load_state_dict(saved)
