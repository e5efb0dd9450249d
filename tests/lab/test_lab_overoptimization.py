"""The over-optimisation curve from a tiny demo: every part is made, made once, and means what it says."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import nested
from transformers import AutoModelForCausalLM

from align.config import build
from align.errors import UserError
from align.lab import overoptimization as command
from align.rewards.model import ModelReward
from align.stats.best_of_n import kl_bound
from align.text.records import Message
from align.text.tokenizer import load_tokenizer

SHORT = {"steps": 4, "precision": "fp32"}


@pytest.fixture
def beside(world, tmp_path):
    """The stages' recipes, as recipes/demo has them; what they read stands under "demo"."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    common = {"model": {"path": world.base}, "train": SHORT, "output": "not used"}
    optim = {"learning_rate": 0.003, "batch_size": 8}
    rm = common | {"data": {"path": world.rankings, "max_tokens": 48, "validation": 0.2}, "optim": optim}
    ppo = common | {"data": {"path": world.prompts, "max_tokens": 48}, "reward": {"path": world.reward}, "optim": optim}
    ppo |= {"rollout": {"max_tokens": 8}, "gold": "helpers:brevity", "kl": {"coefficient": 0.0}}
    for name, recipe in (("rm", rm), ("ppo", ppo)):
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))
    return folder


def recipe_of(output: Path, **changes: Any) -> command.Recipe:
    keys = {"demo": "demo", "output": str(output), "rm.recipe": "rm.yaml", "ppo.recipe": "ppo.yaml"}
    keys |= {"layers": [1, 2], "sizes": [1, 2, 4], "samples": 8, "prompts": 6, "least_d": 0.0}
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    return build(command.Recipe, nested(keys), "recipe")


