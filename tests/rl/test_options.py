"""What a PPO recipe can choose besides its defaults: each key changes what it says, in real steps on the tiny world."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import metrics, recipe_of, run, weights
from tiny import sentences, tiny_reward_model
from transformers import AutoModelForCausalLM

from align import ppo
from align.errors import UserError
from align.models.adapters import trained_parameters
from align.models.load import load_causal_lm
from align.rl.ptx import packed
from align.rl.sampler import EncodedPrompt
from align.sections import Model
from align.text.batches import rows_of_step
from align.text.tokenizer import load_tokenizer, train_tokenizer

pytestmark = pytest.mark.heavy

GENTLE = {"optim__learning_rate": 0.001, "train__steps": 4}


def figures_of(world: Any, folder: Path, **changes: Any) -> list[dict[str, float]]:
    """Each step's figures of the command's loop, without what a run writes, which takes longer than the steps."""
    recipe = recipe_of(ppo, world, folder, **changes)
    sampler, learner, prompts = ppo.build(recipe)
    found = []
    for step in range(1, recipe.train.steps + 1):
        rows = rows_of_step(step, len(prompts), recipe.optim.batch_size, recipe.seed)
        found.append(learner.step(sampler.collect([prompts[row] for row in rows], step), step))
    return found


def test_a_loop_of_ones_own(world, tmp_path):
    sampler, learner, prompts = ppo.build(recipe_of(ppo, world, tmp_path / "run", **GENTLE))
    for step in (1, 2):
        rollouts = sampler.collect(prompts[:4], step)
        stats = learner.step(rollouts)
    assert stats["lr"] == pytest.approx(0.001 * 0.75)  # linear, step 2 of 4
    assert {"objective/kl", "policy/approxkl_avg", "loss/value_avg", "val/explained_variance"} <= stats.keys()
    assert len(rollouts) == 4


def test_a_loop_of_ones_own_is_the_commands(world, tmp_path):
    logged = metrics(run(ppo, world, tmp_path / "run", **GENTLE))
    figures = figures_of(world, tmp_path / "own", **GENTLE)
    assert len(figures) == 4
    for ours, theirs in zip(figures, logged, strict=True):
        assert {name: theirs[name] for name in ours} == ours


@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_answers_to_a_prompt_can_be_compared_without_a_critic(world, tmp_path, advantage, adapter):
    changes = {"ppo__advantage": advantage, "rollout__answers": 4, "optim__batch_size": 8, "model__adapter": adapter}
    folder = run(ppo, world, tmp_path / "run", **GENTLE | changes | {"optim__learning_rate": 0.001})
    first, *_, last = metrics(folder)
    assert first["objective/kl"] == 0.0 != last["objective/kl"]
    assert last["episode"] == 32
    assert "loss/value_avg" not in last
    assert not (folder / "critic").exists()


@pytest.mark.parametrize(
    ("estimator", "placement"),
    [("k2", "reward"), ("k3", "loss"), ("full", "loss")]
    + [pytest.param(*pair, marks=pytest.mark.slow) for pair in (("k2", "loss"), ("k3", "reward"), ("full", "reward"))],
)
def test_every_estimator_holds_the_policy_back_wherever_it_is_charged(world, tmp_path, estimator, placement):
    """A hundred times the coefficient leaves the policy nearer to the reference; KL is reported as it was charged."""
    kl = []
    for coefficient in (0.01, 3.0):
        changes = {"kl__estimator": estimator, "kl__placement": placement, "kl__coefficient": coefficient}
        changes |= GENTLE | {"train__steps": 8}
        rows = figures_of(world, tmp_path / str(coefficient), **changes)
        assert all(row["objective/kl"] >= 0 for row in rows)  # which k1 does not promise
        assert ("loss/kl_avg" in rows[0]) == (placement == "loss")
        kl.append(sum(row["objective/kl"] for row in rows[6:]))  # once the penalty has had time to act
    assert kl[1] < kl[0]


def test_the_critic_can_be_a_head_on_the_policys_trunk(world, tmp_path):
    recipe = recipe_of(ppo, world, tmp_path / "run", **GENTLE, ppo__critic="trunk")
    sampler, learner, prompts = ppo.build(recipe)
    critic = learner.roles.critic
    assert list(trained_parameters(critic)) == ["head.weight", "head.bias"]
    assert critic.trunk is learner.roles.policy.model.transformer
    rollouts = sampler.collect(prompts[:4], 1)
    assert rollouts.values.abs().max() == 0.0
    learner.step(rollouts)
    assert sampler.collect(prompts[:4], 2).values.abs().max() > 0.0
    ppo.run(recipe)
    assert (tmp_path / "run" / "critic" / "score_head.safetensors").is_file()


def test_the_value_loss_reaches_a_shared_trunk_in_proportion(world, tmp_path):
    """The policy's loss made nothing, what moves the trunk is the critic's gradient."""
    moved = []
    for weight in (1e-12, 1.0):
        changes = {"ppo__value_coefficient": weight, "ppo__n_epochs": 1, "ppo__n_minibatches": 1, "optim__eps": 1.0}
        recipe = recipe_of(ppo, world, tmp_path / str(weight), **GENTLE, **changes, ppo__critic="trunk")
        sampler, learner, prompts = ppo.build(recipe)
        torch.nn.init.ones_(learner.roles.critic.head.weight)  # through zeros nothing would reach the trunk
        rollouts = sampler.collect(prompts[:4], 1)
        rollouts.scores = torch.zeros_like(rollouts.scores)
        before = {name: p.detach().clone() for name, p in trained_parameters(learner.roles.policy).items()}
        learner.targets = lambda rollouts, rows: (0 * rollouts.values[rows], 1 + rollouts.values[rows])
        learner.step(rollouts)
        after = trained_parameters(learner.roles.policy)
        moved.append(max(float((after[name] - before[name]).abs().max()) for name in before))
    assert moved[0] < 1e-9 < 1e-5 < moved[1]


def test_while_the_critic_warms_up_the_policy_stays(world, tmp_path):
    changes = {"ppo__critic_warmup_steps": 2, "train__steps": 2}
    folder = run(ppo, world, tmp_path / "run", **GENTLE | changes)
    policy, base = (load_causal_lm(Model(path=str(path))) for path in (folder / "model", world.base))
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), base.parameters(), strict=True))
    rows = metrics(folder)
    assert all("loss/value_avg" in row and "loss/policy_avg" not in row for row in rows)


def test_an_average_of_the_policy_is_what_is_saved(world, tmp_path):
    plain = weights(run(ppo, world, tmp_path / "plain", **GENTLE))
    slow = weights(run(ppo, world, tmp_path / "slow", **GENTLE, ppo__ema=0.999))
    name = "model/model.safetensors:transformer.h.0.mlp.c_fc.weight"
    there = load_causal_lm(Model(path=world.base)).transformer.h[0].mlp.c_fc.weight.t()  # as GPT-2's class keeps it
    assert float((slow[name] - there).norm()) < 0.01 * float((plain[name] - there).norm())
    critic = "critic/model.safetensors:h.0.mlp.c_fc.weight"
    assert torch.equal(slow[critic], plain[critic])


def test_pretraining_text_is_mixed_in(world, tmp_path):
    """With a large gamma the loss on that text falls, which PPO alone does not do."""
    ptx = {"ptx__path": world.documents, "ptx__batch_size": 8}
    gammas = {1e-9: [], 30.0: []}
    for gamma in gammas:
        changes = GENTLE | {"train__steps": 8} | ptx | {"ptx__coefficient": gamma}
        rows = figures_of(world, tmp_path / str(gamma), **changes)
        gammas[gamma] = [row["loss/ptx_avg"] for row in rows]
    assert gammas[30.0][-1] < gammas[1e-9][-1] - 0.1
    assert gammas[30.0][0] == pytest.approx(gammas[1e-9][0], rel=0.2)


def test_demonstrations_can_be_mixed_in(world, tmp_path):
    ptx = {"ptx__path": world.conversations, "ptx__kind": "conversations", "ptx__batch_size": 4}
    assert "loss/ptx_avg" in figures_of(world, tmp_path / "run", **GENTLE, **ptx)[0]


def test_a_pass_ends_early_once_the_policy_has_moved_far(world, tmp_path):
    changes = {"ppo__n_epochs": 5, "ppo__target_kl": 1e-9}
    rows = figures_of(world, tmp_path / "run", **GENTLE, **changes)
    assert {row["val/n_updates"] for row in rows} == {2}  # two mini-batches of the first pass


def test_a_run_ends_when_its_kl_is_used_up(world, tmp_path, capsys):
    folder = run(ppo, world, tmp_path / "run", **GENTLE, kl__budget=1e-6, kl__estimator="full")
    assert len(metrics(folder)) < 4
    assert "KL exceeds kl.budget" in capsys.readouterr().out
    assert (folder / "model" / "model.safetensors").is_file()
    assert (folder / "result.json").is_file()


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_reference_can_follow_the_policy(world, tmp_path, adapter):
    changes = {"kl__reference_every": 1, "model__adapter": adapter}
    rows = figures_of(world, tmp_path / "run", **GENTLE, **changes)
    assert [row["objective/kl"] for row in rows] == [0.0] * 4


def test_held_out_prompts_are_looked_at_and_the_best_weights_kept(world, tmp_path):
    changes = {"data__validation": 0.3, "evaluation__best": "eval/scores", "train__eval_every": 1}
    folder = run(ppo, world, tmp_path / "run", **GENTLE, **changes, evaluation__samples=3)
    rows = metrics(folder)
    assert {"eval/scores", "eval/kl", "eval/response_length", "eval/ended"} <= rows[0].keys()
    best, last = (AutoModelForCausalLM.from_pretrained(folder / name) for name in ("best", "model"))
    heights = [row["eval/scores"] for row in rows]
    same = all(torch.equal(a, b) for a, b in zip(best.parameters(), last.parameters(), strict=True))
    assert same == (max(heights) == heights[-1] and heights.index(max(heights)) == 3)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 3 * 4
    assert samples[0].keys() >= {"step", "prompt", "answer", "scores", "kl"}


def test_a_figure_that_does_not_exist_cannot_be_the_best(world, tmp_path):
    with pytest.raises(UserError, match=r"evaluation\.best = eval/gold: there is no such metric; choose one of eval/"):
        run(ppo, world, tmp_path / "run", **GENTLE, data__validation=0.3, evaluation__best="eval/gold")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kl__placement": "loss"}, "kl.estimator: k1 has a gradient of mean 0"),
        ({"ppo__advantage": "rloo"}, "set rollout.answers to 2 or more"),
        ({"ppo__advantage": "grpo", "rollout__answers": 2, "ppo__critic": "trunk"}, "ppo.critic has no effect"),
        ({"ppo__advantage": "rloo", "rollout__answers": 2, "ppo__gamma": 0.9}, "ppo.gamma has no effect"),
        ({"model__adapter": "lora", "model__lora__dropout": 0.1}, "model.lora.dropout has no effect"),
        ({"rollout__answers": 3}, "rollout.answers = 3 does not divide optim.batch_size = 4"),
        ({"evaluation__best": "eval/scores"}, "set data.validation"),
    ],
)
def test_keys_that_would_have_no_effect_are_refused(world, tmp_path, changes: dict[str, Any], told: str):
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        recipe_of(ppo, world, tmp_path / "run", **changes)


def test_the_kl_on_held_out_prompts_is_at_one_temperature_whatever_they_are_answered_at(world, tmp_path):
    """While only the critic learns, the policy is its reference."""
    changes = {"data__validation": 0.3, "ppo__critic_warmup_steps": 2, "train__steps": 2, "train__eval_every": 1}
    changes |= {"rollout__logprobs": "sampled", "rollout__temperature": 0.5, "evaluation__temperature": 1.0}
    rows = metrics(run(ppo, world, tmp_path / "run", **GENTLE | changes))
    assert [row["eval/kl"] for row in rows] == [pytest.approx(0.0, abs=1e-5)] * 2


def test_no_process_is_without_work(world, tmp_path):
    """Each has an answer in every mini-batch, a held-out prompt and a row of pretraining text."""
    changes: dict[str, Any] = {"optim__batch_size": 12, "rollout__answers": 2, "ppo__n_minibatches": 4}
    recipe = recipe_of(ppo, world, tmp_path / "run", ptx__path=world.documents, ptx__batch_size=3, **changes)
    asked = [EncodedPrompt((), [5])] * 20

    def check(n_processes: int, n_heldout: int = 3) -> None:
        inputs = ppo.Inputs(None, asked, asked[:n_heldout], None)
        ppo.check_work(recipe, inputs, SimpleNamespace(num_processes=n_processes))

    check(3)
    with pytest.raises(UserError, match=r"held-out prompts .* = 2: each of 3 processes needs at least one"):
        check(3, n_heldout=2)
    with pytest.raises(UserError, match=r"optim\.batch_size = 12: each of 4 processes needs at least 4; give 16"):
        check(4, n_heldout=4)
    recipe = recipe_of(ppo, world, tmp_path / "run", ptx__path=world.documents, ptx__batch_size=2, **changes)
    with pytest.raises(UserError, match=r"ptx\.batch_size = 2: each of 3"):
        check(3)


def test_documents_that_are_mixed_in_say_no_special_token(tokenizer):
    text = f"salt{tokenizer.eos_token} and pepper"
    ids = [row.ids[0] for row in packed(iter([text]), tokenizer, 1)]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


def test_there_is_room_for_the_eos_after_a_token_that_answers_are_cut_at(world, tmp_path):
    """A cut answer may be one token longer than a sampled one; the reward model must have a position for it."""
    found = []
    for changes in ({}, {"reward__truncate_token": 5}):
        recipe = recipe_of(ppo, world, tmp_path / "run", **changes)
        longest = max(len(asked.ids) for asked in ppo.read(recipe).prompts)
        recipe = recipe_of(ppo, world, tmp_path / "run", **changes, data__max_tokens=longest + 8)
        found.append(max(len(asked.ids) for asked in ppo.read(recipe).prompts) - longest)
    assert found[0] == 0 > found[1]


def test_positions_are_those_of_models_that_read_the_policys_tokens(world, tmp_path):
    """Of a reward model with a tokenizer of its own nobody knows how many tokens it will read."""
    narrow, other = tmp_path / "narrow", tmp_path / "other"
    for folder, words in ((narrow, load_tokenizer(world.base)), (other, train_tokenizer(sentences(30), 300))):
        tiny_reward_model(words, n_positions=32).save(folder)
        words.save_pretrained(folder)
    with pytest.raises(UserError, match=r"data\.max_tokens = 48: this model has 32 positions \(reward\.path\)"):
        ppo.read(recipe_of(ppo, world, tmp_path / "run", reward__path=str(narrow)))
    ppo.read(recipe_of(ppo, world, tmp_path / "run", reward__path=str(other), ppo__critic=world.base))
    with pytest.raises(UserError, match=r"reward\.path = 'nowhere': there is no such folder"):
        ppo.read(recipe_of(ppo, world, tmp_path / "run", reward__path="nowhere"))


def test_dual_clip_and_entropy_bonus_run(world, tmp_path):
    changes = {"ppo__dual_clip": 3.0, "ppo__entropy_coefficient": 0.01, "ppo__value_clip_range": None}
    rows = figures_of(world, tmp_path / "run", **GENTLE, **changes, ppo__whiten_over="minibatch")
    assert all(row["policy/entropy_avg"] > 0 for row in rows)
    assert {row["val/clipfrac_avg"] for row in rows} == {0.0}
