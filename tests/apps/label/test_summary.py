"""The lead's figures: worked out by hand on a few rankings, recovered from a simulated project."""

import pickle
from xml.etree import ElementTree

import numpy as np
import pytest

from apps.label.figures import figures
from apps.label.summary import Summary, summarise
from apps.votes.labels import Label, decisive

DAY = 86400.0
MODELS = (("base",), ("sft",), ("ppo",))


def label(task=1, person="ada", ranks=(3, 2, 1), **more):
    """A submitted ranking of base, sft and ppo, seen in this order."""
    n = len(more.get("models", MODELS))
    given = {
        "prompt": task, "kind": "rank", "status": "submitted", "models": MODELS, "places": tuple(range(n)),
        "ratings": (4,) * n, "flags": ((),) * n, "all_bad": False, "seconds": 60.0, "at": 100 * DAY,
    }  # fmt: skip
    return Label(task=task, person=person, ranks=ranks, **given | more)


def project(n_tasks=150, seed=0, tie=0.5, lazy=(), people=("ada", "bob", "cyd", "dan", "eve", "fay")):
    """A simulated one: ppo is best; two people rank each task, those who are `lazy` at random and fast."""
    rng = np.random.default_rng(seed)
    found = []
    for task in range(n_tasks):
        answers = np.array([0.0, 0.8, 1.6]) + 0.7 * rng.normal(size=3)
        for person in rng.choice(people, 2, replace=False):
            seen = np.round((answers + 0.7 * rng.normal(size=3)) / tie)
            seen = rng.normal(size=3) if person in lazy else seen
            ranks = tuple((1 + (seen[None, :] > seen[:, None]).sum(axis=1)).tolist())
            places = tuple(rng.permutation(3).tolist())
            ratings = tuple(int(np.clip(np.round(3 + value), 1, 7)) for value in seen)
            flags = tuple(("rude",) if value < 0.3 else () for value in seen)
            seconds = float(rng.lognormal(4, 0.3)) * (0.1 if person in lazy else 1)
            found.append(
                label(task, str(person), ranks, places=places, ratings=ratings, flags=flags, seconds=seconds)
                ._replace(at=(100 + task / 20) * DAY)
            )  # fmt: skip
    return found


def of(summary: Summary, name: str):
    return next(person for person in summary.people if person.name == name)


def test_nothing_said_is_nothing_known():
    found = summarise([])
    assert (found.n_rankings, found.people, found.places, found.no_places, found.disputes) == (0, (), (), (), ())
    known = (found.ties, found.skipped, found.gold, found.alpha_ranks, found.agreement.pairwise, found.median_seconds)
    assert known == (None,) * len(known)
    assert set(figures(found).values()) == {""}


def test_closed_tasks_and_what_a_reviewer_decides_are_no_second_opinions():
    """Of models it says what an export holds: here that base is best, by the reviewer's word alone."""
    said = [label(1, "ada", (1, 2, 3)), label(1, "bob", (3, 2, 1)), label(1, "lea", (1, 2, 3), final=True)]
    said += [label(2, "ada", (3, 2, 1), closed=True), label(2, "bob", (1, 2, 3), closed=True)]
    found = summarise(said, min_votes=1)
    assert [dispute.task for dispute in found.disputes] == [1]
    assert (found.n_rankings, found.n_shared, found.agreement.pairwise.mean) == (5, 1, 0.0)
    assert [of(found, name).n_ranked for name in ("ada", "bob", "lea")] == [2, 2, 1]
    votes = {one.model: one.n_votes for one in (*found.places, *found.no_places)}
    assert votes == {"base": 2, "sft": 2, "ppo": 2}  # the reviewer's three pairs
    assert decisive(said) == [said[2]]


