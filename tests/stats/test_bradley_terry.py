"""The leaderboard: right scores where they can be worked out, honest intervals, and no place without a reason."""

import time

import numpy as np
import pytest
from scipy.optimize import minimize

from align.stats.bradley_terry import PRIOR_SD, Votes, fit, leaderboard, votes_of

STRENGTH = np.array([0.9, 0.4, 0.0, -0.4, -0.9])


def votes(rng, n_prompts, n_people, k=3, overlap=2, prompts=0.0, people=0.0, tie=0.0):
    """Each prompt's k of 5 models ranked by `overlap` people. Models suit prompts and people differently by so much."""
    n = len(STRENGTH)
    suits = STRENGTH + prompts * rng.normal(size=(n_prompts, n))
    likes = people * rng.normal(size=(n_people, n))
    models = np.argsort(rng.random((n_prompts, n)), axis=1)[:, :k]
    who = (rng.integers(0, n_people, (n_prompts, 1)) + np.arange(overlap)) % n_people
    found = []
    for person in who.T:
        seen = np.take_along_axis(suits + likes[person], models, axis=1) + rng.gumbel(size=models.shape)
        seen = np.round(seen / tie) if tie else seen
        ranks = 1 + (seen[:, None, :] > seen[:, :, None]).sum(axis=2)
        found.append(votes_of(range(n_prompts), person.tolist(), models.tolist(), ranks.tolist()))
    return Votes(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def duels(*results):
    """Votes from (first, second, won by the first, times), each on a prompt of its own, by three people in turn."""
    rows = [result[:3] for result in results for _ in range(result[3])]
    first, second, won = (np.array(column) for column in zip(*rows, strict=True))
    number = np.arange(len(rows))
    return Votes(number, number % 3, first, second, won.astype(float))


def test_three_wins_of_four_are_odds_of_three():
    wins = np.array([[[0.0, 3e6], [1e6, 0.0]]])
    assert fit(wins)[0] == pytest.approx([np.log(3) / 2, -np.log(3) / 2], abs=1e-5)


def test_the_fit_maximises_what_it_says_it_does():
    rng = np.random.default_rng(0)
    wins = rng.integers(0, 9, size=(6, 6)) * (1 - np.eye(6))

    def loss(scores):
        return float((wins * np.logaddexp(0, scores[None, :] - scores[:, None])).sum() + scores @ scores / 18)

    assert PRIOR_SD == 3
    best = minimize(loss, np.zeros(6), tol=1e-12).x
    assert fit(wins[None])[0] == pytest.approx(best - best.mean(), abs=1e-4)


def test_many_fits_at_once_are_the_fits_one_by_one_however_lopsided():
    rng = np.random.default_rng(1)
    wins = rng.integers(0, 400, size=(8, 5, 5)) * (1 - np.eye(5)) * (rng.random((8, 5, 5)) < 0.4)
    assert np.isfinite(fit(wins)).all()
    assert fit(wins) == pytest.approx(np.concatenate([fit(one[None]) for one in wins]), abs=1e-7)


def test_the_prior_hardly_moves_thirty_votes():
    few = fit(np.array([[[0.0, 22.0], [8.0, 0.0]]]))[0]  # log(22 / 8) = 1.01, with a standard error of 0.41
    assert few[0] - few[1] == pytest.approx(np.log(22 / 8), abs=0.05)


def test_a_ranking_is_all_its_pairs_and_a_tie_half_a_win():
    found = votes_of([7], [3], [[4, 2, 9]], [[1, 2, 2]])
    assert list(zip(*found, strict=True)) == [(7, 3, 4, 2, 1), (7, 3, 4, 9, 1), (7, 3, 2, 9, 0.5)]


def test_two_answers_of_one_model_say_nothing_about_models():
    found = votes_of([0, 1], [0, 0], [[1, 1, 2], [3, 3]], [[1, 2, 3], [1, 2]])
    assert found.first.tolist() == [1, 1]
    assert found.second.tolist() == [2, 2]
    assert len(votes_of([], [], [], []).won) == 0


def test_the_order_is_recovered():
    found = leaderboard(votes(np.random.default_rng(0), 600, 12, tie=0.5), 5, n_resamples=200)
    assert [standing.model for standing in found.standings] == [0, 1, 2, 3, 4]
    assert [standing.place for standing in found.standings] == [1, 2, 3, 4, 5]
    assert all(standing.place_low <= standing.place <= standing.place_high for standing in found.standings)
    assert sum(standing.score.mean for standing in found.standings) == pytest.approx(0, abs=1e-9)
    assert (found.unranked, found.n_prompts, found.n_people) == ([], 600, 12)
    assert sum(standing.n_votes for standing in found.standings) == 2 * 600 * 2 * 3


def test_places_overlap_where_votes_are_few():
    found = leaderboard(votes(np.random.default_rng(1), 60, 6), 5, n_resamples=200)
    middle = [standing for standing in found.standings if standing.model == 2]
    assert middle[0].place_low < middle[0].place_high


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("setting", "least"),
    [
        ({"n_prompts": 150, "n_people": 10}, 0.93),
        ({"n_prompts": 150, "n_people": 12, "prompts": 1.0, "people": 0.4, "tie": 0.5}, 0.91),
    ],
    ids=["noise alone", "prompts and people differ"],
)
def test_the_interval_covers_the_truth_95_times_of_100(setting, least):
    rng = np.random.default_rng(2)
    world = {key: value for key, value in setting.items() if not key.startswith("n_")}
    truth = fit(wins_of(votes(rng, 60_000, 60_000, k=5, overlap=1, **world)))[0]
    covered = []
    for seed in range(80):
        found = leaderboard(votes(rng, **setting), 5, n_resamples=200, seed=seed)
        covered += [s.score.low <= truth[s.model] <= s.score.high for s in found.standings]
    assert least <= np.mean(covered) <= 0.985


