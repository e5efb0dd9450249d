"""What a reward model's scores are brought to: demonstrations, or the policy's samples."""

import pytest
import torch
from helpers import recipe_of
from tiny import tiny_gpt, tiny_reward_model

from align import rm
from align.errors import UserError
from align.models.scalar import ScalarModel, score_members
from align.rewards.normalize import demonstrated, normalize, sampled
from align.text.load import load
from align.train.machine import accelerator as make_accelerator

SAMPLES = {"normalize": "samples", "samples__n": 12, "samples__max_tokens": 6}


def of_samples(world, tmp_path, tokenizer, **changes):
    recipe = recipe_of(rm, world, tmp_path / "run", **{**SAMPLES, **changes})
    return recipe, rm.encode(recipe, tokenizer, load(recipe.data, "rankings", recipe.seed).train)


@pytest.mark.parametrize("heads", [1, 2])
def test_on_samples_every_member_has_mean_0_and_variance_1(world, tmp_path, tokenizer, heads):
    recipe, rows = of_samples(world, tmp_path, tokenizer)
    model = ScalarModel(tiny_gpt(tokenizer, seed=3).transformer, heads).eval()
    figures = normalize(recipe, model, tokenizer, rows, make_accelerator("fp32"))
    scores = torch.tensor(score_members(model, sampled(recipe, tokenizer, rows), 8192, "cpu"))
    torch.testing.assert_close(scores.mean(0), torch.zeros(heads), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.std(0, correction=0), torch.ones(heads), atol=1e-5, rtol=0)
    assert figures == {
        "shift": pytest.approx(float(model.shift.mean())),
        "scale": pytest.approx(float(model.scale.mean())),
    }


def test_samples_answer_prompts_of_the_rankings_and_end_in_eos(world, tmp_path, tokenizer):
    recipe, rows = of_samples(world, tmp_path, tokenizer)
    found = sampled(recipe, tokenizer, rows)
    assert len(found) == 12
    prompts = [row.answers[0][: row.n_prompt] for row in rows]
    assert all(any(answer[: len(prompt)] == prompt for prompt in prompts) for answer in found)
    assert all(answer[-1] == tokenizer.eos_token_id for answer in found)
    assert sampled(recipe, tokenizer, rows) == found  # a function of the seed
    assert sampled(recipe.model_copy(update={"seed": 2}), tokenizer, rows) != found


def test_samples_that_no_prompt_has_room_for_are_told(world, tmp_path, tokenizer):
    recipe, rows = of_samples(world, tmp_path, tokenizer, samples__max_tokens=47)
    with pytest.raises(
        UserError, match=r"samples.max_tokens = 47: no prompt leaves that much room in data.max_tokens = 48"
    ):
        sampled(recipe, tokenizer, rows)


def test_without_demonstrations_the_preferred_answers_stand_for_them(world, tmp_path, tokenizer):
    recipe = recipe_of(rm, world, tmp_path / "run")
    rows = rm.encode(recipe, tokenizer, load(recipe.data, "rankings", recipe.seed).train)
    assert demonstrated(recipe, tokenizer, rows) == [row.answers[row.ranks.index(1)] for row in rows]


def test_none_leaves_the_scores_alone(world, tmp_path, tokenizer):
    recipe = recipe_of(rm, world, tmp_path / "run", normalize="none")
    model = tiny_reward_model(tokenizer)
    assert normalize(recipe, model, tokenizer, [], make_accelerator("fp32")) == {}
    assert float(model.shift) == 0.25
