"""Recipes: every mistake is told at once, nothing that was written is ignored, and help costs nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from align import ab, evaluate, generate, ppo, prepare, pretrain, rm, score, sft
from align.config import (
    DryRun,
    Section,
    build,
    help_text,
    keys,
    memory_bytes,
    parse_command,
    parse_training,
    read_yaml,
    to_yaml,
)
from align.errors import UserError

STAGES = {
    "prepare": prepare,
    "pretrain": pretrain,
    "sft": sft,
    "rm": rm,
    "ppo": ppo,
    "generate": generate,
    "score": score,
    "ab": ab,
}
MINIMAL = {
    "prepare": "{data: {path: d}, output: o}",
    "pretrain": "{data: {path: d}, output: o, train: {steps: 1}}",
    "sft": "{model: {path: m}, data: {path: d}, output: o, train: {steps: 1}}",
    "rm": "{model: {path: m}, data: {path: d}, output: o, train: {steps: 1}}",
    "ppo": "{model: {path: m}, data: {path: d}, reward: {path: r}, output: o, train: {steps: 1}}",
    "generate": "{model: {path: m}, data: {path: d}, output: o}",
    "score": "{model: {path: m}, data: {path: d}, output: o}",
    "ab": "{model: {path: m}, task: {kind: choice, path: p, template: a}, against: b, output: o}",
}


class Oven(Section):
    """How it bakes."""

    degrees: float = Field(180.0, gt=0)
    """How hot."""
    minutes: int | None = None


class Cake(Section):
    """What is baked."""

    flour: int = Field(gt=0)
    oven: Oven = Oven(degrees=200)
    name: str = "plain"


@pytest.fixture
def recipe_file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def refusal(text: str, recipe_class: type[Section] = Cake) -> str:
    with pytest.raises(UserError) as refused:
        build(recipe_class, yaml.safe_load(text), "r.yaml")
    return str(refused.value)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)


def parse(stage: str, path: str, *words: str) -> Section:
    return parse_command(STAGES[stage].Recipe, stage, [path, *words])[0]


def test_every_mistake_is_told_at_once_with_its_key_and_value():
    told = refusal("{flour: -1, oven: {degrees: hot, minute: 5}, nam: x}").splitlines()
    assert told[0] == "r.yaml: 4 problems in this recipe"
    assert sorted(line.strip() for line in told[1:]) == [
        "flour = -1: must be greater than 0",
        "nam = 'x': unknown key; did you mean name?",
        "oven.degrees = 'hot': must be a valid number, unable to parse string as a number",
        "oven.minute = 5: unknown key; did you mean oven.minutes?",
    ]


def test_a_required_key_is_named():
    assert "flour: required, but missing" in refusal("{}")


def test_a_misspelt_section_is_told_with_the_nearest():
    assert "ovn = {'degrees': 5}: unknown key; did you mean oven?" in refusal("{flour: 1, ovn: {degrees: 5}}")


def test_a_key_in_the_wrong_section_is_told_where_it_belongs():
    assert "degrees = 5: unknown key; did you mean oven.degrees?" in refusal("{flour: 1, degrees: 5}")


def test_a_key_unlike_any_other_points_to_help():
    assert "xyzzy = 1: unknown key; --help lists all keys" in refusal("{flour: 1, xyzzy: 1}")


@pytest.mark.parametrize("text", ["{flour: .nan}", "{flour: 1, oven: {degrees: .inf}}"])
def test_numbers_are_finite(text):
    assert "1 problem in this recipe" in refusal(text)


def test_what_a_choice_allows_is_told():
    told = refusal("{model: {path: m, adapter: lorra}, data: {path: d}, output: o, train: {steps: 1}}", sft.Recipe)
    assert "model.adapter = 'lorra': must be 'none' or 'lora'" in told


def test_a_rule_between_keys_is_told_with_what_was_found():
    head = "{model: {path: m}, data: {path: d}, output: o, "
    both = refusal(head + "train: {steps: 1, epochs: 2}}", sft.Recipe)
    assert "train: give either epochs or steps; found epochs=2.0 and steps=1" in both
    assert "train: give either epochs or steps; found epochs=None and steps=None" in refusal(head + "}", sft.Recipe)
    frozen = refusal("{model: {path: m, quantization: 4bit}, data: {path: d}, output: o, train: {steps: 1}}", rm.Recipe)
    assert "model: quantization: 4bit freezes the base; set adapter: lora" in frozen


@pytest.mark.parametrize(
    ("given_kl", "told"),
    [
        ("{target: 6}", "kl.target and kl.horizon have no effect with controller: fixed"),
        ("{controller: adaptive, target: 6}", "controller: adaptive needs kl.target, kl.horizon"),
        ("{controller: adaptive, target: 6, horizon: 10, coefficient: 0}", "a kl.coefficient above 0"),
    ],
)
def test_a_leash_that_would_not_hold_is_refused(given_kl, told):
    assert told in refusal(MINIMAL["ppo"].replace("output", f"kl: {given_kl}, output"), ppo.Recipe)


@pytest.mark.parametrize("reward", ["{}", "{path: r, function: 'a:b'}"])
def test_ppo_has_exactly_one_source_of_reward(reward):
    told = refusal(MINIMAL["ppo"].replace("{path: r}", reward), ppo.Recipe)
    assert "reward: give either reward.path or reward.function" in told


def test_minibatches_divide_the_batch():
    text = MINIMAL["ppo"].replace("output", "optim: {batch_size: 10}, ppo: {n_minibatches: 3}, output")
    assert "ppo.n_minibatches = 3 does not divide optim.batch_size = 10" in refusal(text, ppo.Recipe)


def test_a_partial_section_keeps_the_other_defaults_of_its_stage():
    cake = build(Cake, {"flour": 1, "oven": {"minutes": 30}}, "r")
    assert (cake.oven.degrees, cake.oven.minutes) == (200, 30)
    given = yaml.safe_load(MINIMAL["ppo"]) | {"optim": {"eps": 1e-6}}
    optim = build(ppo.Recipe, given, "r").optim
    assert (optim.eps, optim.learning_rate, optim.batch_size, optim.schedule) == (1e-6, 3e-6, 512, "linear")


def test_a_key_given_twice_is_refused(recipe_file):
    path = recipe_file("flour: 1\noven:\n  degrees: 1\n  minutes: 2\n  degrees: 3\n")
    with pytest.raises(UserError, match=r"recipe\.yaml: .*'degrees' is given twice \(line 5\)"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "told"), [("[1, 2]", "a mapping of keys to values, found list"), ("a: [", "not valid YAML")]
)
def test_what_is_no_recipe_is_refused(recipe_file, text, told):
    with pytest.raises(UserError, match=told):
        read_yaml(recipe_file(text))


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot read this recipe"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_overrides_win_over_the_file_and_are_read_as_yaml(recipe_file):
    path = recipe_file(MINIMAL["sft"])
    recipe = parse(
        "sft", path, "train.steps=7", "optim.betas=[0.8, 0.9]", "model.adapter=lora", "optim.learning_rate=1e-3"
    )
    assert (recipe.train.steps, recipe.optim.betas, recipe.model.adapter) == (7, (0.8, 0.9), "lora")
    assert recipe.optim.learning_rate == 1e-3
    assert recipe.model.path == "m"


@pytest.mark.parametrize("written", ["0.01", "1.0e-2", "1e-2"])
def test_a_validation_fraction_is_a_number_however_it_is_written(recipe_file, written):
    recipe = parse("sft", recipe_file(MINIMAL["sft"]), f"data.validation={written}")
    assert recipe.data.validation == 0.01


@pytest.mark.parametrize("written", ["-0.1", "1", "1.5"])
def test_a_validation_fraction_is_less_than_one(recipe_file, written):
    with pytest.raises(UserError, match="from 0 to below 1"):
        parse("sft", recipe_file(MINIMAL["sft"]), f"data.validation={written}")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--fast", "unknown option --fast"),
        ("train.steps", "written key.sub=value"),
        ("=3", "written key.sub=value"),
        ("train.steps=[", "not valid YAML"),
        ("train.stepz=3", "train.stepz = 3: unknown key; did you mean train.steps?"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_told(recipe_file, word, told):
    with pytest.raises(UserError) as refused:
        parse("sft", recipe_file(MINIMAL["sft"]), word)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], False),
        (["--dry-run"], DryRun()),
        (["--dry-run", "--device-memory", "24GB"], DryRun(24e9)),
        (["--model-shape=7B", "--dry-run", "--device-memory=1.5GiB"], DryRun(1.5 * 2**30, "7B")),
    ],
)
def test_a_dry_run_may_be_for_another_device_and_another_shape(words, asked, recipe_file):
    assert parse_training(sft.Recipe, "sft", [recipe_file(MINIMAL["sft"]), *words])[1] == asked


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device-memory", "24GB"], "--device-memory needs --dry-run. Add --dry-run"),
        (
            ["--dry-run", "--device-memory", "24"],
            "--device-memory 24: give a number and a unit (GB, GiB, MB, MiB), such as 24GB",
        ),
        (["--dry-run", "--model-shape"], "--model-shape needs a value, such as 7B"),
    ],
)
def test_a_wrong_question_for_memory_is_told(words, told, recipe_file):
    with pytest.raises(UserError) as refused:
        parse_training(sft.Recipe, "sft", [recipe_file(MINIMAL["sft"]), *words])
    assert told in str(refused.value)


def test_commands_that_train_nothing_know_no_shape(recipe_file):
    with pytest.raises(UserError, match="unknown option --model-shape=7B; the options are --dry-run and --help"):
        parse_command(sft.Recipe, "generate", [recipe_file(MINIMAL["sft"]), "--dry-run", "--model-shape=7B"])


def test_memory_has_a_unit():
    assert [memory_bytes(text) for text in ("80GB", "16 GiB", "500MB")] == [80e9, 2.0**34, 500e6]


def test_none_as_help_writes_it_is_null():
    given = {"flour": 1, "oven": {"minutes": "none"}}
    assert build(Cake, given, "recipe").oven.minutes is None
    assert build(ppo.Recipe, yaml.safe_load(MINIMAL["ppo"]) | {"ptx": "none"}, "recipe").ptx is None
    adapter = yaml.safe_load(MINIMAL["ppo"]) | {"model": {"path": "m", "adapter": "none"}}
    assert build(ppo.Recipe, adapter, "recipe").model.adapter == "none"  # a choice that is called so stays


def test_the_recipe_is_the_first_word():
    with pytest.raises(UserError, match="no recipe given"):
        parse_command(sft.Recipe, "sft", ["train.steps=3"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_minimal_recipe_is_enough(stage, recipe_file):
    recipe = parse(stage, recipe_file(MINIMAL[stage]))
    assert recipe.output == "o"


@pytest.mark.parametrize("stage", STAGES)
def test_a_resolved_recipe_is_the_same_recipe(stage, recipe_file):
    recipe = parse(stage, recipe_file(MINIMAL[stage]))
    resolved = to_yaml(recipe)
    assert {key.split(".")[0] for key in yaml.safe_load(resolved)} == set(type(recipe).model_fields)
    assert parse(stage, recipe_file(resolved)) == recipe


PRINTABLE = st.characters(categories=["L", "N", "P", "S", "Zs"])


@settings(max_examples=50)
@given(st.floats(1e-12, 1e6), st.tuples(st.floats(0, 1), st.floats(0, 1)), st.text(PRINTABLE, max_size=20))
def test_any_value_survives_being_resolved(learning_rate, betas, path):
    given = yaml.safe_load(MINIMAL["sft"]) | {"optim": {"learning_rate": learning_rate, "betas": betas}, "output": path}
    recipe = build(sft.Recipe, given, "r")
    assert build(sft.Recipe, yaml.safe_load(to_yaml(recipe)), "r") == recipe


def test_sources_with_weights_survive_being_resolved():
    given = yaml.safe_load(MINIMAL["sft"]) | {"data": {"path": ["a.jsonl", {"path": "b.jsonl", "weight": 0.5}]}}
    recipe = build(sft.Recipe, given, "r")
    assert recipe.data.path[1].weight == 0.5
    assert build(sft.Recipe, yaml.safe_load(to_yaml(recipe)), "r") == recipe


@pytest.mark.parametrize("stage", STAGES)
def test_help_lists_every_key_with_its_meaning(stage):
    told = help_text(STAGES[stage].Recipe, stage)
    lines = [line.split()[0] for line in told.splitlines() if line.startswith("  ") and line[2] != " "]
    assert lines == [key for key, _, _ in keys(STAGES[stage].Recipe)]
    assert "output" in lines
    unexplained = [key for key, field, _ in keys(STAGES[stage].Recipe) if not field.description]
    assert unexplained == []


def test_help_lists_the_keys_of_sections_that_the_user_names():
    class Party(Section):
        """What is eaten."""

        cakes: dict[str, Cake]
        """By guest."""

    told = help_text(Party, "party")
    lines = [line.split()[0] for line in told.splitlines() if line.startswith("  ") and line[2] != " "]
    assert lines == ["cakes", *(f"cakes.NAME.{key}" for key, _, _ in keys(Cake))]
    assert "dict[str, " in told
    judge = next(line for line in help_text(evaluate.Recipe, "evaluate").splitlines() if line.startswith("  judges "))
    assert judge.split(maxsplit=1)[1] == "dict[str, Judge] = {}"  # without the module that it stands in


def test_help_shows_the_defaults_of_the_stage_itself():
    assert "optim.learning_rate" in help_text(ppo.Recipe, "ppo")
    lines = {line.split()[0]: line for line in help_text(ppo.Recipe, "ppo").splitlines() if line.strip()}
    assert lines["optim.learning_rate"].endswith("float = 3e-06")
    assert lines["data.too_long"].endswith("truncate | drop = drop")


@pytest.mark.heavy
@pytest.mark.parametrize("stage", STAGES)
def test_help_answers_at_once_and_without_the_heavy_libraries(stage):
    before = os.times()
    done = command("-X", "importtime", "-m", f"align.{stage}", "--help")
    after = os.times()  # the processor's time, which other work on the machine does not stretch
    took_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert took_s < 1  # it takes a third of a second; torch alone would take longer than this
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m align.{stage} RECIPE.yaml" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in imported
    assert imported.isdisjoint({"torch", "transformers", "datasets", "numpy", "peft", "accelerate"})


@pytest.mark.heavy
def test_a_mistake_ends_the_command_with_status_2_and_no_traceback(recipe_file):
    path = recipe_file("model: {path: m}\ndata: {path: d}\noutput: o\ntrain: {steps: 1, precison: fp32}\n")
    done = command("-m", "align.sft", path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: 1 problem in this recipe")
    assert "train.precison = 'fp32': unknown key; did you mean train.precision?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("o").exists()
