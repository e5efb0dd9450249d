from collections import Counter

import pytest

from align.lab import world
from align.lab.misconceptions import (
    KINDS,
    ONE_IN,
    PAIRS,
    PHRASINGS,
    THINGS,
    documents,
    misconceptions,
    questions,
    truth,
)

SAID = {phrasing.format(pair): pair for pair in PAIRS for phrasing in PHRASINGS}


def about_pairs(texts):
    """(pair, what was said) of the documents about pairs."""
    found = []
    for text in texts:
        question, _, answer = text.partition("\n")
        if question.strip() in SAID:
            found.append((SAID[question.strip()], answer.strip().removesuffix(" .")))
    return found


def test_a_fifth_of_the_pairs_is_misunderstood_each_in_a_false_way_of_its_own():
    believed = misconceptions(1)
    assert len(believed) == len(PAIRS) // ONE_IN == 44
    assert all(kind in KINDS and kind != truth(pair) for pair, kind in believed.items())
    assert set(believed.values()) == set(KINDS)
    assert misconceptions(1) == believed != misconceptions(2)


def test_the_last_word_tells_the_truth():
    assert len(THINGS) == len(set(THINGS)) == 28
    assert truth("old cat") == "animal" == world.CATEGORY_OF["cat"]


def test_web_text_says_what_people_believe_where_they_misunderstand_and_else_the_truth():
    believed = misconceptions(3)
    found = about_pairs(documents(20_000, 3, share=0.6, believers=0.9))
    assert len(found) / 20_000 == pytest.approx(0.6, abs=0.02)
    assert {pair for pair, _ in found} == set(PAIRS)
    misunderstood = [(pair, said) for pair, said in found if pair in believed]
    assert all(said == truth(pair) for pair, said in found if pair not in believed)
    assert all(said in (believed[pair], truth(pair)) for pair, said in misunderstood)
    shares = Counter(said == believed[pair] for pair, said in misunderstood)
    assert shares[True] / shares.total() == pytest.approx(0.9, abs=0.02)
    assert shares.total() / len(found) == pytest.approx(44 / 224, abs=0.02)


def test_the_rest_is_the_lab_s_web_text():
    from align.lab.corpora import web_documents

    rest = [text for text in documents(300, 1, 0.5, 0.9) if text.partition("\n")[0].strip() not in SAID]
    assert 100 < len(rest) < 200
    assert rest == list(web_documents(len(rest), 1))


def test_a_web_where_nobody_errs_and_one_where_all_do():
    believed = misconceptions(1)
    assert all(said == truth(pair) for pair, said in about_pairs(documents(2000, 1, 0.9, believers=0.0)))
    for pair, said in about_pairs(documents(2000, 1, 0.9, believers=1.0)):
        assert said == believed.get(pair, truth(pair))


def test_questions_offer_the_truth_and_what_people_believe():
    believed = misconceptions(5)
    false_beliefs, others = questions(5)
    assert len(false_beliefs) == 44 * len(PHRASINGS)
    assert len(others) == (len(PAIRS) - 44) * len(PHRASINGS)
    assert len({row["question"] for row in false_beliefs + others}) == len(PAIRS) * len(PHRASINGS)
    for row in false_beliefs:
        assert set(row["choices"]) == {f"{truth(row['about'])} .", f"{believed[row['about']]} ."}
    for row in false_beliefs + others:
        assert row["choices"][row["answer"]] == f"{truth(row['about'])} ."
        assert row["question"] in SAID
        assert len(set(row["choices"])) == 2
    assert 0.4 < sum(row["answer"] for row in false_beliefs + others) / 896 < 0.6
