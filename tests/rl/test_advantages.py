"""Rewards of tokens, advantages and whitening, on numbers small enough to check by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from align.rl.advantages import gae, grpo, masked_mean, rloo, token_rewards, whiten

MASK = tensor([[True, True, True], [True, False, False]])


def test_the_mean_is_over_the_true_positions():
    assert float(masked_mean(tensor([[1.0, 2.0, 3.0], [6.0, 99.0, 99.0]]), MASK)) == 3.0


def test_whitened_values_have_mean_0_and_biased_variance_1():
    values = tensor([[1.0, 2.0, 3.0], [6.0, 99.0, -99.0]])  # 1 2 3 6: mean 3, biased variance 14 / 4
    whitened = whiten(values, MASK)
    expected = [x / 3.5**0.5 for x in (-2.0, -1.0, 0.0, 3.0)]
    assert whitened[MASK].tolist() == pytest.approx(expected, abs=1e-6)
    assert whitened[~MASK].tolist() == [0.0, 0.0]


def test_whitening_without_shift_keeps_the_mean():
    values = tensor([[1.0, 2.0, 3.0], [6.0, 99.0, -99.0]])
    whitened = whiten(values, MASK, shift_mean=False)[MASK]
    assert float(whitened.mean()) == pytest.approx(3.0, abs=1e-6)
    assert float(whitened.var(correction=0)) == pytest.approx(1.0, abs=1e-6)


def test_equal_values_whiten_to_0():
    assert whiten(torch.full((1, 3), 2.0), tensor([[True] * 3])).tolist() == [[0.0, 0.0, 0.0]]


def test_each_token_pays_for_its_kl_and_the_last_gets_the_score():
    kl = tensor([[0.5, -1.0, 2.0], [1.0, 7.0, 7.0]])  # what stands outside the mask is not looked at
    rewards = token_rewards(tensor([10.0, -1.0]), kl, MASK, kl_coefficient=0.1, states=MASK)
    assert rewards.tolist() == [[pytest.approx(x) for x in row] for row in ((-0.05, 0.1, 9.8), (-1.1, 0.0, 0.0))]


def test_the_score_one_token_after_the_end_where_there_is_room():
    states = tensor([[True, True, True], [True, True, False]])
    rewards = token_rewards(tensor([10.0, -1.0]), torch.zeros(2, 3), MASK, 0.1, states)
    assert rewards.tolist() == [[0.0, 0.0, 10.0], [0.0, -1.0, 0.0]]


def test_gae_of_three_steps_by_hand():
    rewards, values = tensor([[0.0, 1.0, 2.0]]), tensor([[0.5, 1.0, 1.5]])
    # deltas with gamma 0.5: 0 + 0.5*1 - 0.5 = 0; 1 + 0.5*1.5 - 1 = 0.75; 2 - 1.5 = 0.5
    # advantages with gamma*lam 0.25: 0.5; 0.75 + 0.125 = 0.875; 0 + 0.21875
    advantages, returns = gae(rewards, values, tensor([[True] * 3]), gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[0.21875, 0.875, 0.5]]
    assert returns.tolist() == [[0.71875, 1.875, 2.0]]


def test_without_discount_and_with_values_0_advantages_are_rewards_to_go():
    rewards = tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]])
    advantages, returns = gae(rewards, torch.zeros(2, 3), MASK, gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[6.0, 5.0, 3.0], [4.0, 0.0, 0.0]]
    assert torch.equal(returns, advantages)


def test_lam_0_is_the_one_step_error_and_lam_1_the_whole_return():
    rewards, values = tensor([[0.0, 0.0, 1.0]]), tensor([[0.25, 0.5, 0.75]])
    mask = tensor([[True] * 3])
    assert gae(rewards, values, mask, 1.0, lam=0.0)[0].tolist() == [[0.25, 0.25, 0.25]]
    assert gae(rewards, values, mask, 1.0, lam=1.0)[1].tolist() == [[1.0, 1.0, 1.0]]


def test_values_beyond_the_last_state_count_for_nothing():
    rewards = tensor([[1.0, 0.0, 0.0]])
    mask = tensor([[True, False, False]])
    advantages, returns = gae(rewards, tensor([[0.5, 99.0, 99.0]]), mask, 0.9, 0.95)
    assert advantages.tolist() == [[0.5, 0.0, 0.0]]
    assert returns.tolist() == [[1.0, 0.0, 0.0]]


def reference_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Schulman et al. 2016, equation 16, as it is written: a sum of discounted deltas for each token of one answer."""
    n = len(rewards)
    deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    return [sum((gamma * lam) ** (i - t) * deltas[i] for i in range(t, n)) for t in range(n)]


NUMBER = st.floats(-5, 5, width=32)
ROWS = st.lists(st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.floats(0.5, 1), st.floats(0, 1))
def test_gae_of_a_padded_batch_is_that_of_each_answer_alone(rows, gamma, lam):
    width = max(map(len, rows))
    rewards = tensor([[r for r, _ in row] + [0.0] * (width - len(row)) for row in rows])
    values = tensor([[v for _, v in row] + [9.0] * (width - len(row)) for row in rows])
    mask = tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for index, row in enumerate(rows):
        expected = reference_gae([r for r, _ in row], [v for _, v in row], gamma, lam)
        assert advantages[index, : len(row)].tolist() == pytest.approx(expected, abs=1e-3)
        assert advantages[index, len(row) :].abs().sum() == 0
        targets = [a + v for a, (_, v) in zip(expected, row, strict=True)]
        assert returns[index, : len(row)].tolist() == pytest.approx(targets, abs=1e-3)


def test_rloo_is_the_reward_beyond_the_mean_of_the_others():
    returns = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    assert rloo(returns, 3).tolist() == pytest.approx([1 - 4, 2 - 3.5, 6 - 1.5, 0.0, 0.0, 0.0])


def test_grpo_is_the_reward_in_standard_deviations_of_its_prompt():
    returns = torch.tensor([1.0, 3.0, 7.0, 7.0])
    std = math.sqrt(2.0)  # unbiased
    assert grpo(returns, 2).tolist() == pytest.approx([-1 / (std + 1e-4), 1 / (std + 1e-4), 0.0, 0.0])
