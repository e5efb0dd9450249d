"""Shares of a batch and sums over processes, with processes that are only imagined."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from align.errors import UserError
from align.train.parallel import check_shares, my_share, synced_at_last, total


def one_of(index: int, n: int) -> SimpleNamespace:
    return SimpleNamespace(process_index=index, num_processes=n)


def test_the_shares_of_all_processes_are_the_batch():
    shares = [my_share(range(7), one_of(index, 3)) for index in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_process_without_work_is_told_of_before_it_keeps_the_others_waiting():
    check_shares(one_of(0, 3), "optim.batch_size", 3)
    check_shares(one_of(0, 3), "optim.batch_size", 11, least=3)
    with pytest.raises(
        UserError, match=r"optim\.batch_size = 2: each of 3 processes needs at least one; give 3 or more"
    ):
        check_shares(one_of(0, 3), "optim.batch_size", 2)
    with pytest.raises(UserError, match=r"= 11: each of 3 processes needs at least 4; give 12 or more"):
        check_shares(one_of(0, 3), "optim.batch_size", 11, least=4)


def test_a_sum_of_one_process_is_its_own():
    assert total(one_of(0, 1), 3, torch.tensor(2.5), torch.tensor(4)) == [3.0, 2.5, 4.0]


def test_sums_are_taken_over_all_processes():
    several = one_of(0, 2)
    several.device = torch.device("cpu")
    several.reduce = lambda tensor, how: tensor * 2 if how == "sum" else None  # as if the other had counted the same
    assert total(several, 1, torch.tensor(0.5)) == [2.0, 1.0]


def test_large_counts_are_summed_exactly():
    assert total(one_of(0, 1), 2**24 + 1) == [2**24 + 1]


def test_gradients_cross_between_processes_at_the_last_micro_batch_only():
    seen = []

    @contextmanager
    def no_sync(model):
        seen.append("off")
        yield
        seen.append("on")

    for item in synced_at_last(SimpleNamespace(no_sync=no_sync), None, iter("abc")):
        seen.append(item)
    assert seen == ["off", "a", "on", "off", "b", "on", "c"]
