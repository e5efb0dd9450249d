"""Shares of wins by hand, tests that agree with each other, a ranking, and judges against judges."""

import json

import numpy as np
import pytest

from align.stats.preferences import judges_agree, order_bias, preference, ranking
from align.stats.significance import paired_permutation

OUTCOMES = [1, 1, 1, None, 0.5, 0, 1, None, 1, 1]  # 6 wins, 1 tie, 1 loss, 2 failed
LENGTHS = list(range(10)), [5] * 10


def test_shares_by_hand():
    found = preference(OUTCOMES, *LENGTHS)
    assert (found.win.mean, found.tie.mean, found.loss.mean) == (6 / 8, 1 / 8, 1 / 8)
    assert found.rate.mean == 6.5 / 8
    assert (found.n, found.n_failed) == (8, 2)
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)  # of 7 prompts that are no tie, 1 or none lost; two-sided


def test_the_block_is_json_with_the_reason_for_what_is_missing():
    block = json.loads(json.dumps(preference(OUTCOMES, [9] * 10, [5] * 10).block()))
    assert set(block) == {"win", "tie", "loss", "rate", "controlled", "controlled_missing", "p", "n", "n_failed"}
    assert set(block["win"]) == {"mean", "low", "high"}
    assert block["controlled"] is None
    assert "longer to every prompt" in block["controlled_missing"]
    assert "controlled_missing" not in preference(OUTCOMES, *LENGTHS).block()


def test_the_p_value_is_the_paired_permutation_tests():
    rng = np.random.default_rng(0)
    few = rng.choice([0.0, 0.5, 1.0], size=18, p=[0.2, 0.4, 0.4])
    assert (few != 0.5).sum() <= 16  # all swaps are tried
    lengths = rng.integers(0, 9, size=(2, 300)).tolist()
    assert preference(few, *lengths).p == pytest.approx(paired_permutation(few, 1 - few).p)
    many = rng.choice([0.0, 0.5, 1.0], size=300, p=[0.3, 0.3, 0.4])
    assert preference(many, *lengths).p == pytest.approx(paired_permutation(many, 1 - many).p, abs=0.01)


def test_a_model_against_itself_is_no_difference():
    found = preference([0.5] * 50, [3] * 50, [3] * 50)
    assert (found.win.mean, found.tie.mean, found.rate.mean, found.p) == (0, 1, 0.5, 1)
    assert found.rate.low < 0.5 < found.rate.high
    assert found.controlled.rate.mean == 0.5


def test_where_nothing_was_decided_there_is_no_preference():
    assert preference([None, None], [1, 2], [2, 1]) is None
    assert preference([], [], []) is None


def test_models_are_ranked_on_one_scale():
    """Each prompt has the outcomes of three pairs, which go together."""
    rng, strength = np.random.default_rng(1), {"ppo": 1.0, "sft": 0.0, "base": -1.0}
    pairs = {}
    for first, second in (("ppo", "sft"), ("ppo", "base"), ("sft", "base")):
        chance = 1 / (1 + np.exp(strength[second] - strength[first]))
        pairs[first, second] = [None, *(rng.random(300) < chance).astype(float)]
    found = json.loads(json.dumps(ranking(pairs)))
    assert [one["model"] for one in found["standings"]] == ["ppo", "sft", "base"]
    assert [one["place"] for one in found["standings"]] == [1, 2, 3]
    for one in found["standings"]:
        assert one["score"]["low"] < strength[one["model"]] < one["score"]["high"]
        assert one["n_votes"] == 600
    assert (found["unranked"], found["n_prompts"]) == ([], 300)


def test_a_model_that_cannot_be_ranked_is_named_with_the_reason():
    found = ranking({("a", "b"): [1, 0] * 20, ("a", "c"): [None] * 40})
    assert [one["model"] for one in found["standings"]] == ["a", "b"]
    assert [(one["model"], one["n_votes"]) for one in found["unranked"]] == [("c", 0)]
    assert "fewer than 30" in found["unranked"][0]["reason"]
    assert ranking({("a", "b"): [None]})["standings"] == []


def test_judges_agree_by_hand():
    found = judges_agree([1, 1, 0, 0.5, None, 1], [1, 0, 0, 0.5, 1, None])
    assert (found.same.mean, found.n) == (3 / 4, 4)
    # Both orders of each prompt: 8 pairs of verdicts, 6 alike; each judge says win 3, tie 2, loss 3 times.
    expected = (3**2 + 2**2 + 3**2) / 64
    assert found.kappa == pytest.approx((6 / 8 - expected) / (1 - expected))


def test_judges_who_share_no_prompt_cannot_agree():
    assert judges_agree([1, None], [None, 0]).block() == {"same": None, "kappa": None, "n": 0}


def test_a_judge_that_says_the_first_shown_is_better_is_found_out():
    found = order_bias([(1, 0)] * 30 + [None])  # the first model shown first wins; shown second it loses
    assert found["n"] == 30
    assert found["orders_disagree"]["mean"] == 1
    assert found["first_shown_wins"]["mean"] == 1


def test_a_judge_that_reads_is_not_biased():
    found = order_bias([(1, 1), (0, 0), (0.5, 0.5), (1, 0.5)])
    assert found["orders_disagree"]["mean"] == 1 / 4
    # Decided: won shown first, won shown second (the other is first), lost first, lost second, won first.
    assert found["first_shown_wins"]["mean"] == pytest.approx(3 / 5)
    assert order_bias([(0.5, 0.5)])["first_shown_wins"] is None
    assert order_bias([None]) is None
