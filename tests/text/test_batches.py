"""Which rows go into a step, and how they are laid out."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.text.batches import micro_batches, pad_right, rows_of_step, steps_in

LENGTHS = st.lists(st.integers(1, 40), max_size=30)


@pytest.mark.parametrize(
    ("epochs", "n_rows", "batch_size", "expected"),
    [(1, 8, 4, 2), (1, 9, 4, 3), (2, 9, 4, 5), (0.5, 8, 4, 1), (1, 3, 64, 1), (0.01, 3, 64, 1)],
)
def test_steps_cover_every_row_of_every_pass(epochs, n_rows, batch_size, expected):
    assert steps_in(epochs, n_rows, batch_size) == expected


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**40))
def test_each_row_comes_once_in_each_pass(n_rows, batch_size, seed):
    n_steps = 2 * n_rows  # so that n_steps * batch_size is two passes a batch
    read = [row for step in range(1, n_steps + 1) for row in rows_of_step(step, n_rows, batch_size, seed)]
    for start in range(0, len(read), n_rows):
        assert sorted(read[start : start + n_rows]) == list(range(n_rows))


def test_a_step_does_not_depend_on_the_steps_before_it():
    forwards = [rows_of_step(step, 10, 4, seed=3) for step in range(1, 8)]
    backwards = [rows_of_step(step, 10, 4, seed=3) for step in range(7, 0, -1)]
    assert forwards == backwards[::-1]


def test_every_pass_and_every_seed_has_an_order_of_its_own():
    orders = [tuple(rows_of_step(step, 20, 20, seed)) for seed in (1, 2) for step in (1, 2, 3)]
    assert len(set(orders)) == 6
    assert tuple(range(20)) not in orders


def test_the_order_of_a_pass_is_drawn_once(monkeypatch):
    drawn = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **keys: drawn.append(n) or randperm(n, **keys))
    for step in range(1, 101):  # 10 steps a pass, beside other rows that are read at the same time
        rows_of_step(step, 105, 10, seed=2**40)
        rows_of_step(step, 31, 2, seed=2**40)
    assert Counter(drawn) == {105: 10, 31: 7}


def test_similar_lengths_go_together_under_the_budget():
    assert micro_batches([5, 1, 3, 9, 2], max_tokens=9) == [[1, 4, 2], [0], [3]]


def test_a_row_over_the_budget_goes_alone():
    assert micro_batches([3, 20, 30], max_tokens=10) == [[0], [1], [2]]


def test_no_rows_are_no_batches():
    assert micro_batches([], max_tokens=10) == []


@given(LENGTHS, st.integers(1, 100))
def test_every_row_is_in_one_group_within_the_budget(lengths, max_tokens):
    groups = micro_batches(lengths, max_tokens)
    assert Counter(index for group in groups for index in group) == Counter(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= max_tokens


@given(LENGTHS, st.integers(1, 100))
def test_no_two_neighbouring_groups_would_fit_in_one(lengths, max_tokens):
    groups = micro_batches(lengths, max_tokens)
    for left, right in pairwise(groups):
        assert (len(left) + 1) * lengths[right[0]] > max_tokens


def test_rows_are_padded_on_the_right():
    assert pad_right([[5, 6], [7], [1, 2, 3]]).tolist() == [[5, 6, 0], [7, 0, 0], [1, 2, 3]]
    assert pad_right([[5, 6], [7]], fill=9).tolist() == [[5, 6], [7, 9]]
    assert pad_right([[True], [False, True]]).bool().tolist() == [[True, False], [False, True]]
