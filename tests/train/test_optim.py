"""The learning rate step by step, and which weights decay."""

import pytest
import torch

from align.sections import Optim
from align.train.optim import build_optimizer, learning_rate, set_learning_rate


def rates(n_steps: int, **settings) -> list[float]:
    return [learning_rate(Optim(learning_rate=1.0, **settings), step, n_steps) for step in range(n_steps)]


def test_a_constant_rate_stays():
    assert rates(3, schedule="constant") == [1.0, 1.0, 1.0]


def test_linear_decay_is_lhp_and_n_plus_lr_times_1_minus_step_over_n_steps():
    assert rates(4, schedule="linear", final_ratio=0.0) == [1.0, 0.75, 0.5, 0.25]


def test_linear_decay_to_a_final_ratio():
    assert rates(4, schedule="linear", final_ratio=0.5) == [1.0, 0.875, 0.75, 0.625]


def test_cosine_decay_to_a_tenth():
    assert rates(4, schedule="cosine") == pytest.approx(
        [1.0, 0.1 + 0.9 * 0.853553, 0.55, 0.1 + 0.9 * 0.146447], abs=1e-6
    )
    assert learning_rate(Optim(learning_rate=1.0, schedule="cosine"), 4, 4) == pytest.approx(0.1)


def test_warm_up_rises_linearly_to_the_peak_and_the_schedule_begins_there():
    found = rates(6, schedule="linear", final_ratio=0.0, warmup_steps=2)
    assert found == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_a_run_shorter_than_its_warm_up_is_all_warm_up():
    assert rates(2, warmup_steps=4) == [0.25, 0.5]


def test_a_rate_is_set_in_every_group():
    optimizer = build_optimizer(Optim(), torch.nn.Linear(2, 2))
    assert len(optimizer.param_groups) == 2
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_weight_decay_falls_on_matrices_only(name):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64))
    before = {key: value.clone() for key, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(Optim(name=name, learning_rate=0.1, weight_decay=0.5), model).step()
    torch.testing.assert_close(model[0].weight, before["0.weight"] * 0.95)  # decoupled: 1 - 0.1 * 0.5
    for key in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(model.get_parameter(key), before[key])


def test_frozen_weights_are_left_out_and_shared_ones_taken_once():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    taken = [id(p) for group in build_optimizer(Optim(), model, model[1]).param_groups for p in group["params"]]
    assert sorted(taken) == sorted([id(model[1].weight), id(model[1].bias)])


def test_settings_reach_the_optimizer():
    settings = Optim(learning_rate=0.3, betas=(0.5, 0.75), eps=0.01)
    for group in build_optimizer(settings, torch.nn.Linear(2, 2)).param_groups:
        assert (group["lr"], tuple(group["betas"]), group["eps"]) == (0.3, (0.5, 0.75), 0.01)
