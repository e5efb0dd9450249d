"""A reward model's card on numbers small enough to check by hand."""

import json

import numpy as np
import pytest

from align.report.reward_card import card_text, correlation, reward_card, write_reward_card
from align.text.rankings import Ranked
from align.text.records import Message


def ranked(name: str, ranks: tuple[int, ...], lengths: tuple[int, ...] = (), source: str = "", annotator: str = ""):
    lengths = lengths or (2,) * len(ranks)
    responses = tuple(f"{name}{i}" for i in range(len(ranks)))
    answers = [[1] * (3 + length) for length in lengths]
    return Ranked(answers, ranks, (Message("user", name),), responses, annotator, source, None, 3)


ROWS = [
    ranked("a", (1, 2, 3), (4, 2, 2), "helpful", "ann"),
    ranked("b", (2, 1), (5, 3), "harmless", "bob"),
    ranked("c", (1, 1), (1, 1), "harmless", "bob"),
]
SCORES = [3.0, 1.0, 2.0, 0.5, 1.5, 0.0, 0.0]


def test_a_correlation_is_pearsons():
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 2, 3], [3, 1, 2]) == pytest.approx(np.corrcoef([1, 2, 3], [3, 1, 2])[0, 1])
    assert correlation([1, 1, 1], [1, 2, 3]) is None


def test_accuracy_overall_by_source_by_annotator_and_by_distance():
    card = reward_card(ROWS, SCORES, [1.0])
    assert (card["n_prompts"], card["n_rankings"], card["n_pairs"]) == (3, 3, 4)
    # a: (1 over 2) right, (1 over 3) right, (2 over 3) wrong; b: right; c is a tie, which is no pair
    assert card["accuracy"]["mean"] == pytest.approx((2 / 3 + 1) / 2)
    assert card["accuracy"]["low"] <= card["accuracy"]["mean"] <= card["accuracy"]["high"]
    assert {name: group["accuracy"]["mean"] for name, group in card["by_source"].items()} == {
        "harmless": 1.0,
        "helpful": pytest.approx(2 / 3),
    }
    assert card["by_annotator"]["bob"] == {"accuracy": {"mean": 1.0, "low": 1.0, "high": 1.0}, "n_prompts": 1}
    distances = {d: (group["accuracy"]["mean"], group["n_pairs"]) for d, group in card["by_rank_distance"].items()}
    assert distances == {"1": (pytest.approx(0.75), 3), "2": (1.0, 1)}


def test_calibration_reads_the_difference_before_it_was_scaled():
    rows = [ranked("a", (1, 2))]
    (found,) = reward_card(rows, [1.0, 0.0], [1.0])["calibration"]["bins"]
    assert found["confidence"] == pytest.approx(1 / (1 + np.exp(-1.0)))
    (found,) = reward_card(rows, [1.0, 0.0], [2.5])["calibration"]["bins"]
    assert found["confidence"] == pytest.approx(1 / (1 + np.exp(-2.5)))
    assert found["accuracy"] == 1.0


def test_length_over_all_answers_and_between_answers_to_one_prompt():
    length = reward_card(ROWS, SCORES, [1.0])["length"]
    tokens = [4, 2, 2, 5, 3, 1, 1]
    assert length["correlation"] == pytest.approx(np.corrcoef(SCORES, tokens)[0, 1])
    within = np.corrcoef([1, -1, 0, -0.5, 0.5, 0, 0], [4 / 3, -2 / 3, -2 / 3, 1, -1, 0, 0])[0, 1]
    assert length["correlation_within_prompt"] == pytest.approx(within)
    assert length["mean_tokens"] == pytest.approx(sum(tokens) / 7)
    # pairs of unequal length: a's best over both others (the longer is better), b's best is the shorter
    assert length["longer_preferred_by_annotators"] == pytest.approx(2 / 3)
    assert length["longer_scored_higher"] == pytest.approx(2 / 3)


def test_the_distribution_of_scores():
    scores = reward_card(ROWS, SCORES, [1.0])["scores"]
    assert scores["mean"] == pytest.approx(np.mean(SCORES))
    assert scores["std"] == pytest.approx(np.std(SCORES))
    assert (scores["min"], scores["median"], scores["max"]) == (0.0, 1.0, 3.0)
    assert scores["mean_by_rank"] == {"1": pytest.approx((3 + 1.5 + 0 + 0) / 4), "2": 0.75, "3": 2.0}


def test_what_the_annotators_noise_allows():
    card = reward_card([ranked("a", (1, 2, 3)), ranked("a", (1, 3, 2))], [3.0, 2.0, 1.0] * 2, [1.0])
    assert card["annotator_agreement"] == pytest.approx(2 / 3)
    assert card["accuracy_bound"] == pytest.approx((1 + (1 / 3) ** 0.5) / 2)
    assert "annotator_agreement" not in reward_card(ROWS, SCORES, [1.0])


def test_an_ensemble_tells_what_each_member_can_do_alone():
    rows = [ranked("a", (1, 2)), ranked("b", (1, 2))]
    members = [[2.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    found = reward_card(rows, members, [1.0, 1.0])
    assert found["accuracy"]["mean"] == 0.75  # the mean scores are 1.5, 0, 0.5, 0.5: right, and a tie
    assert found["ensemble"] == {
        "n": 2,
        "accuracy": [1.0, 0.5],
        "spread": pytest.approx((0.5 + 0 + 0.5 + 0.5) / 4),
        "of_one_mind": 0.5,
        "accuracy_where_of_one_mind": 1.0,
    }


def test_without_held_out_pairs_there_is_no_card(tmp_path):
    assert reward_card([], [], [1.0]) == {}
    assert reward_card([ranked("c", (1, 1))], [1.0, 2.0], [1.0]) == {}
    assert "no ranking was held out" in card_text({})
    write_reward_card(tmp_path, {}, [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_the_card_is_written_as_numbers_words_and_a_figure(tmp_path):
    card = reward_card(ROWS, SCORES, [1.0])
    write_reward_card(tmp_path, card, SCORES, ROWS)
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(card))
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    told = card_text(card)
    assert "**Accuracy 83.3% [" in told
    assert "| helpful | 66.7% [66.7%, 66.7%] | 1 |" in told
    assert f"expected calibration error {card['calibration']['ece']:.3f}" in told
    assert "Of two answers annotators prefer the longer in 66.7% of pairs" in told


def test_a_long_table_of_annotators_is_cut_in_words_alone():
    rows = [ranked(f"p{i}", (1, 2), annotator=f"ann{i:02d}") for i in range(25)]
    card = reward_card(rows, [1.0, 0.0] * 25, [1.0])
    assert len(card["by_annotator"]) == 25
    assert "| and 5 more in card.json | | |" in card_text(card)