def test_ties_skips_and_reports_are_shares():
    found = summarise(
        [
            label(1, ranks=(1, 1, 3)),
            label(2, ranks=(1, 2, 3)),
            label(3, ranks=None, all_bad=True),
            label(4, ranks=None, status="skipped", ratings=(), flags=(), seconds=1),
            label(5, ranks=None, status="flagged", ratings=(), flags=(), seconds=1),
        ]
    )
    assert found.n_rankings == 3
    assert found.ties.mean == pytest.approx(1 / 6)
    assert found.all_bad.mean == pytest.approx(1 / 3)
    assert (found.skipped.mean, found.flagged.mean) == pytest.approx((1 / 5, 1 / 5))
    ada = of(found, "ada")
    assert (ada.n_ranked, ada.n_skipped, ada.n_flagged, ada.ties) == (3, 1, 1, pytest.approx(1 / 6))


def test_practice_counts_nowhere_and_gold_for_gold_alone():
    rank = [label(task, person) for task in (1, 2) for person in ("ada", "bob")]
    known = {"expected": (3, 2, 1)}
    golds = [
        label(8, "ada", (3, 2, 1), kind="gold", **known),
        label(8, "bob", (1, 2, 3), kind="gold", **known),
        label(9, "bob", (2, 3, 1), kind="gold", **known),  # two of three pairs
        label(9, "ada", None, kind="gold", all_bad=True, **known),
        label(7, "ada", None, kind="gold", status="skipped", ratings=(), flags=(), **known),
    ]
    practice = [label(11, "zoe", (1, 2, 3), kind="practice", **known)]
    found, without = summarise(rank + golds + practice, gold_pass=0.6), summarise(rank)
    gold_alone = {"people", "n_gold", "gold", "gold_tasks"}
    for name in set(Summary._fields) - gold_alone:
        assert getattr(found, name) == getattr(without, name), name
    assert (found.n_gold, found.gold.mean) == (4, 0.5)
    assert [(one.task, one.n, one.n_passed) for one in found.gold_tasks] == [(8, 2, 1), (9, 2, 1)]
    assert [(p.name, p.n_gold, p.gold.mean) for p in found.people] == [("ada", 2, 0.5), ("bob", 2, 0.5)]
    assert summarise(golds, gold_pass=0.7).gold.mean == 0.25


def test_disputes_are_the_tasks_on_which_people_differ_the_worst_first():
    rows = [
        *(label(1, person, (1, 2, 3)) for person in ("ada", "bob")),
        *(label(2, *said) for said in (("ada", (1, 2, 3)), ("bob", (3, 2, 1)))),
        *(label(3, *said) for said in (("ada", (1, 2, 3)), ("bob", (1, 2, 3)), ("cyd", (1, 3, 2)))),
        *(label(4, *said) for said in (("ada", (1, 1, 3)), ("bob", (1, 2, 3)))),  # a tie is no dispute
        label(5),
    ]
    found = summarise(rows)
    assert [(one.task, one.n_people) for one in found.disputes] == [(2, 2), (3, 3)]
    assert [one.task for one in summarise(rows, decided={2, 99}).disputes] == [3]
    assert [one.agreement for one in found.disputes] == pytest.approx([0, 7 / 9])
    assert [one.tau for one in found.disputes] == pytest.approx([-1, (1 + 1 / 3 + 1 / 3) / 3])
    assert found.n_shared == 4


def test_an_answer_that_two_models_gave_counts_for_both():
    both = (("base", "sft"), ("ppo",), ())  # nobody knows which model gave the last
    found = summarise([label(task, ranks=(2, 1, 3), models=both) for task in range(3)])
    assert {one.model: one.n_votes for one in found.no_places} == {"base": 6, "sft": 6, "ppo": 6}
    mixed = [label(t, ranks=(1 + t % 2, 2 - t % 2), models=(("base", "sft"), ("ppo",))) for t in range(40)]
    places = {place.model: place for place in summarise(mixed).places}
    assert {name: place.share for name, place in places.items()} == {"base": 0.5, "sft": 0.5, "ppo": 0.5}
    assert {place.n_votes for place in places.values()} == {80}


