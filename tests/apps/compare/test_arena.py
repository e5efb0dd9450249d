"""Blind battles: what the browser is told before the vote, what becomes of a vote, and the leaderboard."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from comparing import OWN, Parrot, Place, of_side
from offices import at_once, new_id

from align.errors import UserError
from apps.compare.arena import Arena, Battle
from apps.compare.server import check
from apps.label.__main__ import main as label
from apps.store import events, work
from apps.store.errors import Refused


def exported(arena: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `apps.label export` writes of the arena's project."""
    words = ["label", "export", str(arena.recipe.arena), "--out", str(tmp_path / new_id())]
    monkeypatch.setattr(sys, "argv", words)
    label()
    lines = (Path(words[-1]) / "rankings.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_before_the_vote_nothing_tells_the_models_apart(arena: Place) -> None:
    ada = arena.member("ada")
    told: set[str] = set()
    for n in range(12):
        for event in ada.events("battle", {"prompt": f"say red {n}"}):
            told |= set(event)
            assert not set(event) & {"figures", "n_tokens", "seconds"}
            if event.get("problem"):
                assert event["problem"].startswith("This model could not answer")
            if "end" in event:
                assert event["end"] == "whole"
            assert not any(name in json.dumps({**event, "piece": "", "text": ""}) for name in arena.recipe.models)
    assert told == {"ahead", "side", "piece", "end", "rest", "text", "battle", "open", "why"}


def test_a_model_that_fails_in_a_battle_is_not_named(arena: Place) -> None:
    ada = arena.member("ada")
    long = ada.events("battle", {"prompt": "red " * 80})
    assert of_side(long, 0, "problem") == ["This model could not answer; try another or a shorter question."]
    assert (long[-1]["open"], long[-1]["why"]) == (False, "There are not two complete answers to choose from.")
    assert ada.vote(long[-1]["battle"], "a", new_id()).status_code == 409


@pytest.mark.parametrize(
    ("verdict", "ranks", "all_bad"),
    [("a", [1, 2], False), ("b", [2, 1], False), ("tie", [1, 1], False), ("bad", [1, 1], True)],
)
def test_a_vote_is_a_ranking_in_the_apps_database(
    arena: Place, verdict: str, ranks: list[int], all_bad: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = arena.member("ada")
    battle = ada.fight()
    answer = ada.vote(battle, verdict, new_id()).json()
    assert answer["saved"] is True
    (row,) = exported(arena, tmp_path, monkeypatch)
    assert row["prompt"].startswith("say red blue")
    assert (row["annotator"], row["source"], row["all_bad"]) == ("ada", "arena", all_bad)
    given = dict(zip(row["models"], row["ranks"], strict=True))
    assert given == dict(zip(answer["names"], ranks, strict=True))
    for name, text in zip(row["models"], row["responses"], strict=True):
        assert name in arena.recipe.models
        assert text or text == ""
    assert arena.project is not None
    assert not events.verify(arena.project.store).problems


def test_a_repeated_vote_is_saved_once(arena: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = arena.member("ada")
    battle, vote = ada.fight(), new_id()
    answers = at_once(8, lambda _: ada.vote(battle, "a", vote))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    other = ada.vote(battle, "b", vote)
    assert other.status_code == 409
    assert "names were revealed" in other.json()["error"]["message"]
    (row,) = exported(arena, tmp_path, monkeypatch)
    assert sorted(row["ranks"]) == [1, 2]


def test_a_vote_that_the_database_does_not_take_is_no_vote(
    arena: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apps.store.errors import Unavailable

    ada = arena.member("ada")
    battle, vote = ada.fight(), new_id()
    real = work.submit

    def full(*_: Any) -> None:
        raise Unavailable("the disk is full; make room")

    monkeypatch.setattr(work, "submit", full)
    refused = ada.vote(battle, "a", vote)
    assert refused.status_code == 503
    assert not any(name in refused.text for name in arena.recipe.models)
    monkeypatch.setattr(work, "submit", real)
    assert ada.vote(battle, "b", vote).json()["saved"] is True  # nothing was decided yet
    assert len(exported(arena, tmp_path, monkeypatch)) == 1


def test_nobody_votes_on_anothers_battle_or_on_one_that_is_over(arena: Place) -> None:
    ada, bob = arena.member("ada"), arena.member("bob")
    battle = ada.fight()
    assert bob.vote(battle, "a", new_id()).status_code == 409
    assert bob.vote(battle, "a", new_id()).text == bob.vote("no such battle", "a", new_id()).text
    newer = ada.fight("say sun")
    assert ada.vote(battle, "a", new_id()).status_code == 409  # she went on without a vote
    assert ada.vote(newer, "a", "no uuid").status_code == 422
    assert ada.vote(newer, "a", new_id()).status_code == 200
    assert ada.call("POST", "vote", {"id": new_id(), "battle": newer, "verdict": "c"}).status_code == 422


def test_two_equal_answers_are_no_battle(arena: Place) -> None:
    for name in list(arena.loaded.by_name):
        arena.loaded.by_name[name] = Parrot(name, "the same", arena.loaded.by_name["sft"])  # type: ignore[assignment]
    ada = arena.member("ada")
    last = ada.events("battle", {"prompt": "say red"})[-1]
    assert (last["open"], last["why"]) == (False, "Both models gave the same answer, so there is nothing to vote on.")
    assert ada.vote(last["battle"], "a", new_id()).status_code == 409


def test_a_battle_shows_answers_without_what_was_thought_before(arena: Place) -> None:
    for name in list(arena.loaded.by_name):
        parrot = Parrot(name, f"two {name}", arena.loaded.by_name["sft"], "one")
        arena.loaded.by_name[name] = parrot  # type: ignore[assignment]
    told = arena.member("ada").events("battle", {"prompt": "say red"})
    assert "one" not in json.dumps(told)
    assert of_side(told, 0, "piece")[0] == ""
    assert "".join(of_side(told, 0, "piece")) == of_side(told, 0, "text")[0]


def test_the_same_two_answers_again_change_the_vote_and_keep_the_order_of_the_first_time(
    arena: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(arena.loaded.by_name):
        arena.loaded.by_name[name] = Parrot(name, f"by {name}", arena.loaded.by_name["sft"])  # type: ignore[assignment]
    ada = arena.member("ada")
    winners: dict[frozenset[str], str] = {}
    for _ in range(15):
        battle = ada.events("battle", {"prompt": "the same question"})[-1]["battle"]
        verdict = random.choice("ab")
        names = ada.vote(battle, verdict, new_id()).json()["names"]
        winners[frozenset(names)] = names["ab".index(verdict)]
    rows = exported(arena, tmp_path, monkeypatch)
    assert {frozenset(row["models"]): row["models"][row["ranks"].index(1)] for row in rows} == winners
    assert {tuple(row["responses"]) for row in rows} == {tuple(f"by {m}" for m in row["models"]) for row in rows}


def test_models_and_sides_are_drawn_evenly_and_each_side_has_a_seed(arena: Place) -> None:
    drawn = Arena(arena.project, arena.loaded, None, random.Random(1))  # type: ignore[arg-type]
    pairs = Counter()  # type: ignore[var-annotated]
    for n in range(3000):
        drawn.begin(n, "say red")
        battle = next(reversed(drawn._battles.values()))
        pairs[battle.names] += 1
        assert battle.seeds[0] != battle.seeds[1]
    assert len(pairs) == 6
    assert all(400 < n < 600 for n in pairs.values())
    assert len(drawn._battles) == 1000  # memory is bounded


def test_a_battle_is_open_only_with_two_different_whole_answers() -> None:
    def battle(*texts: str | None) -> bool:
        return Battle(1, ("a", "b"), "", (1, 2), list(texts)).is_open

    assert [battle("x", "y"), battle("x", None), battle("x", "x"), battle("", "x")] == [True, False, False, True]


def test_the_leaderboard_is_that_of_the_leads_page(arena: Place) -> None:
    from apps.label.lead import computed

    people = [arena.member(name) for name in ("ada", "bob", "cy")]
    for name, text in (("base", "one"), ("sft", "two"), ("ppo", "three")):
        arena.loaded.by_name[name] = Parrot(name, text, arena.loaded.by_name["sft"])  # type: ignore[assignment]
    chance = random.Random(3)
    better = ["base", "sft", "ppo"]
    for n in range(75):
        ada = people[n % 3]
        events_ = ada.events("battle", {"prompt": f"question {n}"})
        texts = [of_side(events_, side, "text")[0] for side in (0, 1)]
        strength = [["one", "two", "three"].index(text) for text in texts]
        wins = "a" if (strength[0] > strength[1]) == (chance.random() < 0.95) else "b"
        assert ada.vote(events_[-1]["battle"], wins, new_id()).status_code == 200
    assert arena.project is not None
    board = people[0].call("GET", "leaderboard").json()
    assert [one["model"] for one in board["places"]] == better[::-1]
    assert (board["n_votes"], board["n_people"]) == (75, 3)
    assert all(one["score"]["low"] < one["score"]["mean"] < one["score"]["high"] for one in board["places"])
    assert board["figure"].startswith("data:image/svg+xml;base64,")
    _, summary, _ = computed(arena.project.store, arena.project.id, 0.7)
    assert [place._asdict() | {"score": place.score._asdict()} for place in summary.places] == board["places"]


def test_a_leaderboard_of_few_votes_says_why_nobody_is_ranked(arena: Place) -> None:
    ada = arena.member("ada")
    assert ada.call("GET", "leaderboard").json() == {
        "places": [], "unranked": [], "n_votes": 0, "n_people": 0, "figure": "",
    }  # fmt: skip
    ada.vote(ada.fight(), "a", new_id())
    board = ada.call("GET", "leaderboard").json()
    assert board["n_votes"] == 1
    assert len(board["unranked"]) == 2
    assert all(one["reason"] for one in board["unranked"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"questions": {}}, r"requires ratings, but votes have none; set questions.rating.ask: false"),
        ({"ranking": {"ties": False}}, "forbids ties, but a vote can be a tie; set ranking.ties: true"),
    ],
)
def test_a_project_that_cannot_take_votes_is_told_before_the_server_starts(
    arena: Place, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    from comparing import project_file

    path = project_file(tmp_path, **settings)
    with pytest.raises(UserError, match=told):
        check(arena.recipe.model_copy(update={"arena": path}))


def test_a_battle_of_before_a_restart_is_told_in_words(arena: Place) -> None:
    ada = arena.member("ada")
    assert arena.project is not None
    assert ada.who is not None
    fresh = Arena(arena.project, arena.loaded, None)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="this battle is over because you or the server started again; ask again"):
        fresh.vote(ada.who.id, ada.fight(), new_id(), "a", 1.0)
    assert ada.client.get("/api/leaderboard", headers=OWN).status_code == 200
