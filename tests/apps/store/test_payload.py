"""What a ranking must have before it is saved."""

from __future__ import annotations

from typing import Any

import pytest

from apps.store.errors import BadPayload
from apps.store.payload import check_payload, check_reason
from apps.store.settings import FLAGS, Flag, Questions, Ranking, Rating


def check(payload: Any, n: int = 2, questions: Questions = Questions(), ranking: Ranking = Ranking()) -> dict[str, Any]:  # noqa: B008
    return check_payload(payload, n, questions, ranking)


def problems(payload: Any, **how: Any) -> list[str]:
    with pytest.raises(BadPayload) as error:
        check(payload, **how)
    return error.value.problems


RATED = {"0": {"rating": 5}, "1": {"rating": 2}}


def test_a_whole_ranking_has_every_key() -> None:
    given = {"answers": {"0": {"rating": 7, "flags": ["violent", "sexual"]}, "1": {"rating": 1, "comment": "no"}}}
    assert check(given | {"ranks": {"0": 1, "1": 1}}) == {
        "answers": {
            "0": {"rating": 7, "flags": ["sexual", "violent"], "comment": ""},
            "1": {"rating": 1, "flags": [], "comment": "no"},
        },
        "ranks": {"0": 1, "1": 1},
        "all_bad": False,
        "comment": "",
    }


def test_an_untouched_order_is_never_saved() -> None:
    assert problems({"answers": RATED, "ranks": None}) == [
        "ranks: some answers have no rank; rank all of them, or mark all as bad"
    ]
    assert problems({"answers": RATED}) == problems({"answers": RATED, "ranks": None})


def test_all_bad_is_no_tie() -> None:
    assert check({"answers": RATED, "ranks": None, "all_bad": True})["ranks"] is None
    both = check({"answers": RATED, "ranks": {"0": 1, "1": 2}, "all_bad": True})
    assert (both["ranks"], both["all_bad"]) == ({"0": 1, "1": 2}, True)


@pytest.mark.parametrize(
    "ranks",
    [
        *({"0": 1}, {"0": 1, "1": 3}, {"0": 0, "1": 1}, {"0": 1, "1": 1.5}, {"0": True, "1": 1}, {"0": 1, "2": 2}),
        *({"0": "1", "1": 2}, {}, [1, 2], 1, {"0": 1, "1": 2, "2": 3}),
    ],
)
def test_ranks_are_whole_numbers_for_each_slot(ranks: Any) -> None:
    (problem,) = problems({"answers": RATED, "ranks": ranks})
    assert problem.startswith("ranks = ")
    assert "expected a rank from 1 to 2 for each slot from 0 to 1" in problem


def test_ties_may_be_switched_off() -> None:
    (problem,) = problems({"answers": RATED, "ranks": {"0": 1, "1": 1}}, ranking=Ranking(ties=False))
    assert "no ties" in problem


@pytest.mark.parametrize("rating", [0, 8, 2.5, "4", True])
def test_ratings_go_from_one_to_seven(rating: Any) -> None:
    (problem,) = problems({"answers": RATED | {"1": {"rating": rating}}, "ranks": {"0": 1, "1": 2}})
    assert problem == f"answers.1.rating = {rating!r}: expected 1 to 7"


def test_ratings_are_needed_where_the_project_says_so() -> None:
    ranks = {"ranks": {"0": 1, "1": 2}}
    assert len(problems(ranks)) == 2
    assert check(ranks, questions=Questions(rating=Rating(required=False)))["answers"]["0"]["rating"] is None
    (problem,) = problems({"answers": {"0": {"rating": 1}}, **ranks}, questions=Questions(rating=Rating(ask=False)))
    assert "this project has no ratings" in problem


def test_flags_are_those_of_the_project() -> None:
    own = Questions(flags=(Flag(name="rude", label="Rude"),), rating=Rating(ask=False))
    ranks = {"ranks": {"0": 1, "1": 2}}
    assert check({"answers": {"0": {"flags": ["rude", "rude"]}}, **ranks}, questions=own)["answers"]["0"]["flags"] == [
        "rude"
    ]
    (problem,) = problems({"answers": {"0": {"flags": ["violent"]}}, **ranks}, questions=own)
    assert problem == "answers.0.flags = ['violent']: the flags are rude"


def test_comments_may_be_switched_off() -> None:
    given = {"answers": RATED, "ranks": {"0": 1, "1": 2}, "comment": "hm"}
    (problem,) = problems(given, questions=Questions(comment=False))
    assert "this project has no comments" in problem


def test_all_problems_are_told_at_once() -> None:
    given = {"answers": {"0": {"rating": 9, "mood": 1}, "7": {}}, "ranks": 5, "all_bad": 1, "oops": 1, "comment": 4}
    found = problems(given)
    keys = {problem.split(":")[0].split(" =")[0] for problem in found}
    assert keys == {"oops", "all_bad", "answers.7", "answers.0.rating", "answers.0.mood"} | {
        "answers.1.rating", "ranks", "comment"
    }  # fmt: skip


def test_long_comments_are_refused() -> None:
    (problem,) = problems({"answers": RATED, "ranks": {"0": 1, "1": 2}, "comment": "x" * 10_001})
    assert "at most 10000 characters" in problem


def test_what_is_no_object_is_refused() -> None:
    for payload in (None, [], "x", 3):
        assert "expected an object" in problems(payload)[0]
    deep: Any = {}
    for _ in range(100_000):
        deep = {"x": deep}
    assert "not JSON" in problems(deep)[0]


def test_a_reason_is_needed() -> None:
    assert check_reason("too long") == {"reason": "too long", "comment": ""}
    with pytest.raises(BadPayload, match="give a reason"):
        check_reason("")


def test_the_default_flags_are_instructgpts_eleven() -> None:
    assert len(FLAGS) == 11
    assert len({flag.name for flag in FLAGS}) == 11
