"""The figures of a step over several processes are those of one process that has all the answers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from helpers import recipe_of

from align import ppo
from align.rl.learner import Learner
from align.rl.rollouts import Rollouts

pytestmark = pytest.mark.heavy

N = 2
SHARES = [[0, 3, 4, 5, 9, 10, 11], [1, 2, 6, 7, 8]]  # of twelve answers: of other number and length


class OneOfTwo:
    """An accelerator that adds up with another in a thread beside it; gradients stay where they are."""

    num_processes = N
    barrier = threading.Barrier(N, timeout=60)
    given: dict[int, torch.Tensor]

    def __init__(self, plain: Any, index: int, given: dict[int, torch.Tensor]) -> None:
        self.plain, self.process_index, self.given = plain, index, given

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def reduce(self, tensor: torch.Tensor, how: str) -> torch.Tensor:
        assert how == "sum"
        self.given[self.process_index] = tensor
        self.barrier.wait()
        result = sum(self.given[index] for index in range(N))
        self.barrier.wait()
        return result


def share_of(rollouts: Rollouts, rows: list[int]) -> Rollouts:
    """These rows of a batch, in a layout as wide as the batch's."""
    found: dict[str, Any] = {}
    for field in fields(Rollouts):
        value = getattr(rollouts, field.name)
        if isinstance(value, torch.Tensor):
            found[field.name] = value[rows]
        elif isinstance(value, list):
            found[field.name] = [value[row] for row in rows]
    found["figures"] = {name: column[rows] for name, column in rollouts.figures.items()}
    return replace(rollouts, **found)


CASES: dict[str, dict[str, Any]] = {
    "gae": {"ppo__whiten_advantages": True, "reward__whiten": True},
    "gae, the score after EOS": {"reward__score_at": "after_eos", "ppo__entropy_coefficient": 0.1},
    "gae, whitened by mini-batch": {"reward__whiten": True, "ppo__whiten_over": "minibatch"},
    "a leash in the loss": {"kl__placement": "loss", "kl__estimator": "full", "ppo__dual_clip": 1.5},
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_report_what_one_would(case, world, tmp_path):
    changes = {"ppo__n_epochs": 1, "ppo__n_minibatches": 1, "optim__batch_size": 12, "train__micro_batch_tokens": 64}
    recipe = recipe_of(ppo, world, tmp_path / "run", **changes | CASES[case])
    sampler, alone, prompts = ppo.build(recipe)
    noise = torch.Generator().manual_seed(3)
    rollouts = sampler.collect(prompts[:12], 1)
    rollouts.logprobs = rollouts.logprobs + 0.3 * torch.randn(rollouts.mask.shape, generator=noise) * rollouts.mask
    rollouts.values = rollouts.values + torch.randn(rollouts.mask.shape, generator=noise) * rollouts.states
    learners: list[Learner] = []
    given: dict[int, torch.Tensor] = {}
    for index in range(N):
        _, learner, _ = ppo.build(recipe)
        accelerator = OneOfTwo(learner.accelerator, index, given)
        learners.append(Learner(learner.roles, recipe, alone.n_steps, accelerator))

    everything = list(range(12))
    advantages, returns = alone.targets(rollouts, everything)

    def work(index: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
        mine = share_of(rollouts, SHARES[index])
        return *learners[index].targets(mine, list(range(len(mine)))), learners[index].step(mine, 2)

    with ThreadPoolExecutor(N) as pool:
        found = list(pool.map(work, range(N)))
    for rows, (my_advantages, my_returns, _) in zip(SHARES, found, strict=True):
        torch.testing.assert_close(my_advantages, advantages[rows], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(my_returns, returns[rows], atol=1e-5, rtol=1e-5)
    expected = alone.step(rollouts, 2)
    for _, _, figures in found:
        assert figures.keys() == expected.keys()
        for name, value in expected.items():
            if not name.endswith("grad_norm"):  # gradients do not cross here
                assert figures[name] == pytest.approx(value, abs=1e-5, rel=1e-5), name
