"""The loop closed: simulated annotators rank through the API, and a reward model learns from the export."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from helpers import metrics, run
from offices import new_id
from served import Member, Place
from tiny import WORDS

from align import rm
from align.config import build
from align.sections import Data
from align.text.load import load
from align.text.records import Ranking
from apps.label.exporting import export
from apps.store import adding

pytestmark = pytest.mark.slow

NOISE = 0.25
WORTH = {word: 2 * place / len(WORDS) for place, word in enumerate(WORDS)}
N_TASKS, K = 60, 9


def choices(chance: random.Random) -> list[list[str]]:
    """The answers of each task: words, each with a worth that nobody is told."""
    return [chance.sample(WORDS, K) for _ in range(N_TASKS)]


def gumbel(chance: random.Random) -> float:
    """Noise with which one answer is preferred to another with probability sigmoid(difference / NOISE)."""
    return -math.log(-math.log(1.0 - chance.random() or 1e-300))


def rank_all(member: Member, chance: random.Random) -> int:
    """Ranks every task by what the answers are worth, with noise, as the page would send it."""
    n = 0
    while task := member.call("POST", "claim", {}).json()["task"]:
        seen = [WORTH[answer["text"]] + NOISE * gumbel(chance) for answer in task["answers"]]
        ranks = {str(slot): 1 + sum(other > value for other in seen) for slot, value in enumerate(seen)}
        payload = {"answers": {slot: {"rating": 4, "flags": [], "comment": ""} for slot in ranks}, "ranks": ranks}
        sent = {"id": new_id(), "task": task["id"], "lease": task["lease"], "payload": payload, "seconds": 9}
        assert member.call("POST", "submit", sent).json()["saved"]
        n += 1
    return n


def test_a_reward_model_reaches_what_the_annotators_noise_allows(
    make_place: Callable[..., Place], world: Any, tmp_path: Path
) -> None:
    place, chance = make_place(overlap=2), random.Random(1)
    answers = choices(chance)
    place.add(
        [
            adding.NewPrompt(
                [{"role": "user", "content": f"say {n}"}], "", tuple(adding.NewAnswer(word, {}) for word in words)
            )
            for n, words in enumerate(answers)
        ]
    )
    assert [rank_all(place.member(name), chance) for name in ("ada", "bob")] == [N_TASKS, N_TASKS]
    (rankings,) = export(place.project, tmp_path / "out", ("rankings",))
    assert rankings.n_rows == 2 * N_TASKS
    data = {"path": str(rankings.path), "max_tokens": 48, "validation": 0.3}
    changes = {f"data__{key}": value for key, value in data.items()}
    folder = run(
        rm, world, tmp_path / "rm", **changes, train__steps=60, optim__batch_size=16, optim__learning_rate=0.003
    )
    held_out = load(build(Data, data, "data"), "rankings", seed=1).validation
    allowed = share_of_pairs_as_they_are_worth(held_out)
    assert 0.8 < allowed < 0.9
    assert metrics(folder)[-1]["accuracy/validation"] > allowed - 0.04


def share_of_pairs_as_they_are_worth(rankings: list[Ranking]) -> float:
    """What nobody can beat but by luck."""
    right = [
        (WORTH[one] > WORTH[other]) == (above < below)
        for ranking in rankings
        for (one, above), (other, below) in combinations(zip(ranking.responses, ranking.ranks, strict=True), 2)
    ]
    return sum(right) / len(right)
