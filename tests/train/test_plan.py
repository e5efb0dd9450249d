"""What a dry run says, and what a run that cannot fit is told."""

from __future__ import annotations

import pytest
from helpers import recipe_of

from align import dpo, ppo, pretrain, rm, sft
from align.config import DryRun
from align.errors import UserError
from align.models.shapes import model_shape
from align.rl.plan import plan_of_models, plan_of_shape
from align.train import plan
from align.train.machine import free_memory
from align.train.plan import Device, Sizes, changed, changes, check_memory, estimate_of, plan_of_one_model, remedy

GB = 1e9


def wide_ppo(world, tmp_path, **changes):
    """A PPO recipe with long answers, and its description on a model as wide as 7B, with two blocks instead of 32."""
    keys = {"data__max_tokens": 1024, "rollout__max_tokens": 256, "optim__batch_size": 64, "train__precision": "bf16"}
    recipe = recipe_of(ppo, world, tmp_path / "run", **(keys | changes))
    shape = model_shape("7B")
    shape.num_hidden_layers = 2
    return recipe, plan_of_shape(recipe, shape)


def test_what_would_fit_is_the_first_change_that_does(world, tmp_path):
    recipe, described = wide_ppo(world, tmp_path)
    gpu = Device("gpu", 12 * GB, is_here=False)
    told = remedy(recipe, described, gpu)
    assert told.startswith("What would fit: model.adapter=lora train.micro_batch_tokens=")
    keys = dict(word.split("=") for word in told.split(": ")[1].split(" (")[0].split())
    typed = {key: int(value) if value.isdigit() else value for key, value in keys.items()}
    assert estimate_of(changed(recipe, typed), described, gpu).peak <= gpu.memory
    more = {key: value * 2 for key, value in typed.items() if isinstance(value, int)}
    assert estimate_of(changed(recipe, typed | more), described, gpu).peak > gpu.memory


def test_smaller_portions_come_before_everything_else(world, tmp_path):
    recipe, described = wide_ppo(world, tmp_path, model__adapter="lora")
    gpu = Device("gpu", 10 * GB, is_here=False)
    assert estimate_of(recipe, described, gpu).peak > gpu.memory
    told = remedy(recipe, described, gpu)
    assert told.startswith("What would fit: train.micro_batch_tokens=")
    assert "adapter" not in told


def test_where_nothing_fits_the_least_is_told(world, tmp_path):
    recipe = recipe_of(sft, world, tmp_path / "run", data__max_tokens=1024, train__precision="bf16")
    shape = model_shape("7B")
    shape.num_hidden_layers = 2
    described = plan_of_one_model(shape, Sizes(1024, 256), "vocabulary")
    told = remedy(recipe, described, Device("gpu", 1e8, is_here=False))
    assert told.startswith("No setting makes it fit: model.adapter=lora model.quantization=4bit")
    assert "train.gradient_checkpointing=true" in told
    assert told.endswith("use a smaller model")


def test_changes_never_go_back(world, tmp_path):
    recipe = recipe_of(sft, world, tmp_path / "run", model__adapter="lora", model__quantization="8bit")
    assert all(keys.get("model.quantization") != "none" for keys in changes(recipe))
    quantizations = [keys["model.quantization"] for keys in changes(recipe) if "model.quantization" in keys]
    assert quantizations == ["8bit", "8bit", "4bit", "4bit"]
    assert not any("model.adapter" in keys for keys in changes(recipe_of(pretrain, world, tmp_path / "p")))


@pytest.mark.parametrize("stage", [pretrain, sft, rm, ppo])
def test_a_run_that_cannot_fit_is_refused_before_anything_is_loaded_or_written(stage, world, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "this_device", lambda: Device("cpu", 1e6))
    if stage is not pretrain:  # to try every change takes seconds, and is tested above
        monkeypatch.setattr(plan, "remedy", lambda *given: "No setting makes it fit")
    recipe = recipe_of(stage, world, tmp_path / "run")
    with pytest.raises(
        UserError, match=r"this run needs about .* free on this machine: 1.0 MB. No setting makes it fit"
    ):
        stage.run(recipe)
    assert not (tmp_path / "run" / "result.json").exists()
    assert not (tmp_path / "run" / "model").exists()


def test_the_check_can_be_switched_off_and_lets_small_runs_through(world, tmp_path, monkeypatch):
    described = plan_of_one_model(model_shape("demo"), Sizes(16, 8), "vocabulary")
    recipe = recipe_of(sft, world, tmp_path / "run")
    monkeypatch.setattr(plan, "this_device", lambda: Device("cpu", 1e6))
    monkeypatch.setattr(plan, "remedy", lambda *given: "No setting makes it fit")
    check_memory(changed(recipe, {"train.check_memory": False}), described)
    with pytest.raises(UserError):
        check_memory(recipe, described)
    monkeypatch.setattr(plan, "this_device", lambda: Device("cpu", 1e11))
    monkeypatch.setattr(plan, "estimate_of", None)  # a small run is not counted
    check_memory(recipe, described)


