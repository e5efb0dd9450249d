import pytest
import torch
from torch import tensor

from align.gpt.masks import attention_bias, token_positions

CPU = torch.device("cpu")
NO = float("-inf")


def bias(mask, n_past, n_new, n_keys):
    return attention_bias(mask, n_past, n_new, n_keys, torch.float32, CPU)


def test_positions_count_real_tokens_only():
    mask = tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    assert token_positions(mask, 0, 5, CPU).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 0, 0, 0]]
    assert token_positions(mask, 3, 2, CPU).tolist() == [[1, 2], [2, 2], [0, 0]]


def test_positions_without_a_mask_go_on_from_the_cache():
    assert token_positions(None, 3, 2, CPU).tolist() == [[3, 4]]
    assert token_positions(None, tensor(3), 2, CPU).tolist() == [[3, 4]]


@pytest.mark.parametrize(("n_past", "n_new", "n_keys"), [(0, 5, 5), (0, 1, 1), (7, 1, 8)])
def test_no_bias_where_plain_causal_attention_says_it_all(n_past, n_new, n_keys):
    assert bias(None, n_past, n_new, n_keys) is None


def test_several_new_tokens_after_a_cache_see_it_and_each_other_causally():
    assert bias(None, 2, 2, 4).tolist() == [[[[0, 0, 0, NO], [0, 0, 0, 0]]]]


def test_the_empty_tail_of_a_fixed_cache_is_unseen():
    assert bias(None, tensor(1), 1, 4).tolist() == [[[[0, 0, NO, NO]]]]
    assert bias(tensor([[0, 1]]), tensor(1), 1, 4).tolist() == [[[[NO, 0, NO, NO]]]]


def test_padding_is_unseen_but_by_itself():
    left = [[0, NO, NO], [NO, 0, NO], [NO, 0, 0]]
    right = [[0, NO, NO], [0, 0, NO], [0, 0, 0]]
    nothing_real = [[0, NO, NO], [NO, 0, NO], [NO, NO, 0]]
    mask = tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0]])
    assert bias(mask, 0, 3, 3)[:, 0].tolist() == [left, right, nothing_real]


def test_a_mask_of_four_dimensions_passes_as_it_is():
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    assert bias(mask, 0, 3, 3) is mask


def test_a_mask_that_forgets_the_cache_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 2\).* 3 cached and 2 new .*give \(batch, 5\)"):
        bias(torch.ones(1, 2), 3, 2, 5)
