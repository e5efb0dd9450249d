"""Models side by side: what best-of-n chooses and costs, and who is compared with whom."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lives
import pytest
import torch
from helpers import nested
from tiny import tiny_reward_model

from align import evaluate
from align.config import build, to_yaml
from align.errors import UserError
from align.evals.cache import Cache
from align.generation.text_model import TextModel
from align.judges import reward_accuracy
from align.stats.best_of_n import kl_bound
from align.text.load import load


def recipe_of(world: Any, output: Path, models: dict[str, dict[str, Any]], **changes: Any) -> evaluate.Recipe:
    keys = {"models": {name: {"path": world.base, **keys} for name, keys in models.items()}}
    keys |= {"data.path": world.prompts, "data.max_tokens": 48, "sampling.max_tokens": 8, "reward": world.reward}
    keys |= {"judge": "helpers:judged", "output": str(output)}
    return build(evaluate.Recipe, nested(keys | {k.replace("__", "."): v for k, v in changes.items()}), "recipe")


def report_of(world: Any, output: Path, models: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    evaluate.run(recipe_of(world, output, models, **changes))
    return json.loads((output / "report.json").read_text())


def test_ppo_dpo_and_best_of_n_stand_in_one_report(world, tmp_path, capsys):
    models = {
        "base": {"asked": "plain"},
        "sft": {},
        "ppo": {"path": world.gpt2},
        "dpo": {},
        "best_of_4": {"best_of": 4},
    }
    report = report_of(world, tmp_path, models)
    assert list(report["models"]) == ["base", "sft", "ppo", "dpo", "best_of_4"]
    tuned = {"ppo_over_sft", "dpo_over_sft", "best_of_4_over_sft"}
    between = {"dpo_over_ppo", "best_of_4_over_ppo", "best_of_4_over_dpo"}
    assert report["win_rates"].keys() == {"sft_over_base"} | tuned | between
    best, sft = report["models"]["best_of_4"], report["models"]["sft"]
    assert best["best_of"] == 4
    assert best["kl_to_sft"] == pytest.approx(kl_bound(4), abs=1e-4)  # the model that is sampled is the reference
    assert sft["kl_to_sft"] == pytest.approx(0, abs=1e-6)
    assert "best_of" not in sft
    assert best["reward"] > sft["reward"]
    page = (tmp_path / "report.html").read_text()
    assert "≤ 0.64" in page
    assert "best of 4" in page
    assert "for best of n an upper bound" in page
    rows = [json.loads(line) for line in (tmp_path / "side_by_side.jsonl").read_text().splitlines()]
    assert {*rows[0]["answers"]} == set(models)
    assert "best of 4" in capsys.readouterr().out


def contest_of(recipe: evaluate.Recipe) -> tuple[Any, Any]:
    return evaluate.begin(recipe, load(recipe.data, "prompts", 1).train, Cache(Path(recipe.output) / "cache"))


def test_the_best_by_the_reward_model_is_kept(world, tmp_path):
    recipe = recipe_of(world, tmp_path, {"sft": {}, "best": {"best_of": 6}})
    markers, contest = contest_of(recipe)
    best = [reply for portion in contest.collected()["best"].portions() for reply in portion]
    asked = [messages for messages in contest.prompts for _ in range(6)]
    every = TextModel(recipe.models["sft"], 48).answer(asked, recipe.sampling.how(), (1, 0))
    scores = markers.reward.scores(asked, [reply.text for reply in every])
    for index, found in enumerate(best):
        mine = range(6 * index, 6 * index + 6)
        assert found == every[max(mine, key=scores.__getitem__)]
    assert len({reply.text for reply in every}) > len(best)  # there was something to choose from


def test_the_bound_adds_what_the_sampled_model_is_from_the_reference(world, tmp_path):
    models = {"sft": {}, "best": {"path": world.gpt2, "best_of": 2}, "other": {"path": world.gpt2}}
    found = report_of(world, tmp_path, models)["models"]
    assert found["best"]["kl_to_sft"] > kl_bound(2) + 1.0
    assert found["other"]["kl_to_sft"] > 1.0


def test_best_of_n_without_a_judge_wins_by_the_reward(world, tmp_path):
    report = report_of(world, tmp_path, {"sft": {}, "best_of_8": {"best_of": 8}}, judge=None)
    assert report["win_rates"]["best_of_8_over_sft"]["mean"] > 0.7


def test_models_without_sft_are_compared_one_after_the_other(world, tmp_path):
    report = report_of(world, tmp_path, {"a": {}, "b": {"path": world.gpt2}, "c": {}}, reference="a")
    assert report["win_rates"].keys() == {"b_over_a", "c_over_b"}


@pytest.mark.parametrize(
    ("models", "changes", "told"),
    [
        (
            {"sft": {}, "best": {"best_of": 4}},
            {"reward": None},
            r"models\.best\.best_of: give reward, the reward model",
        ),
        ({"sft": {"best_of": 4}}, {}, r"models\.sft\.best_of: KL is measured to this model; remove best_of"),
        ({"sft": {}, "best": {"best_of": 1}}, {}, r"models\.best\.best_of = 1: must be greater than 1"),
    ],
)
def test_what_cannot_work_is_told(world, tmp_path, models, changes, told):
    with pytest.raises(UserError, match=told):
        recipe_of(world, tmp_path, models, **changes)


def examined(recipe: evaluate.Recipe, cache: Path) -> dict[str, Any]:
    data = recipe.data.model_copy(update={"path": recipe.rankings})
    return reward_accuracy.measure_accuracy(recipe.reward, data, None, 1, Cache(cache))


def test_the_reward_model_is_examined_on_the_device_that_there_is(world, tmp_path, monkeypatch):
    """A device without data stands for a GPU: what is computed on it cannot come from the CPU."""
    devices = []

    def scored(model: Any, answers: list[list[int]], max_tokens: int, device: Any) -> list[list[float]]:
        devices.append((str(device), {p.device.type for p in model.parameters()}))
        return [[float(len(answer))] for answer in answers]

    monkeypatch.setattr("align.models.scalar.score_members", scored)
    monkeypatch.setattr(
        "align.train.machine.accelerator", lambda precision: SimpleNamespace(device=torch.device("meta"))
    )
    recipe = recipe_of(world, tmp_path, {"sft": {}}, rankings=world.rankings)
    block = examined(recipe, tmp_path / "cache")
    assert devices == [("meta", {"meta"})]
    assert 0 <= block["accuracy"]["mean"] <= 1
    assert examined(recipe, tmp_path / "cache") == block
    assert len(devices) == 1  # the second time the scores are read


def test_a_reward_model_with_too_few_positions_for_the_rankings_is_named(world, tokenizer, tmp_path):
    tiny_reward_model(tokenizer, n_positions=8).save(tmp_path / "narrow")
    tokenizer.save_pretrained(tmp_path / "narrow")
    changes = {"reward": str(tmp_path / "narrow"), "rankings": world.rankings}
    with pytest.raises(UserError, match=r"narrow: a prompt and its answer have \d+ of its tokens; it has 8 positions"):
        examined(recipe_of(world, tmp_path, {"sft": {}}, **changes), tmp_path / "cache")


# -- what the report says ---------------------------------------------------------------------------------------------


def verdict_of(report: dict[str, Any]) -> str:
    from align.report.verdict import verdict

    return verdict(report)


def test_a_model_is_no_better_than_itself(world, tmp_path):
    report = report_of(world, tmp_path, {"sft": {}, "ppo": {}})
    assert report["differences"]["ppo_over_sft"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert verdict_of(report).startswith("Between PPO and SFT no difference that these prompts can show")
    assert report["judges"]["gold"]["pairs"]["ppo_over_sft"]["tie"]["mean"] == 1


@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_nor_is_it_with_other_answers(world, tmp_path, seed):
    report = report_of(world, tmp_path, {"sft": {}, "ppo": {"seed": seed}})
    assert report["differences"]["ppo_over_sft"]["mean"] != 0
    assert verdict_of(report).startswith("Between PPO and SFT no difference")


def test_the_better_model_is_named_and_the_worse_one(world, tmp_path):
    """`helpers:judged` likes short answers, so who is shorter in side_by_side.jsonl is the better one."""
    report = report_of(world, tmp_path, {"sft": {}, "ppo": {"path": world.gpt2}})
    rows = [json.loads(line)["answers"] for line in (tmp_path / "side_by_side.jsonl").read_text().splitlines()]
    longer = sum(len(row["ppo"]["text"]) - len(row["sft"]["text"]) for row in rows)
    lower = report["differences"]["ppo_over_sft"]
    sign = (lower["low"] > 0) - (lower["high"] < 0)
    told = {1: "PPO is better than SFT", -1: "PPO is worse than SFT", 0: "Between PPO and SFT no difference"}
    assert verdict_of(report).startswith(told[sign])
    assert sign == (-1 if longer > 0 else 1)


def test_without_a_judge_nobody_is_called_better(world, tmp_path):
    report = report_of(world, tmp_path, {"sft": {}, "best_of_8": {"best_of": 8}}, judge=None)
    assert verdict_of(report).startswith("best of 8 scores higher than SFT by the reward model: reward ")


def test_judges_and_tasks_stand_in_the_report(world, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "red blue cat"}\n{"text": "sun moon ."}\n')
    (tmp_path / "choices.jsonl").write_text(
        "".join(
            json.dumps({"question": f"say {word}", "choices": [word, "salt"], "answer": 0}) + "\n"
            for word in ("red", "blue", "cat", "dog")
        )
    )
    changes = {
        "tasks__texts": {"kind": "perplexity", "path": str(tmp_path / "texts.jsonl")},
        "tasks__say": {
            "kind": "choice",
            "path": str(tmp_path / "choices.jsonl"),
            "template": "data/prompts/lines.yaml",
            "shots": [0, 1],
            "limit": 2,
        },
        "judges__short": {"function": "helpers:judged"},
        "judges__nobody": {"function": "helpers:judged_never"},
    }
    report = report_of(world, tmp_path, {"base": {"asked": "plain"}, "sft": {"path": world.gpt2}}, **changes)
    assert set(report["judges"]) == {"gold", "reward", "short", "nobody"}
    assert report["judges"]["gold"]["pairs"] == report["judges"]["short"]["pairs"]
    agreed = {tuple(one["judges"]): one for one in report["judges_agree"]}
    assert agreed["gold", "short"]["same"]["mean"] == 1
    n = report["n_prompts"]
    (problem,) = report["problems"]
    assert (problem["where"], problem["n"]) == ("judges.nobody", 2 * n)
    assert "raised RuntimeError: no" in problem["what"]
    choices = report["tasks"]["say"]["models"]
    assert [one["shots"] for one in choices["base"]["rounds"]] == [0, 1]
    assert choices["sft"]["came_from"] == "base"
    assert choices["sft"]["change"][0]["n"] == 2
    assert report["tasks"]["texts"]["models"]["sft"]["change"][0]["n"] == 2
    page = (tmp_path / "report.html").read_text()
    for told in ("What could not be measured", "short: a function", "bits per byte", "say: 2 questions", "ECE"):
        assert told in page


def test_tasks_alone_need_no_prompts(world, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "red blue cat"}\n')
    tasks = {"texts": {"kind": "perplexity", "path": str(tmp_path / "texts.jsonl")}}
    keys = {"models": {"sft": {"path": world.base}}, "tasks": tasks, "output": str(tmp_path / "out")}
    evaluate.run(build(evaluate.Recipe, keys, "recipe"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["tasks"]["texts"]["models"]["sft"]["rounds"][0]["n"] == 1
    with pytest.raises(UserError, match=r"give data \(prompts to answer\) or tasks"):
        build(evaluate.Recipe, keys | {"tasks": {}}, "recipe")


def test_the_prompts_that_were_held_out_can_be_asked(world, tmp_path):
    of = {"data__validation": 0.4}
    held_out = evaluate.read_prompts(recipe_of(world, tmp_path, {"sft": {}}, data__part="validation", **of))
    others = evaluate.read_prompts(recipe_of(world, tmp_path, {"sft": {}}, **of))
    assert held_out
    assert others
    assert not {prompt.messages for prompt in held_out} & {prompt.messages for prompt in others}
    with pytest.raises(UserError, match="part: validation needs a validation above 0"):
        recipe_of(world, tmp_path, {"sft": {}}, data__part="validation")


def test_a_model_that_is_not_there_is_named_by_its_key(world, tmp_path):
    with pytest.raises(UserError, match=r"models\.ppo\.path = 'nowhere'"):
        evaluate.run(recipe_of(world, tmp_path, {"sft": {}, "ppo": {"path": "nowhere"}}))


def test_the_second_evaluation_asks_nobody(world, tmp_path, monkeypatch):
    models = {"base": {"asked": "plain"}, "sft": {}, "best": {"best_of": 2}}
    first = report_of(world, tmp_path, models)
    for loads in ("align.generation.text_model.load_causal_lm", "align.models.scalar.load_scalar_model"):
        monkeypatch.setattr(loads, lambda *_, **__: pytest.fail("a model was loaded"))
    second = report_of(world, tmp_path, models)
    for report in (first, second):
        del report["stages"]
    assert first == second


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on(world, tmp_path):
    """Killed by SIGKILL as soon as so many portions are kept; what was kept is not computed again."""
    (tmp_path / "texts.jsonl").write_text('{"text": "red blue cat"}\n{"text": "sun moon ."}\n')
    changes = {"tasks": {"texts": {"kind": "perplexity", "path": str(tmp_path / "texts.jsonl")}}}
    models = {"base": {"asked": "plain"}, "sft": {}, "ppo": {"path": world.gpt2}}
    whole = report_of(world, tmp_path / "whole", models, **changes)
    out, recipe = tmp_path / "killed", tmp_path / "evaluate.yaml"
    recipe.write_text(to_yaml(recipe_of(world, out, models, **changes)))

    def kept() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.rglob("cache/*/*.jsonl")}

    lives.warm_up()
    killed_at: list[int] = []
    for wanted in (1, 4, 7):
        child = lives.start(lives.evaluate, str(recipe), str(tmp_path / "log"))
        while child.is_alive() and len(kept()) < wanted:
            time.sleep(0.001)
        child.kill()
        child.join()
        killed_at.append(len(kept()))
    assert killed_at[0] >= 1
    assert not (out / "report.json").exists()
    before = kept()
    last = lives.start(lives.evaluate, str(recipe), str(tmp_path / "log"))
    last.join()
    assert last.exitcode == 0, (tmp_path / "log").read_text()
    assert before.items() <= kept().items()
    report = json.loads((out / "report.json").read_text())
    assert (out / "side_by_side.jsonl").read_text() == (tmp_path / "whole" / "side_by_side.jsonl").read_text()
    for one in (whole, report):
        for key in ("stages", "recipe", "commands"):
            del one[key]
    assert report == whole