@pytest.mark.parametrize(("stage", "memory"), [(pretrain, 20 * GB), (sft, 1 * GB), (rm, 20 * GB), (ppo, 20 * GB)])
def test_a_shape_needs_neither_model_nor_data(stage, memory, world, tmp_path, capsys):
    keys = {"data__path": "nowhere.jsonl", "data__max_tokens": 64, "train__precision": "auto"}
    keys |= {} if stage is pretrain else {"model__path": "nowhere"}
    keys |= {"reward__path": "nowhere"} if stage is ppo else {}
    recipe = recipe_of(stage, world, tmp_path / "run", **keys)
    stage.run(recipe, DryRun(device_memory=memory, model_shape="124M"))
    told = capsys.readouterr().out
    assert "precision: bf16, device: gpu" in told
    assert "124,4" in told
    assert ("fits into 20.00 GB" in told) == (memory > GB)
    assert ("What would fit: " in told) == (memory == GB)
    assert not (tmp_path / "run").exists()


def test_ppo_has_four_models_or_one_base(world, tmp_path):
    recipe = recipe_of(ppo, world, tmp_path / "run")
    cpu = Device("cpu", GB)
    roles, _ = plan_of_models(recipe, 10)(recipe, cpu)
    assert [(role.name, role.kind) for role in roles] == [
        ("policy", "trained"),
        ("reference", "frozen"),
        ("critic", "trained"),
        ("reward", "frozen"),
    ]
    lora = changed(recipe, {"model.adapter": "lora"})
    roles, workload = plan_of_models(recipe, 10)(lora, cpu)
    assert [(role.name, role.kind) for role in roles] == [
        ("base", "frozen"),
        ("policy", "adapter"),
        ("reference", "shared"),
        ("critic base", "frozen"),  # world.reward is another whole model, which the critic starts from
        ("critic", "adapter"),
        ("reward", "shared"),
    ]
    assert (workload.prompt_length, workload.answer_length, workload.length) == (10, 8, 18)
    function = recipe_of(ppo, world, tmp_path / "run", reward__path=..., reward__function="helpers:brevity")
    roles, _ = plan_of_models(function, 10)(function, cpu)
    assert [role.name for role in roles] == ["policy", "reference", "critic"]


@pytest.mark.parametrize(("tokens", "batch_size", "rows"), [(10_000, 2, 8), (130, 8, 8), (127, 8, 4), (1, 8, 4)])
def test_answers_to_a_prompt_go_through_a_reward_model_together(tokens, batch_size, rows, world, tmp_path):
    keys = {"train__micro_batch_tokens": tokens, "optim__batch_size": batch_size}
    recipe = recipe_of(rm, world, tmp_path / "run", **keys)
    _, work = plan_of_one_model(model_shape("demo"), Sizes(16, 1, rows=4), "scalar")(recipe, Device("cpu", GB))
    assert (work.rows, work.n_scored) == (rows, rows)


@pytest.mark.parametrize(("tokens", "batch_size", "rows"), [(10_000, 2, 4), (10_000, 6, 12), (160, 6, 6), (1, 6, 2)])
def test_dpo_puts_pairs_through_its_models(tokens, batch_size, rows, world, tmp_path):
    """As many as divide a step evenly, dropout off, the logits in tiles."""
    keys = {"train__micro_batch_tokens": tokens, "optim__batch_size": batch_size, "model__adapter": "lora"}
    recipe = recipe_of(dpo, world, tmp_path / "run", **keys)
    roles, work = dpo.plan(model_shape("demo"), 20)(recipe, Device("cpu", GB))
    assert [(role.name, role.kind) for role in roles] == [
        ("base", "frozen"),
        ("policy", "adapter"),
        ("reference", "shared"),
    ]
    assert (work.rows, work.n_scored, work.dropout, work.loss) == (rows, 19 * rows, False, "preference")


def test_a_model_that_cannot_be_counted_does_not_stop_a_run(world, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise NotImplementedError("no kernel for fake tensors")

    monkeypatch.setattr(plan, "estimate", fails)
    monkeypatch.setattr(plan, "this_device", lambda: Device("cpu", 1e6))
    recipe = recipe_of(sft, world, tmp_path / "run")
    check_memory(recipe, plan_of_one_model(model_shape("demo"), Sizes(16, 8), "vocabulary"))
    assert "memory cannot be estimated: NotImplementedError: no kernel" in capsys.readouterr().out


def test_free_memory_is_what_linux_and_the_container_leave(tmp_path):
    proc = tmp_path / "meminfo"
    proc.write_text("MemTotal:  2000 kB\nMemAvailable:  1000 kB\n")
    assert free_memory(proc, tmp_path) == 1000 * 1024
    for name, text in {
        "memory.max": "600000",
        "memory.current": "500000",
        "memory.stat": "inactive_file 100000",
    }.items():
        (tmp_path / name).write_text(text + "\n")
    assert free_memory(proc, tmp_path) == 200_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(proc, tmp_path) == 1000 * 1024
