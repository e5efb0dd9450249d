"""What answers are like, on answers few enough to count by hand, and on many fed portion by portion."""

import json
import tracemalloc
from random import Random

import pytest

from align.stats.texts import SAMPLE, Contradictions, Texts, distinct, refuses, repeated_share, words_of


def told(*answers: str) -> dict:
    texts = Texts()
    texts.add(answers)
    return texts.figures()


def test_words_are_runs_of_letters_and_single_marks():
    assert words_of("Of course! It's 42.") == ["of", "course", "!", "it", "'", "s", "42", "."]


def test_distinct_runs_over_all_runs():
    answers = [["a", "b", "a", "b"], ["a", "b"]]
    assert distinct(answers, 1) == 2 / 6
    assert distinct(answers, 2) == 2 / 4  # ab, ba, ab; ab
    assert distinct(answers, 3) == 2 / 2
    assert distinct(answers, 5) is None


def test_a_repeated_share_is_welleck_et_al_s():
    assert repeated_share(["a", "b", "c", "d", "a", "b", "c", "d"], 4) == 1 - 4 / 5  # abcd bcda cdab dabc abcd
    assert repeated_share(["a", "b", "c", "d", "e"], 4) == 0
    assert repeated_share(["a", "a", "a", "a", "a", "a", "a"], 4) == 1 - 1 / 4
    assert repeated_share(["a", "b"], 4) == 0


def test_figures_by_hand():
    found = told("the cat is black .", "no", "", "  ", "go go go go go go")
    assert found["n"] == 5
    assert found["empty"]["mean"] == 2 / 5
    assert found["words"]["mean"]["mean"] == pytest.approx((5 + 1 + 0 + 0 + 6) / 5)
    assert (found["words"]["min"], found["words"]["median"], found["words"]["max"]) == (0, 1, 6)
    assert found["repeating"]["mean"] == 1 / 5
    assert found["seq_rep_4"]["mean"] == pytest.approx((1 - 1 / 3) / 5)
    assert found["distinct_1"] == pytest.approx(7 / 12)
    assert found["n_sample"] == 3
    assert "tokens" not in found
    for key in ("empty", "repeating", "refusal_phrases", "seq_rep_4"):
        assert 0 <= found[key]["low"] <= found[key]["mean"] <= found[key]["high"] <= 1
    json.dumps(found, allow_nan=False)


def test_answers_that_are_all_the_same_have_no_diversity_and_different_ones_all_of_it():
    same, other = told(*["it is black ."] * 50), told(*(f"{i} a{i} b{i} c{i}" for i in range(50)))
    assert (same["self_bleu"]["mean"], other["self_bleu"]["mean"]) == (pytest.approx(1), 0)
    assert same["distinct_2"] == 3 / 150
    assert other["distinct_2"] == 1


def test_no_answers_and_one_answer_are_no_error():
    assert Texts().figures() == {"n": 0}
    assert told("yes .")["self_bleu"] is None
    nothing = told("", "")
    assert (nothing["empty"]["mean"], nothing["distinct_1"], nothing["n_sample"]) == (1, None, 0)


def test_tokens_are_reported_where_they_are_given():
    texts = Texts()
    texts.add(["a b", "c"], [3, 2])
    texts.add(["d"], [7])
    assert texts.figures()["tokens"]["mean"]["mean"] == 4
    assert texts.figures()["tokens"]["max"] == 7


@pytest.mark.parametrize(
    "text",
    [
        "I can not help with that .",
        "sorry , i will not do that .",
        "no , that is not safe .",
        "I’m sorry, but I can’t help with that.",
        "As an AI, I have no opinion.",
        "I apologize, that is private.",
    ],
)
def test_refusals_have_their_phrases(text):
    assert refuses(words_of(text))


@pytest.mark.parametrize(
    "text", ["you can not lose", "use the knife .", "i can nothing but agree", "kiwi won't rot", ""]
)
def test_other_answers_do_not(text):
    assert not refuses(words_of(text))


@pytest.mark.heavy
def test_ten_thousand_answers_portion_by_portion_give_the_same_as_at_once_in_flat_memory():
    rng = Random(1)
    vocabulary = [f"w{i}" for i in range(5000)]

    def portion(n: int) -> list[str]:
        return [" ".join(rng.choices(vocabulary, k=10)) for _ in range(n)]

    parts = Texts()
    tracemalloc.start()
    parts.add(portion(2000))
    early = tracemalloc.get_traced_memory()[0]
    for _ in range(16):
        parts.add(portion(500))
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert late - early < 1_000_000, (early, late)
    rng.seed(1)
    whole = Texts()
    whole.add(portion(2000) + [text for _ in range(16) for text in portion(500)])
    assert parts.figures() == whole.figures()
    assert whole.figures()["n"] == 10_000
    assert whole.figures()["n_sample"] == SAMPLE


def test_the_sample_is_of_the_same_prompts_whatever_a_model_says():
    one, two = Texts(), Texts()
    one.add([f"a{i}" for i in range(3000)])
    two.add([f"b{i}" if i % 7 else "" for i in range(3000)])
    places = [{int(words[0][1:]) for _, words in texts.sample} for texts in (one, two)]
    shared = {place for place in places[0] if place % 7}
    assert shared < places[1]
    assert 450 < sum(place < 1500 for place in places[0]) < 550  # from the whole stream


def test_shares_of_nothing_are_none():
    assert Contradictions().figures() == {"n_prompts": 0, "n_without": 0, "contradicting": None, "disagreement": None}


def test_samples_that_disagree():
    found = Contradictions()
    found.add([["4", "4", "4"], ["4", "5", "4"], ["7", None, "8"]])
    found.add([["9", None, None], [None, None, None]])
    figures = found.figures()
    assert (figures["n_prompts"], figures["n_without"]) == (3, 2)
    assert figures["contradicting"]["mean"] == pytest.approx(2 / 3)
    assert figures["disagreement"]["mean"] == pytest.approx((0 + 2 / 3 + 1) / 3)


def test_disagreement_does_not_grow_with_the_number_of_samples():
    def asked(n_samples: int) -> dict:
        rng = Random(1)
        found = Contradictions()
        found.add([rng.choices("ab", weights=(0.8, 0.2), k=n_samples) for _ in range(3000)])
        return found.figures()

    few, many = asked(2), asked(8)
    assert few["disagreement"]["mean"] == pytest.approx(2 * 0.8 * 0.2, abs=0.03)
    assert many["disagreement"]["mean"] == pytest.approx(2 * 0.8 * 0.2, abs=0.03)
    assert many["contradicting"]["mean"] > few["contradicting"]["mean"] + 0.3