def test_a_simulated_project_is_read_rightly():
    found = summarise(project())
    assert [place.model for place in found.places] == ["ppo", "sft", "base"]
    assert found.places[0].score.low > found.places[1].score.mean
    assert found.places[0].share > 0.6
    assert 0.65 < found.agreement.pairwise.low < found.agreement.pairwise.high < 0.95
    assert found.agreement.tau.mean > 0.3
    assert 0.2 < found.alpha_ranks.mean < found.alpha_ranks.high < 0.9
    assert [flag.name for flag in found.flags] == ["rude"]
    assert found.flags[0].alpha.low > 0
    assert found.position.earlier.low < 0.5 < found.position.earlier.high
    assert found.position.p_any > 0.01
    assert found.n_shared == 150
    assert sum(couple.n_tasks for couple in found.couples) == 150
    assert sum(n for _, n in found.by_day) == found.n_rankings == 300
    assert [day for day, _ in found.by_day] == list(range(100, 108))
    assert found.seconds == tuple(sorted(found.seconds))


def test_who_ranks_at_random_and_fast_stands_out():
    found = summarise(project(lazy=("eve",)))
    eve = of(found, "eve")
    others = [person for person in found.people if person.name != "eve"]
    assert eve.fast > 0.9
    assert max(person.fast for person in others) < 0.1
    assert eve.agreement.pairwise.high < min(person.agreement.pairwise.mean for person in others)
    assert eve.median_seconds < found.median_seconds / 5


def test_the_order_of_rows_does_not_matter():
    rows = project(40)
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    one, other = summarise(rows), summarise(shuffled)
    for mine, its in zip(one.people, other.people, strict=True):
        assert its[:7] == mine[:7]
        assert its.agreement.pairwise == pytest.approx(mine.agreement.pairwise)
        assert its.agreement.tau == pytest.approx(mine.agreement.tau)
    assert other.disputes == one.disputes
    for name in ("ties", "skipped", "alpha_ranks", "alpha_ratings"):
        assert getattr(other, name) == pytest.approx(getattr(one, name)), name
    for mine, its in zip(one.places, other.places, strict=True):
        assert mine.model == its.model
        assert mine.score.mean == pytest.approx(its.score.mean)


def test_a_prompt_with_several_tasks_is_one_prompt():
    rows = project(60)
    apart, together = summarise(rows), summarise([row._replace(prompt=row.task // 6) for row in rows])
    assert together.agreement.pairwise.mean == apart.agreement.pairwise.mean
    assert together.agreement.n_tasks == 10
    assert together.alpha_ranks.mean == pytest.approx(apart.alpha_ranks.mean)
    assert together.alpha_ranks != apart.alpha_ranks


def test_very_many_rankings_are_told_by_quantiles(monkeypatch):
    monkeypatch.setattr("apps.label.summary.MOST_SECONDS", 11)
    found = summarise([label(task, seconds=float(task + 1)) for task in range(101)])
    assert found.seconds == pytest.approx([1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 101])
    assert found.median_seconds == 51


def test_a_summary_is_plain_data():
    found = summarise(project(30))
    assert pickle.loads(pickle.dumps(found)) == found
    assert isinstance(hash(found.people[0].name), int)


def test_every_figure_is_drawn_and_names_are_text():
    rows = project(80, people=("ada", "bob", "<script>alert(1)</script>", "${pwn()}"))
    golds = [row._replace(kind="gold", expected=(3, 2, 1), task=row.task + 1000) for row in rows[:20]]
    drawn = figures(summarise(rows + golds))
    assert set(drawn) == {"pace", "seconds", "position", "agreement", "gold", "leaderboard"}
    for svg in drawn.values():
        ElementTree.fromstring(svg)
        assert "<script" not in svg
    assert ">ada<" in drawn["agreement"]