def wins_of(found):
    wins = np.zeros((1, 5, 5))
    np.add.at(wins, (0, found.first, found.second), found.won)
    np.add.at(wins, (0, found.second, found.first), 1 - found.won)
    return wins


def test_people_who_differ_widen_the_intervals_more_prompts_do_not_narrow_them():
    def width(n_prompts, people):
        found = leaderboard(votes(np.random.default_rng(3), n_prompts, 8, people=people), 5, n_resamples=200)
        return np.mean([standing.score.high - standing.score.low for standing in found.standings])

    assert width(1600, 0.0) < 0.4 * width(100, 0.0)
    assert width(1600, 0.8) > 3 * width(1600, 0.0)


def test_one_persons_votes_speak_for_them():
    found = leaderboard(votes(np.random.default_rng(4), 200, 1, overlap=1), 5, n_resamples=200)
    assert found.n_people == 1
    assert all(0 < standing.score.high - standing.score.low < 2 for standing in found.standings)


def test_a_model_with_few_votes_is_not_ranked():
    found = leaderboard(duels((0, 1, 1, 40), (0, 1, 0, 30), (2, 0, 1, 5), (2, 0, 0, 5)), 3, n_resamples=50)
    assert [standing.model for standing in found.standings] == [0, 1]
    assert [standing.n_votes for standing in found.standings] == [80, 70]
    assert found.unranked == [(2, 10, "fewer than 30 comparisons with other models")]
    assert len(leaderboard(duels((0, 1, 1, 4), (0, 1, 0, 3)), 2, min_votes=7, n_resamples=50).standings) == 2


def test_models_that_were_never_compared_are_not_ranked_together():
    chain = duels((0, 1, 1, 30), (1, 0, 1, 20), (1, 2, 0.5, 40), (3, 4, 1, 30), (4, 3, 1, 30))
    found = leaderboard(chain, 5, n_resamples=50)
    assert sorted(standing.model for standing in found.standings) == [0, 1, 2]  # 0 and 2 through 1
    assert {one.model: one.reason for one in found.unranked} == dict.fromkeys(
        (3, 4), "never compared with those that are ranked, nor through others"
    )


def test_a_model_that_never_lost_has_no_score():
    found = leaderboard(duels((0, 1, 1, 40), (1, 2, 1, 30), (2, 1, 1, 30), (2, 3, 1, 31)), 4, n_resamples=50)
    assert sorted(standing.model for standing in found.standings) == [1, 2]
    assert [one.reason.split(":")[0] for one in found.unranked] == [
        "above all that are ranked",
        "below all that are ranked",
    ]
    assert leaderboard(duels((0, 1, 1, 40)), 2).standings == []
    assert "no two models" in leaderboard(duels((0, 1, 1, 40)), 2).unranked[0].reason


def test_nothing_to_rank():
    found = leaderboard(votes_of([], [], [], []), 2)
    assert found.standings == []
    assert [one.n_votes for one in found.unranked] == [0, 0]
    assert leaderboard(votes_of([], [], [], []), 0) == ([], [], 0, 0)


def test_fifty_thousand_votes_take_seconds():
    rng = np.random.default_rng(5)
    n, k = 50_000, 10
    first = rng.integers(0, k, n)
    second = (first + rng.integers(1, k, n)) % k
    won = (rng.random(n) < 1 / (1 + np.exp((first - second) / 5))).astype(float)
    began = time.process_time()
    found = leaderboard(Votes(np.arange(n) // 3, rng.integers(0, 50, n), first, second, won), k, n_resamples=1000)
    assert time.process_time() - began < 10
    assert [standing.model for standing in found.standings] == list(range(k))
