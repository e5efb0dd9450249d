"""How prompts and answers are laid out, and that a number comes back to the token that it belongs to."""

import pytest
import torch

from align.generation.sampling import Answer
from align.rl.rollouts import Rollouts

PROMPTS = [[11, 12, 13], [21], [31, 32]]
ANSWERS = [
    Answer([14, 15], [-0.1, -0.2], True),
    Answer([22, 23, 24], [-1.0, -2.0, -3.0], False),
    Answer([33], [-5.0], True),
]


@pytest.fixture
def rollouts() -> Rollouts:
    return Rollouts.of(PROMPTS, ANSWERS, "cpu")


def test_sequences_are_padded_on_the_right_and_answers_laid_out_from_column_0(rollouts):
    assert rollouts.ids.tolist() == [[11, 12, 13, 14, 15], [21, 22, 23, 24, 0], [31, 32, 33, 0, 0]]
    assert rollouts.is_answer.int().tolist() == [[0, 0, 0, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert rollouts.mask.int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert rollouts.ended.tolist() == [True, False, True]
    assert rollouts.lengths == [5, 4, 3]
    expected = [[-0.1, -0.2, 0.0], [-1.0, -2.0, -3.0], [-5.0, 0.0, 0.0]]
    assert rollouts.sampled_logprobs.tolist() == [pytest.approx(row) for row in expected]
    assert rollouts.sequences() == [p + a.tokens for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert len(rollouts) == 3


def test_a_part_is_cut_to_its_longest_row(rollouts):
    ids, is_answer = rollouts.part([2, 1])
    assert ids.tolist() == [[31, 32, 33, 0], [21, 22, 23, 24]]
    assert is_answer.int().tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize("max_tokens", [1, 8, 1000])
def test_numbers_come_back_to_their_tokens_whatever_the_micro_batches(rollouts, max_tokens):
    found = rollouts.for_each_token(lambda ids, is_answer: ids[is_answer], max_tokens)
    assert found.tolist() == [[14, 15, 0], [22, 23, 24], [33, 0, 0]]
    before = rollouts.for_each_state(lambda ids, is_state: ids[is_state], max_tokens)
    assert before.tolist() == [[13, 14, 0], [21, 22, 23], [32, 0, 0]]


def test_the_state_before_a_token_is_one_position_earlier(rollouts):
    assert rollouts.is_state.int().tolist() == [[0, 0, 1, 1, 0], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
    assert torch.equal(rollouts.states, rollouts.mask)


@pytest.mark.parametrize("max_tokens", [1, 8, 1000])
def test_an_answer_that_is_shorter_than_it_may_be_has_a_state_after_its_end(max_tokens):
    rollouts = Rollouts.of(PROMPTS, ANSWERS, "cpu", max_tokens=3)
    assert rollouts.states.int().tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0]]
    assert rollouts.mask.int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    before = rollouts.for_each_state(lambda ids, is_state: ids[is_state], max_tokens)
    assert before.tolist() == [[13, 14, 15], [21, 22, 23], [32, 33, 0]]
    wider = Rollouts.of(PROMPTS, ANSWERS, "cpu", max_tokens=4)
    assert wider.states.int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert wider.sampled_logprobs.shape == wider.mask.shape == (3, 4)
