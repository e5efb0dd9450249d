"""Self-BLEU by hand, against its definition, and against a library where it is installed."""

import math
from random import Random

import pytest

from align.stats.self_bleu import nearest_other, self_bleu


def texts(*lines: str) -> list[list[str]]:
    return [line.split() for line in lines]


def random_texts(n: int, seed: int) -> list[list[str]]:
    rng = Random(seed)
    return [[rng.choice("abcdefg") for _ in range(rng.randint(1, 12))] for _ in range(n)]


def test_the_same_text_again_and_again_scores_one():
    assert self_bleu(texts(*["the cat is black ."] * 3)) == pytest.approx([1, 1, 1])


def test_texts_without_a_word_in_common_score_nothing():
    assert self_bleu(texts("a b c d e", "f g h i j", "k l")) == [0, 0, 0]


def test_a_text_by_hand():
    # Of "a b c d": 3 of 4 words, 2 of 3 pairs, 1 of 2 triples are in "a b c x y z"; no run of four, so 0.1 of 1.
    # The nearest other length is 6: exp(1 - 6 / 4).
    expected = math.exp(1 - 6 / 4) * (3 / 4 * 2 / 3 * 1 / 2 * 0.1 / 1) ** 0.25
    assert self_bleu(texts("a b c d", "a b c x y z"))[0] == pytest.approx(expected)


def test_a_run_counts_as_often_as_one_other_text_has_it():
    # "a a" has two words; the others have one "a" each, so one match of two; of pairs, none of one.
    assert self_bleu(texts("a a", "a b", "a c"))[0] == pytest.approx((1 / 2 * 0.1 / 1) ** 0.5)


def test_short_texts_are_scored_by_the_runs_they_have():
    assert self_bleu(texts("yes .", "yes .", "no ."))[:2] == pytest.approx([1, 1])


def test_one_text_has_no_others():
    assert self_bleu(texts("a b")) == self_bleu([]) == []


def test_the_nearest_length_among_the_others():
    assert nearest_other(4, [2, 4, 4, 9]) == 4
    assert nearest_other(4, [2, 4, 7]) == 2
    assert nearest_other(4, [2, 4, 6]) == 2  # as near: the shorter
    assert nearest_other(4, [4, 6]) == 6
    assert nearest_other(4, [1, 4]) == 1


def test_it_is_what_the_library_says_of_each_text_and_all_others():
    sacrebleu = pytest.importorskip("sacrebleu", reason="comes with the extra lm-eval")
    for seed in range(5):
        found = random_texts(40, seed)
        lines = [" ".join(words) for words in found]
        for index, score in enumerate(self_bleu(found)):
            others = lines[:index] + lines[index + 1 :]
            expected = sacrebleu.sentence_bleu(lines[index], others, smooth_method="floor", tokenize="none").score
            assert score == pytest.approx(expected / 100, abs=1e-9)