@pytest.mark.slow
def test_from_a_demo_to_curves_and_a_figure(world, beside, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "out"
    command.run(recipe_of(folder), beside)
    result = json.loads((folder / "overoptimization.json").read_text())
    assert [size["layers"] for size in result["sizes"]] == [1, 2]
    assert result["sizes"][0]["parameters"] < result["sizes"][1]["parameters"]
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [len(row["texts"]) for row in samples] == [8] * 6
    gold = np.array([row["gold"] for row in samples])
    assert gold.tolist() == [[-float(len(text)) for text in row["texts"]] for row in samples]  # brevity
    assert result["start"] == {"gold": pytest.approx(gold.mean()), "n_prompts": 6, "n_samples": 8}
    for size in result["sizes"]:
        best, steps = size["best_of_n"]["points"], size["rl"]["points"]
        assert [point["n"] for point in best] == [1, 2, 4]
        assert [point["kl"] for point in best] == pytest.approx([kl_bound(n) for n in (1, 2, 4)])
        assert best[0]["gold_gain"] == pytest.approx(0)
        assert best[0]["proxy_gain"] == pytest.approx(0, abs=1e-9)
        assert best[0]["proxy"] < best[1]["proxy"] < best[2]["proxy"]
        assert best[2]["gold_low"] <= best[2]["gold"] <= best[2]["gold_high"]
        assert [point["step"] for point in steps] == [1, 2, 3, 4]
        assert steps[0]["d"] == pytest.approx(0, abs=0.02)
        assert size["best_of_n"]["fit"].keys() == {"a", "b", "r2", "n_points", "peak"}
        assert size["best_of_n"]["fit"]["n_points"] == 3
        assert 0 <= size["rm_accuracy"] <= 1
    rows = list(csv.DictReader((folder / "overoptimization.csv").open()))
    assert len(rows) == 2 * (3 + 4)
    assert {row["method"] for row in rows} == {"best_of_n", "rl"}
    assert (folder / "overoptimization.png").stat().st_size > 10_000
    assert "<svg" in (folder / "overoptimization.svg").read_text()
    assert "best of n: gold at most" in capsys.readouterr().out

    monkeypatch.setattr(command, "sample_rows", lambda *_: pytest.fail("sampled again"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    command.run(recipe_of(folder), beside)
    told = capsys.readouterr().out
    assert told.count("finished already") == 4
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")} == before
    assert json.loads((folder / "overoptimization.json").read_text()) == result
    with pytest.raises(UserError, match="was made with another recipe; choose another output, or replace it"):
        command.run(recipe_of(folder, samples=4), beside)


def test_a_trunk_is_the_first_layers_of_the_model(world, beside, tmp_path):
    recipe = recipe_of(tmp_path / "out")
    each = command.plan(recipe, 1, beside)
    command.make_trunk(recipe, each)
    whole, trunk = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (world.base, each.trunk))
    ids = torch.arange(10)[None]
    with torch.no_grad():
        states = whole.transformer(input_ids=ids, output_hidden_states=True).hidden_states
        expected = whole.transformer.ln_f(states[1])  # after one block
        assert torch.allclose(trunk.transformer(input_ids=ids).last_hidden_state, expected, atol=1e-6)
    assert load_tokenizer(each.trunk).get_vocab() == load_tokenizer(world.base).get_vocab()
    assert each.rm.model.path == str(each.trunk)


def test_samples_are_scored_as_ppo_scores_them(world, beside, tmp_path):
    recipe = recipe_of(tmp_path, ppo__set={"reward": {"missing_eos": -7.0, "clip": 9.0}})
    each = command.plan(recipe, 2, beside)
    each = each._replace(
        ppo=each.ppo.model_copy(update={"reward": each.ppo.reward.model_copy(update={"path": world.reward})})
    )
    samples = command.draw_samples(recipe, each.ppo, tmp_path / "samples.jsonl")
    scores = command.score_samples(each, samples, tmp_path / "scores.json")
    tokenizer = load_tokenizer(world.base)
    source = ModelReward(world.reward, tokenizer, "cpu", 1024)
    for row, found in zip(samples, scores, strict=True):
        asked = [[Message("user", row["prompt"])]] * 8
        expected = source.score(asked, row["texts"], row["ids"])
        assert found == pytest.approx(
            [score if ended else -7.0 for score, ended in zip(expected, row["ended"], strict=True)], abs=1e-5
        )
    assert not all(row["ended"][i] for row in samples for i in range(8))  # some answers were cut


def test_a_dry_run_tells_all_recipes_and_writes_nothing(beside, tmp_path, capsys):
    command.run(recipe_of(tmp_path / "out"), beside, dry_run=True)
    told = capsys.readouterr().out
    assert "# rm, 1 layers" in told
    assert "# ppo, 2 layers" in told
    assert str(tmp_path / "out" / "rm-2" / "model") in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layers": [1, 3]}, r"layers = \[1, 3\]: .* has 2; give at most that many"),
        ({"layers": [0]}, r"give different numbers, each 1 or more"),
        ({"sizes": [1, 16]}, r"best of n needs n from 1 to samples = 8"),
        ({"ppo__set": {"gold": None}}, r"its recipe has no gold judge"),
        ({"rm__set": {"data": {"path": "nowhere.jsonl"}}}, r"there is no nowhere.jsonl; run the demo first"),
        ({"rm__set": {"dat": {}}}, r"rm.yaml: .*dat = .*unknown key"),
        ({"rm__recipe": "none.yaml"}, r"none.yaml: cannot read this recipe"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_made(beside, tmp_path, changes, told):
    with pytest.raises(UserError, match=f"(?s){told}"):
        command.run(recipe_of(tmp_path / "out", **changes), beside)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_touched(world, beside, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.yaml").write_text("mine")
    (tmp_path / "out" / "environment.json").write_text("{}")
    with pytest.raises(UserError, match="exists and is not a folder of this command"):
        command.run(recipe_of(tmp_path / "out", overwrite=True), beside)
    assert (tmp_path / "out" / "recipe.yaml").read_text() == "mine"


def test_without_a_recipe_the_command_takes_the_demo_s(monkeypatch):
    taken = []
    monkeypatch.chdir(Path(command.__file__).parents[2])
    monkeypatch.setattr(command, "run", lambda recipe, beside, dry_run: taken.append((recipe, beside, dry_run)))
    for words in ([], ["seed=3", "--dry-run"], [command.RECIPE, "seed=3"]):
        monkeypatch.setattr(sys, "argv", ["overoptimization", *words])
        command.main()
    assert [recipe.seed for recipe, _, _ in taken] == [1, 3, 3]
    assert {beside for _, beside, _ in taken} == {Path("recipes/demo")}
    assert [dry_run for _, _, dry_run in taken] == [False, True, False]
