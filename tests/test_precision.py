"""bf16 computes what fp32 computes, to its three digits; what is trained is kept in fp32."""

import pytest
import torch
from helpers import metrics, run
from safetensors.torch import load_file

from align import ppo, pretrain, rm, sft

CASES = [(pretrain, "none"), *((stage, adapter) for stage in (sft, rm, ppo) for adapter in ("none", "lora"))]


@pytest.mark.parametrize(("stage", "adapter"), CASES)
def test_a_stage_in_bf16_is_that_in_fp32_but_for_rounding(stage, adapter, world, tmp_path):
    changes = {"train__steps": 2, "optim__learning_rate": 1e-3}
    changes |= {"model__adapter": adapter} if stage is not pretrain else {}
    changes |= {"ppo__n_epochs": 1, "ppo__n_minibatches": 1} if stage is ppo else {}
    fp32 = metrics(run(stage, world, tmp_path / "fp32", train__precision="fp32", **changes))
    bf16 = metrics(run(stage, world, tmp_path / "bf16", train__precision="bf16", **changes))
    if stage is ppo:
        assert bf16[0]["objective/kl"] == 0.0
        assert bf16[0]["val/ratio"] == pytest.approx(1.0, abs=0.02)
        assert bf16[0]["objective/entropy"] != fp32[0]["objective/entropy"]
    else:
        assert bf16[0]["loss/train"] == pytest.approx(fp32[0]["loss/train"], rel=0.03)
        assert bf16[0]["loss/train"] != fp32[0]["loss/train"]
    for path in (tmp_path / "bf16").rglob("*.safetensors"):
        if "checkpoints" not in path.parts:
            assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float32}, path


def test_both_precisions_can_be_used_one_after_the_other(world, tmp_path):
    """A notebook, or a pipeline, runs several stages in one process."""
    for index, precision in enumerate(["bf16", "fp32", "bf16"]):
        run(sft, world, tmp_path / str(index), train__precision=precision, train__steps=1)
    assert metrics(tmp_path / "0") == metrics(tmp_path / "2") != metrics(tmp_path / "1")
