"""The experiment in small: every part is made, made once, and means what it says."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from align.config import build
from align.errors import UserError
from align.lab import inverse_scaling as command
from align.lab.inverse_scaling import FILES, TASKS
from align.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.heavy

TINY = {
    "sizes": [{"n_embd": width, "n_layer": 1, "learning_rate": 0.002} for width in (8, 16)],
    "seeds": [1, 2],
    "documents": 300,
    "heldout": 12,
    "pretrain": {
        "tokenizer": {"vocab_size": 320},
        "model": {"preset": "demo"},
        "optim": {"batch_size": 8, "warmup_steps": 1},
        "train": {"steps": 4, "precision": "fp32", "checkpoint_every": 2},
    },
}


def recipe_of(output: Path, **changes: Any) -> command.Recipe:
    return build(command.Recipe, {**TINY, "output": str(output), **changes}, "recipe")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inverse") / "out"
    command.run(recipe_of(folder))
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_from_web_text_to_a_figure(made):
    result = json.loads((made / "inverse_scaling.json").read_text())
    assert [size["n_embd"] for size in result["sizes"]] == [8, 16]
    assert list(result["tasks"]) == list(TASKS)
    assert [task["chance"] for task in result["tasks"].values()] == [0.5, 0.5, 0.25]
    assert [task["n_questions"] for task in result["tasks"].values()] == [2 * 176, 2 * 720, 2 * 12]
    for size in result["sizes"]:
        model = AutoModelForCausalLM.from_pretrained(made / "seed-1" / f"size-{size['n_embd']}x1" / "model")
        assert size["parameters"] == sum(parameter.numel() for parameter in model.parameters())
        assert len(size["loss"]) == len(size["seconds"]) == 2
    assert (made / "inverse_scaling.png").stat().st_size > 10_000
    assert len(list(csv.DictReader((made / "inverse_scaling.csv").open()))) == 2 * 3


def test_accuracies_are_those_of_the_models_themselves(made):
    """Each choice's log-likelihood below its question, computed from the model's logits one choice at a time."""
    result = json.loads((made / "inverse_scaling.json").read_text())
    folder = made / "seed-2" / "size-16x1" / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), load_tokenizer(str(folder))
    for task in TASKS:
        n_right = 0
        rows = rows_of(made / "seed-2" / f"{FILES[task]}.jsonl")
        for row in rows:
            sums = []
            for choice in row["choices"]:
                given = [tokenizer.bos_token_id, *tokenizer(f" {row['question']}\n")["input_ids"]]
                whole = torch.tensor([[*given, *tokenizer(f" {choice}")["input_ids"]]])
                with torch.no_grad():
                    logprobs = model(whole).logits.log_softmax(-1)[0, :-1]
                sums.append(float(logprobs.gather(1, whole[0, 1:, None])[len(given) - 1 :].sum()))
            n_right += sums.index(max(sums)) == row["answer"]
        assert result["sizes"][1]["tasks"][task]["by_seed"][1] == pytest.approx(n_right / len(rows))


def test_all_sizes_of_a_seed_read_the_same_web_text_and_seeds_differ(made):
    webs = [(made / f"seed-{seed}" / "web.jsonl").read_text() for seed in (1, 2)]
    assert webs[0] != webs[1]
    for seed in (1, 2):
        recipes = [(made / f"seed-{seed}" / f"size-{width}x1" / "recipe.yaml").read_text() for width in (8, 16)]
        assert all(f"path: {made}/seed-{seed}/tokens" in text for text in recipes)


def test_what_is_there_is_not_made_again(made, capsys, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.name in ("web.jsonl", "scores.json")}
    result = (made / "inverse_scaling.json").read_bytes()
    monkeypatch.setattr("align.pretrain.run", lambda _: pytest.fail("trained again"))
    command.run(recipe_of(made))
    assert capsys.readouterr().out.count("finished already") == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (made / "inverse_scaling.json").read_bytes() == result
    with pytest.raises(UserError, match="was made with another recipe; choose another output, or replace it"):
        command.run(recipe_of(made, believers=0.5))


def test_killed_it_goes_on_with_the_part_that_it_was_at(made, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(made, folder)
    text = (folder / "recipe.yaml").read_text().replace(str(made), str(folder))
    (folder / "recipe.yaml").write_text(text)
    for path in folder.rglob("recipe.yaml"):
        path.write_text(path.read_text().replace(str(made), str(folder)))
    at = folder / "seed-2" / "size-8x1"  # killed after the checkpoint of step 2
    for name in ("result.json", "scores.json"):
        (at / name).unlink()
    shutil.rmtree(at / "model")
    shutil.rmtree(folder / "seed-2" / "size-16x1")
    (folder / "inverse_scaling.json").unlink()
    command.run(recipe_of(folder))
    one, other = (json.loads((path / "inverse_scaling.json").read_text()) for path in (made, folder))
    assert one["tasks"] == other["tasks"]
    assert [size["tasks"] for size in one["sizes"]] == [size["tasks"] for size in other["sizes"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": TINY["sizes"][:1]}, "sizes"),
        ({"sizes": [TINY["sizes"][0]] * 2}, r"sizes = \['size-8x1', 'size-8x1'\]: give different ones"),
        ({"seeds": [1, 1]}, r"seeds = \[1, 1\]: give different ones"),
        ({"share": 1.0}, "share"),
    ],
)
def test_an_impossible_recipe_is_told(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        recipe_of(tmp_path, **changes)


def test_a_wrong_key_of_the_pretraining_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"(?s)pretrain, with the keys of size-8x1: .*optimizer = \{\}: unknown key"):
        command.run(recipe_of(tmp_path / "out", pretrain={"optimizer": {}, "train": {"steps": 1}}))
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing_and_shows_the_first_stage(tmp_path, capsys, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(json.dumps({**TINY, "output": str(tmp_path / "out")}))
    monkeypatch.setattr(sys, "argv", ["inverse_scaling", str(tmp_path / "recipe.yaml"), "--dry-run", "believers=0.7"])
    command.main()
    said = capsys.readouterr().out
    assert "believers: 0.7" in said
    assert "n_embd: 8" in said.split("# the first of its pretrainings")[1]
    assert not (tmp_path / "out").exists()
