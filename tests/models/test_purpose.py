"""A model that scores is not taken for one that speaks, nor a critic for a reward, also where no weight is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import recipe_of, run
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForSequenceClassification

from align import dpo, generate, ppo, rm, sections, sft
from align.config import build
from align.errors import UserError
from align.judges.build import build_judge
from align.judges.settings import Judge
from align.models.load import load_causal_lm, load_config
from align.models.purpose import HEAD_FILE, head_role
from align.models.scalar import load_scalar_model, score_all


@pytest.fixture(scope="module")
def folders(world, tokenizer, tmp_path_factory) -> dict[str, str]:
    """A finished run's critic, and a classifier of somebody else, of which no head of ours tells."""
    made = tmp_path_factory.mktemp("folders")
    critic = run(ppo, world, made / "ppo", train__steps=1) / "critic"
    shape: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 1}
    config = LlamaConfig(**shape, vocab_size=len(tokenizer), num_hidden_layers=1, tie_word_embeddings=True)
    LlamaForSequenceClassification(config).save_pretrained(made / "classifier")
    tokenizer.save_pretrained(made / "classifier")
    return {"base": world.base, "reward": world.reward, "value": str(critic), "classifier": str(made / "classifier")}


@pytest.mark.parametrize(
    ("name", "is_a"),
    [
        ("reward", rf"a reward model \({HEAD_FILE}\)"),
        ("value", rf"a value model, PPO's critic \({HEAD_FILE}\)"),
        ("classifier", r"a classifier \(LlamaForSequenceClassification in config.json\)"),
    ],
)
def test_what_scores_is_no_language_model(folders, name, is_a):
    told = rf"model\.path = '{folders[name]}': this is {is_a}, not a language model; give a language model"
    with pytest.raises(UserError, match=told):
        load_causal_lm(sections.Model(path=folders[name]))


def test_an_adapter_of_a_classifier_is_no_language_model(world, tmp_path):
    settings = {"task_type": "SEQ_CLS", "base_model_name_or_path": world.base}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="an adapter of a classifier"):
        load_config(sections.Model(path=str(tmp_path)), to="generate")
    with pytest.raises(UserError, match="merge it into its base"):
        load_config(sections.Model(path=str(tmp_path)), to="reward")


def test_the_stages_refuse_before_they_write(world, folders, tmp_path):
    for stage in (sft, dpo, ppo):
        with pytest.raises(UserError, match=r"model\.path = .* not a language model"):
            run(stage, world, tmp_path / "run", model__path=folders["reward"])
    keys = {"model": {"path": folders["value"]}, "data": {"path": world.prompts, "max_tokens": 48}}
    with pytest.raises(UserError, match=r"model\.path = .* not a language model"):
        generate.run(build(generate.Recipe, keys | {"output": str(tmp_path / "answers.jsonl")}, "recipe"))
    with pytest.raises(UserError, match=r"reward\.path = .* a value model, PPO's critic .* not a reward model"):
        run(ppo, world, tmp_path / "run", reward__path=folders["value"])
    with pytest.raises(UserError, match=r"judges\.rm\.reward_model = .* a value model, PPO's critic"):
        build_judge("rm", Judge(reward_model=folders["value"]))
    with pytest.raises(UserError, match=rf"no {HEAD_FILE} there, so this is not a reward model"):
        run(ppo, world, tmp_path / "run", reward__path=world.base)
    with pytest.raises(UserError, match=rf"no {HEAD_FILE} there, so this is not a reward model"):
        run(ppo, world, tmp_path / "run", ppo__critic=world.gpt2)
    assert not list(tmp_path.iterdir())


def test_a_critic_may_go_on_from_a_critic(world, folders, tmp_path):
    run(ppo, world, tmp_path / "run", train__steps=1, ppo__critic=folders["value"])
    assert head_role(tmp_path / "run" / "critic") == "value"


def test_a_head_of_before_heads_said_what_they_are_is_known_by_its_place(folders, world, tmp_path):
    for folder, role in (("critic", "value"), ("model", "reward")):
        (tmp_path / folder).mkdir()
        save_file(load_file(Path(folders["value"]) / HEAD_FILE), tmp_path / folder / HEAD_FILE)
        assert head_role(tmp_path / folder) == "reward"  # in no run's folder
        (tmp_path / "recipe.yaml").touch()
        assert head_role(tmp_path / folder) == role
        (tmp_path / "recipe.yaml").unlink()
    assert head_role(world.base) is None


@pytest.mark.parametrize("name", ["reward"])
def test_a_reward_model_is_trained_further_with_its_head(name, world, folders, tmp_path):
    """A step that changes nothing leaves its scores as they were."""
    still = {"model__path": folders[name], "optim__learning_rate": 1e-9, "train__steps": 1, "normalize": "none"}
    folder = run(rm, world, tmp_path / "run", **still)
    before, after = (
        score_all(load_scalar_model(sections.Model(path=path)), [[5, 6, 7], [8, 9]], 64, "cpu")
        for path in (folders[name], str(folder / "model"))
    )
    assert after == pytest.approx(before, abs=1e-5)


def test_a_reward_model_is_trained_further_as_what_it_is(world, folders, tmp_path):
    with pytest.raises(UserError, match=r"heads = 3: the reward model at model\.path = .* has 1; set heads=1"):
        rm.run(recipe_of(rm, world, tmp_path / "run", model__path=world.reward, heads=3), dry_run=True)
    with pytest.raises(UserError, match=r"model\.path = .* a value model, PPO's critic"):
        rm.run(recipe_of(rm, world, tmp_path / "run", model__path=folders["value"]), dry_run=True)
