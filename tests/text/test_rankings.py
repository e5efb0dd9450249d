"""Rankings as tokens: what is kept, what is cut, and where a ranking says it comes from."""

import pytest

from align.errors import UserError
from align.text.encode import encode_prompt
from align.text.rankings import Ranked, encode_rankings, one_rank_each, origin, padded_size, shortened
from align.text.records import Message, Ranking

from .kinds import tokenizer_of

ASK = (Message("user", "say red"),)


def test_an_answer_is_cut_before_its_eos():
    assert shortened([1, 2, 3, 4, 9], 3) == [1, 2, 9]
    assert shortened([1, 2, 9], 3) == [1, 2, 9]


def test_a_prompt_takes_the_tokens_of_its_padded_answers():
    assert padded_size(Ranked([[1, 2], [1, 2, 3, 4]], (1, 2), (), ("a", "b"))) == 8


def test_what_a_ranking_says_besides_its_order_is_kept(tokenizer):
    rows, _ = encode_rankings(tokenizer, [Ranking(ASK, ("a", "b"), (2, 1), "ann", "f.jsonl:7", "", 1.5)], 48, "drop")
    (row,) = rows
    assert (row.annotator, row.origin, row.margin) == ("ann", "f.jsonl", 1.5)
    assert row.answers[0][: row.n_prompt] == encode_prompt(tokenizer, ASK)
    assert row.text == "user: say red"


@pytest.mark.parametrize(("kind", "prompt"), [("gemma", (Message("system", "Be brief."), *ASK)), ("r1", ASK)])
def test_a_ranking_that_the_template_refuses_is_named(kind, prompt):
    rows = [Ranking(prompt, ("a", "b"), (1, 2), source="f.jsonl:7")]
    with pytest.raises(UserError, match=r"^f\.jsonl:7: .*(data\.system|opens a thought)"):
        encode_rankings(tokenizer_of(kind, "bytes"), rows, 48, "drop")


def test_a_ranking_comes_from_its_own_source_or_else_from_its_file():
    assert origin(Ranking(ASK, ("a", "b"), (1, 2), source="f.jsonl:7", origin="humans")) == "humans"
    assert origin(Ranking(ASK, ("a", "b"), (1, 2), source="data/f.jsonl:7")) == "data/f.jsonl"
    assert origin(Ranking(ASK, ("a", "b"), (1, 2), source="owner/name[train]:row 12")) == "owner/name[train]"


def test_all_tied_rankings_stay_only_for_a_loss_that_reads_them(tokenizer):
    rankings = [Ranking(ASK, ("a", "b"), (1, 1)), Ranking(ASK, ("a", "b"), (1, 2))]
    assert [row.ranks for row in encode_rankings(tokenizer, rankings, 48, "drop")[0]] == [(1, 2)]
    rows, counts = encode_rankings(tokenizer, rankings, 48, "drop", keep_tied=True)
    assert [row.ranks for row in rows] == [(1, 1), (1, 2)]
    assert set(counts.values()) == {0}


def test_answers_that_cutting_makes_equal_are_no_preference(tokenizer):
    red = "red " * 60
    pair, three = Ranking(ASK, (red + "a", red + "b"), (1, 2)), Ranking(ASK, (red + "a", "c", red + "b"), (1, 3, 2))
    rows, counts = encode_rankings(tokenizer, [pair, three], 48, "truncate")
    assert [row.ranks for row in rows] == [(1, 2, 1)]
    assert [count for reason, count in counts.items() if "equal tokens" in reason] == [2]
    assert [row.ranks for row in encode_rankings(tokenizer, [pair], 48, "truncate", keep_tied=True)[0]] == [(1, 1)]


def test_equal_answers_share_the_mean_of_their_ranks():
    assert one_rank_each([[1], [2], [3]], (2, 1, 3)) == (2, 1, 3)
    assert one_rank_each([[1], [2], [1]], (1, 2, 3)) == (1, 1, 1)
    assert one_rank_each([[1], [1], [2]], (1, 2, 3)) == (1, 1, 2)
