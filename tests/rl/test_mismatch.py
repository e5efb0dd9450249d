"""A sampler that is wrong is caught in the first step of PPO, before anything is learned."""

from typing import Any

import pytest
import torch
from helpers import metrics, recipe_of

from align import ppo
from align.errors import UserError
from align.generation import kv_cache, sampling
from align.generation.kv_cache import Cached, DecodingMode, RoomyLayer
from align.rl.mismatch import LIMITS, gap_limit
from align.train.machine import accelerator

MODES = ["recompute", "sampled"]


def run(world: Any, folder: Any, **keys: Any) -> None:
    ppo.run(recipe_of(ppo, world, folder / "run", train__steps=2, **keys))


def shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Cached.append

    def later(self: Cached, tokens: Any) -> None:
        append(self, tokens)
        self.positions = self.positions + 1

    monkeypatch.setattr(Cached, "append", later)


def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    update = RoomyLayer.update

    def wiped(self: RoomyLayer, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        held_keys, held_values = update(self, keys, values)
        held_values[:, :, : -values.shape[2]] = 0
        return held_keys, held_values

    monkeypatch.setattr(RoomyLayer, "update", wiped)


def hotter(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = sampling.draw
    monkeypatch.setattr(
        sampling, "draw", lambda logits, how, chance: draw(logits, how._replace(temperature=1.3), chance)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrong", [shifted, forgotten, hotter])
def test_a_sampler_that_is_wrong_is_caught_in_the_first_step(world, tmp_path, monkeypatch, wrong, mode):
    """Though it be trusted when it is tried."""
    wrong(monkeypatch)
    monkeypatch.setattr(kv_cache, "_probed", lambda model: DecodingMode(True, True))
    with pytest.raises(UserError, match=r"GPT.* cannot be sampled here: .* nats on average"):
        run(world, tmp_path, rollout__logprobs=mode)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", MODES)
def test_a_gap_of_a_twentieth_of_a_nat_is_caught_in_every_precision(world, tmp_path, monkeypatch, mode, precision):
    sample = ppo_sampler().sample

    def off(*args: Any) -> Any:
        return [
            answer._replace(logprobs=[p + (0.05 if i % 2 else -0.05) for i, p in enumerate(answer.logprobs)])
            for answer in sample(*args)
        ]

    monkeypatch.setattr(ppo_sampler(), "sample", off)
    large = {"optim__batch_size": 64, "train__micro_batch_tokens": 2**14}
    with pytest.raises(UserError, match="cannot be sampled here"):
        run(world, tmp_path, rollout__logprobs=mode, train__precision=precision, **large)


def ppo_sampler() -> Any:
    from align.rl import sampler

    return sampler


@pytest.mark.parametrize("mode", MODES)
def test_the_gap_of_every_step_is_logged_and_is_rounding(world, tmp_path, mode):
    run(world, tmp_path, rollout__logprobs=mode)
    rows = metrics(tmp_path / "run")
    assert len(rows) == 2
    for row in rows:
        assert 0 < row["rollout/logprob_gap_mean"] <= row["rollout/logprob_gap_max"] < 1e-4


def test_only_8_bits_let_a_twentieth_of_a_nat_pass_for_they_round_by_more():
    assert {name for name, limit in LIMITS.items() if limit > 0.05} == {"8bit"}
    assert torch.finfo(torch.bfloat16).eps > LIMITS["fp32"]


@pytest.mark.parametrize(
    ("precision", "quantization", "logit", "limit"),
    [
        ("fp32", "none", 20.0, 0.001),
        ("fp32", "8bit", 20.0, 0.3),
        ("bf16", "none", -1.5, 0.04),  # numbers near 1.5 are 1/128 apart in bf16
        ("bf16", "4bit", 20.0, 0.6 * 0.125),  # near 20 they are 1/8 apart
    ],
)
def test_in_bf16_rounding_grows_with_the_logits(precision, quantization, logit, limit):
    assert gap_limit(quantization, accelerator(precision), torch.tensor([logit, -logit])) == pytest.approx(limit)
