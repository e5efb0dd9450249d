"""What published PPO implementations hold true, held by ours: each bar through the stage's own functions.

The bars are those that lm-human-preferences and "The N+ Implementation Details of RLHF with PPO" can be checked by.
"""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import recipe_of
from tiny import tiny_gpt, tiny_reward_model
from transformers import AutoModelForCausalLM

from align import ppo, rm, sections
from align.config import build
from align.generation.sampling import Answer
from align.models.language import LanguageModel
from align.models.scalar import load_scalar_model, score_all, score_batch
from align.rewards.normalize import normalize
from align.rl.advantages import gae, whiten
from align.rl.learner import check_ratio, make_kl
from align.rl.rollouts import Rollouts
from align.rl.sampler import EncodedPrompt, logprob_function
from align.text.batches import pad_right
from align.text.load import load
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator as make_accelerator


class Stage:
    """A PPO run taken apart: the recipe, the models, and a batch of answers."""

    def __init__(self, world: Any, tmp_path: Any, **changes: Any) -> None:
        self.recipe = recipe_of(ppo, world, tmp_path / "run", optim__batch_size=16, **changes)
        self.tokenizer = load_tokenizer(self.recipe.model.path)
        self.accelerator = make_accelerator("fp32")
        torch.manual_seed(self.recipe.seed)
        prompts = load(self.recipe.data, "prompts", 1).train[:16]
        self.asked = ppo.encode(self.recipe, self.tokenizer, prompts)
        inputs = ppo.Inputs(self.tokenizer, self.asked, [], None)
        self.sampler, self.learner = ppo.assemble(self.recipe, inputs, self.accelerator)
        self.roles = self.learner.roles

    def replace(self, **roles: Any) -> None:
        """Other models in some of the roles."""
        self.roles = self.roles._replace(**roles)
        self.sampler.roles = self.learner.roles = self.roles

    def collect(self, step: int = 1) -> Rollouts:
        return self.sampler.sample(self.asked, step)

    def score(self, rollouts: Rollouts) -> torch.Tensor:
        return self.sampler.measure(self.asked, rollouts).scores

    def appraise(self, rollouts: Rollouts) -> tuple[Rollouts, dict[str, float]]:
        self.sampler.measure(self.asked, rollouts)
        return rollouts, self.learner._seen(rollouts)

    def targets(self, rollouts: Rollouts) -> tuple[torch.Tensor, torch.Tensor]:
        return self.learner.targets(rollouts, list(range(len(rollouts))))

    def update(self, rollouts: Rollouts) -> dict[str, float]:
        return self.learner.step(rollouts, 2)  # at step 1 it is checked that the policy is what sampled

    def rollouts_of(self, *answers: list[int]) -> Rollouts:
        """As if these had been sampled; an answer that ends in EOS has ended."""
        eos = self.tokenizer.eos_token_id
        self.asked = self.asked[: len(answers)]
        sampled = [Answer(ids, [0.0] * len(ids), ids[-1] == eos) for ids in answers]
        longest = self.recipe.rollout.max_tokens if self.sampler.values_after_end else None
        return Rollouts.of([prompt.ids for prompt in self.asked], sampled, "cpu", longest)


FULL = {"ppo__n_epochs": 1, "ppo__n_minibatches": 1, "optim__learning_rate": 0.003}


VARIANTS = {"whole": {}, "lora": {"model__adapter": "lora"}, "cooler": {"rollout__temperature": 0.7}}


@pytest.fixture(params=VARIANTS)
def stage(request, world, tmp_path) -> Stage:
    return Stage(world, tmp_path, **FULL, **VARIANTS[request.param])


def test_bar_a_the_first_epoch_of_an_update_has_ratio_1_and_clips_nothing(stage):
    experience, _ = stage.appraise(stage.collect())
    figures = stage.update(experience)
    assert figures["val/ratio"] == pytest.approx(1.0, abs=1e-6)
    assert figures["policy/approxkl_avg"] < 1e-12
    assert figures["policy/clipfrac_avg"] == 0.0
    assert abs(figures["loss/policy_avg"]) < 1e-7
    assert figures["val/clipfrac_avg"] == 0.0
    assert figures["policy/grad_norm"] > 0


def test_bar_a_holds_for_every_update_not_just_the_first(stage):
    for step in (1, 2):
        experience, seen = stage.appraise(stage.collect(step))
        figures = stage.update(experience)
    assert abs(seen["objective/kl"]) > 1e-3  # the policy has moved
    assert figures["val/ratio"] == pytest.approx(1.0, abs=1e-6)
    assert figures["policy/approxkl_avg"] < 1e-12
    assert abs(figures["loss/policy_avg"]) < 1e-6


def test_bar_a_ends_with_the_first_optimizer_step(stage):
    experience, _ = stage.appraise(stage.collect())
    stage.update(experience)
    again = stage.update(experience)  # the second epoch over the same answers
    assert again["policy/approxkl_avg"] > 1e-6


def test_bar_b_a_policy_that_is_its_reference_has_kl_0_and_its_reward_is_the_score(stage):
    rollouts = stage.collect()
    experience, seen = stage.appraise(rollouts)
    assert seen["objective/kl"] == 0.0
    assert seen["objective/non_score_reward"] == 0.0
    assert seen["objective/rlhf_reward"] == seen["objective/scores"] != 0.0
    temperature = stage.recipe.rollout.temperature
    again = rollouts.for_each_token(logprob_function(stage.roles.policy, temperature), 8192)
    assert torch.equal(experience.logprobs, again.detach())


def test_bar_b_kl_counts_what_the_policy_has_moved_token_by_token(stage):
    stage.update(stage.appraise(stage.collect())[0])
    rollouts = stage.collect(2)
    experience, seen = stage.appraise(rollouts)
    with torch.no_grad():
        temperature = stage.recipe.rollout.temperature
        reference = rollouts.for_each_token(logprob_function(stage.roles.reference, temperature), 8192)
    by_hand = ((experience.logprobs - reference) * rollouts.mask).sum(1).mean()
    assert seen["objective/kl"] == pytest.approx(float(by_hand), abs=1e-5)
    beta = stage.recipe.kl.coefficient
    assert seen["objective/rlhf_reward"] == pytest.approx(seen["objective/scores"] - beta * float(by_hand), abs=1e-5)


@torch.no_grad()
def test_bar_c_the_reward_model_does_not_see_padding(tokenizer):
    model = tiny_reward_model(tokenizer)
    rows = [torch.randint(5, len(tokenizer), (n,), generator=torch.Generator().manual_seed(n)) for n in (4, 9, 17)]
    rows = [[*row.tolist(), tokenizer.eos_token_id] for row in rows]
    alone = [float(score_batch(model, [row], "cpu")) for row in rows]
    assert score_batch(model, rows, "cpu").tolist() == pytest.approx(alone, abs=1e-5)
    padded = pad_right(rows, fill=tokenizer.pad_token_id)  # whatever stands there
    is_read = torch.arange(padded.shape[1]) == torch.tensor([[len(row) - 1] for row in rows])
    assert model(padded, is_read).tolist() == pytest.approx(alone, abs=1e-5)
    left = [on_the_left(model, row, n_pads=5, pad=tokenizer.pad_token_id) for row in rows]
    assert left == pytest.approx(alone, abs=1e-5)
    assert max(alone) - min(alone) > 0.1


def on_the_left(model: Any, row: list[int], n_pads: int, pad: int) -> float:
    """The score of a row padded on the left, as a sampler lays it out, with mask and positions that say so."""
    ids, mask = torch.tensor([[pad] * n_pads + row]), torch.tensor([[0] * n_pads + [1] * len(row)])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model.trunk(ids, attention_mask=mask, position_ids=positions).last_hidden_state
    return float(model.head(hidden[:, -1])[:, 0] - model.shift)


def test_bar_d_demonstrations_score_0_on_average(world, tmp_path, tokenizer):
    recipe = recipe_of(rm, world, tmp_path / "run", demonstrations=world.conversations)
    model, accelerator = tiny_reward_model(tokenizer), make_accelerator("fp32")
    demonstrations = load(sections.Data(path=world.conversations, validation=0.0), "conversations", 1).train
    texts = [
        tokenizer.apply_chat_template([m._asdict() for m in row.messages], tokenize=False) for row in demonstrations
    ]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    before = score_all(model, ids, 8192, "cpu")
    assert abs(sum(before) / len(before)) > 0.01
    shift = normalize(recipe, model, tokenizer, [], accelerator)["shift"]
    after = score_all(model, ids, 8192, "cpu")
    assert sum(after) / len(after) == pytest.approx(0.0, abs=1e-5)
    assert after == pytest.approx([x - sum(before) / len(before) for x in before], abs=1e-5)
    assert float(model.shift) == pytest.approx(shift)


def test_bar_d_without_demonstrations_the_preferred_answers_score_0(world, tmp_path):
    recipe = recipe_of(rm, world, tmp_path / "run")
    rm.run(recipe)
    model = load_scalar_model(sections.Model(path=str(tmp_path / "run" / "model"))).eval()
    tokenizer = load_tokenizer(str(tmp_path / "run" / "model"))
    ranked = rm.encode(recipe, tokenizer, load(recipe.data, "rankings", recipe.seed).train)
    best = [row.answers[row.ranks.index(1)] for row in ranked]
    scores = score_all(model, best, 8192, "cpu")
    assert sum(scores) / len(scores) == pytest.approx(0.0, abs=1e-5)


def test_bar_e_whitening_without_shift_keeps_the_mean_and_has_variance_1():
    values = torch.randn(8, 5, generator=torch.Generator().manual_seed(1)) * 3 + 2
    mask = torch.arange(5) < torch.tensor([1, 2, 3, 4, 5, 5, 5, 5])[:, None]
    found = whiten(values, mask, shift_mean=False)[mask]
    assert float(found.mean()) == pytest.approx(float(values[mask].mean()), abs=1e-5)
    assert float(found.var(correction=0)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("kl", "factor"), [(12.0, 1.01024), (0.0, 0.98976)])
def test_bar_f_the_leash_follows_its_target(kl, factor):
    settings = {"controller": "adaptive", "coefficient": 0.15, "target": 6.0, "horizon": 10000}
    controller = make_kl(build(ppo.Kl, settings, "kl"))
    controller.update(kl, 512)
    assert controller.coefficient == pytest.approx(0.15 * factor, abs=1e-9)


def test_bar_g_a_head_of_zeros_values_every_state_0(world, tmp_path):
    stage = Stage(world, tmp_path, ppo__critic=world.base, ppo__lam=1.0, ppo__whiten_advantages=False)
    rollouts = stage.collect()
    experience, _ = stage.appraise(rollouts)
    assert experience.values.abs().max() == 0.0
    rewards = torch.zeros(rollouts.mask.shape)
    scores = stage.score(rollouts)
    rewards[torch.arange(16), rollouts.mask.sum(1) - 1] = scores
    to_go = rewards.flip(1).cumsum(1).flip(1) * rollouts.mask
    torch.testing.assert_close(stage.targets(rollouts)[0], to_go)
    torch.testing.assert_close(gae(rewards, torch.zeros_like(rewards), rollouts.mask, 1.0, 1.0)[0], to_go)


@pytest.mark.parametrize(("score_at", "column"), [("eos", 2), ("after_eos", 3)])
def test_bar_h_the_score_lies_at_eos_or_after_it_and_an_answer_without_eos_has_minus_1(
    world, tmp_path, score_at, column
):
    stage = Stage(world, tmp_path, reward__score_at=score_at, ppo__critic=world.base, rollout__max_tokens=5)
    eos = stage.tokenizer.eos_token_id
    rollouts = stage.rollouts_of([9, 8, eos], [9, 8, 7, 6, 5], [9, 8, 7, 6, eos])
    scores = stage.score(rollouts)
    seen = rewards_given(stage, rollouts)
    assert scores[1] == -1.0
    assert scores[0] not in (0.0, -1.0)
    assert seen[0].nonzero()[:, 0].tolist() == [column]
    assert seen[0, column] == scores[0]
    assert seen[1].tolist() == [0.0, 0.0, 0.0, 0.0, -1.0]
    assert seen[2].nonzero()[:, 0].tolist() == [4]
    assert seen[2, 4] == scores[2]


def rewards_given(stage: Stage, rollouts: Rollouts) -> torch.Tensor:
    """The token rewards that the learner gives to GAE."""
    from align.rl import learner

    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "gae", lambda rewards, *rest: given.append(rewards) or gae(rewards, *rest))
        stage.targets(stage.appraise(rollouts)[0])
    return given[0]


@pytest.mark.parametrize("score_at", ["eos", "after_eos"])
def test_bar_h_whitened_rewards_keep_every_score(world, tmp_path, score_at):
    """The mean is kept, so answers that differ in nothing but their score must still differ in their rewards."""
    stage = Stage(world, tmp_path, reward__score_at=score_at, reward__whiten=True, reward__missing_eos=None)
    eos = stage.tokenizer.eos_token_id
    rollouts = stage.rollouts_of([9, eos], [8, eos], [7, 6, 5, 4])
    fixed = SimpleNamespace(score=lambda prompts, texts, ids: [5.0, -5.0, 0.0])
    stage.replace(reward=fixed)
    rewards = rewards_given(stage, rollouts).sum(1)
    assert float(rewards[0]) > float(rewards[2]) > float(rewards[1])


def test_bar_h_no_penalty_keeps_the_score_of_an_answer_without_eos(world, tmp_path):
    stage = Stage(world, tmp_path, reward__missing_eos=None)
    rollouts = stage.rollouts_of([9, 8, 7], [9, 8, stage.tokenizer.eos_token_id])
    scores = stage.score(rollouts)
    expected = score_all(stage.roles.reward.model, rollouts.sequences(), 8192, "cpu")
    assert scores.tolist() == pytest.approx(expected)


def test_bar_h_scores_are_clipped_before_the_penalty(world, tmp_path):
    stage = Stage(world, tmp_path, reward__clip=0.01)
    rollouts = stage.rollouts_of([9, 8, 7], [9, 8, stage.tokenizer.eos_token_id])
    scores = stage.score(rollouts)
    assert scores[0] == -1.0
    assert abs(float(scores[1])) == pytest.approx(0.01)


def test_bar_i_approx_kl_is_half_the_mean_squared_difference(world, tmp_path):
    stage = Stage(world, tmp_path, **FULL)
    rollouts = stage.collect()
    experience, _ = stage.appraise(rollouts)
    old = experience.logprobs + 0.1 * rollouts.mask  # as if the policy had moved
    figures = stage.update(dataclasses.replace(experience, logprobs=old))
    assert figures["policy/approxkl_avg"] == pytest.approx(0.5 * 0.1**2, rel=1e-3)
    assert figures["val/ratio"] == pytest.approx(0.904837, rel=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_taken_at_the_sampling_temperature(tokenizer, temperature):
    model = tiny_gpt(tokenizer)
    ids, is_answer = torch.tensor([[5, 6, 7]]), torch.tensor([[False, True, True]])
    with torch.no_grad():
        found = logprob_function(LanguageModel(model), temperature)(ids, is_answer)
        expected = (model(ids).logits[0] / temperature).log_softmax(-1)
    assert found.tolist() == pytest.approx([float(expected[0, 6]), float(expected[1, 7])], abs=1e-5)


def test_what_the_sampler_says_is_what_the_update_computes(world, tmp_path):
    """At any temperature; so that `rollout.logprobs: sampled` begins with KL 0 and ratio 1 too."""
    stage = Stage(world, tmp_path, rollout__temperature=0.7)
    rollouts = stage.collect()
    again = rollouts.for_each_token(logprob_function(stage.roles.policy, 0.7), 8192).detach()
    torch.testing.assert_close(rollouts.sampled_logprobs, again, atol=1e-5, rtol=0)


def test_the_samplers_own_logprobs_are_taken_if_asked_for(world, tmp_path):
    stage = Stage(world, tmp_path, rollout__logprobs="sampled")
    rollouts = stage.collect()
    experience, _ = stage.appraise(rollouts)
    assert torch.equal(experience.logprobs, rollouts.sampled_logprobs)


def test_tokens_that_the_tokenizer_does_not_know_are_never_sampled(world, tokenizer, tmp_path):
    """Many models have more rows in their embedding than their tokenizer has tokens, to be a multiple of 64."""
    tiny_gpt(tokenizer, vocab_size=2 * len(tokenizer)).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    stage = Stage(world, tmp_path, model__path=str(tmp_path / "policy"), ppo__critic=str(tmp_path / "policy"))
    rollouts = stage.collect()
    assert int(rollouts.ids.max()) < len(tokenizer)
    assert not (rollouts.ids[rollouts.is_answer] == tokenizer.pad_token_id).any()


@pytest.mark.parametrize(("n_epochs", "n_minibatches"), [(1, 1), (4, 1), (2, 4), (1, 16)])
def test_each_minibatch_of_each_epoch_is_an_optimizer_step(world, tmp_path, n_epochs, n_minibatches):
    changes = {"ppo__n_epochs": n_epochs, "ppo__n_minibatches": n_minibatches, "optim__learning_rate": 1e-3}
    stage = Stage(world, tmp_path, **changes)
    steps = []
    for optimizer in (stage.learner.policy_optimizer, stage.learner.critic_optimizer):
        optimizer.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    seen: list[int] = []
    plain = stage.learner._micro_batches
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.learner, "_micro_batches", lambda r, rows: seen.extend(rows) or plain(r, rows))
        stage.update(stage.appraise(stage.collect())[0])
    assert len(steps) == 2 * n_epochs * n_minibatches  # the policy's and the critic's
    assert sorted(seen) == sorted(list(range(16)) * n_epochs)  # every answer once an epoch


def test_gradients_are_clipped(world, tmp_path):
    """With a norm of almost 0 nothing moves; epsilon keeps Adam from scaling it up again."""
    for max_norm, moves in ((1e-9, False), (1.0, True)):
        stage = Stage(world, tmp_path, **FULL, optim__max_grad_norm=max_norm, optim__eps=1e-3)
        before = [p.detach().clone() for role in (stage.roles.policy, stage.roles.critic) for p in role.parameters()]
        stage.update(stage.appraise(stage.collect())[0])
        after = [p for role in (stage.roles.policy, stage.roles.critic) for p in role.parameters()]
        moved = max(float((a.detach() - b).abs().max()) for a, b in zip(after, before, strict=True))
        assert (moved > 1e-4) == moves


def test_the_critic_has_its_own_learning_rate(world, tmp_path):
    changes = {"ppo__value_learning_rate": 1e-12, "train__steps": 2}
    ppo.run(recipe_of(ppo, world, tmp_path / "run", **changes))
    start = load_scalar_model(sections.Model(path=world.reward))
    critic = load_scalar_model(sections.Model(path=str(tmp_path / "run" / "critic")))
    for before, after in zip(start.parameters(), critic.parameters(), strict=True):
        torch.testing.assert_close(after, before, atol=1e-8, rtol=0)
    policy, base = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path / "run" / "model", world.base))
    moved = [float((a - b).detach().abs().max()) for a, b in zip(policy.parameters(), base.parameters(), strict=True)]
    assert max(moved) > 1e-3


def test_dropout_is_off_in_every_role(world, tmp_path):
    """GPT-2 brings dropout along; with it, the first ratios would not be 1."""
    stage = Stage(world, tmp_path, **FULL, model__path=world.gpt2)
    figures = stage.update(stage.appraise(stage.collect())[0])
    assert figures["val/ratio"] == pytest.approx(1.0, abs=1e-6)
    assert figures["policy/approxkl_avg"] < 1e-12


def test_the_critic_is_asked_for_the_state_before_each_token(tokenizer):
    critic = tiny_reward_model(tokenizer)
    rollouts = Rollouts.of([[5, 6], [7]], [Answer([8, 9], [0.0] * 2, False), Answer([10], [0.0], True)], "cpu")
    with torch.no_grad():
        values = rollouts.for_each_state(critic, 8192)
        expected = [[[5, 6], [5, 6, 8]], [[7]]]
        by_hand = [[float(score_batch(critic, [state], "cpu")) for state in states] for states in expected]
    assert values[0].tolist() == pytest.approx(by_hand[0], abs=1e-5)
    assert values[1].tolist() == pytest.approx([*by_hand[1], 0.0], abs=1e-5)


def test_the_critic_is_asked_for_the_state_after_an_end_where_the_score_stands_there(tokenizer):
    """As in N+ (items 20 and 25); an answer that has all the tokens that it may have leaves no room for one."""
    critic = tiny_reward_model(tokenizer)
    answers = [Answer([8, 9], [0.0] * 2, False), Answer([10], [0.0], True)]
    rollouts = Rollouts.of([[5, 6], [7]], answers, "cpu", max_tokens=2)
    assert rollouts.states.tolist() == [[True, True], [True, True]]
    assert rollouts.mask.tolist() == [[True, True], [True, False]]
    with torch.no_grad():
        values = rollouts.for_each_state(critic, 8192)
        by_hand = [float(score_batch(critic, [state], "cpu")) for state in ([7], [7, 10])]
    assert values[1].tolist() == pytest.approx(by_hand, abs=1e-5)


def test_a_critic_that_knows_the_score_leaves_no_advantage_to_the_last_token(world, tmp_path):
    """The critic begins as the reward model: after EOS it says the very score that stands there."""
    changes = {"reward__score_at": "after_eos", "ppo__whiten_advantages": False, "kl__coefficient": 0.0}
    stage = Stage(world, tmp_path, **changes)
    eos = stage.tokenizer.eos_token_id
    rollouts = stage.rollouts_of([9, 8, eos], [7, eos])
    stage.appraise(rollouts)
    advantages, returns = stage.targets(rollouts)
    values, scores = rollouts.values, rollouts.scores
    for row, last in ((0, 2), (1, 1)):
        assert values[row, last + 1] == pytest.approx(float(scores[row]), abs=1e-5)
        assert advantages[row, last + 1] == pytest.approx(0.0, abs=1e-5)
        assert advantages[row, last] == pytest.approx(float(scores[row] - values[row, last]), abs=1e-5)
        assert returns[row, last] == pytest.approx(float(scores[row]), abs=1e-5)


def test_the_logged_kl_is_the_sum_over_tokens_averaged_over_answers(world, tmp_path):
    stage = Stage(world, tmp_path, ppo__critic=world.base)
    stage.replace(reference=ppo_reference(stage))
    rollouts = stage.rollouts_of([9, 8, 7, stage.tokenizer.eos_token_id], [9, stage.tokenizer.eos_token_id])
    experience, seen = stage.appraise(rollouts)
    reference = rollouts.for_each_token(logprob_function(stage.roles.reference, 1.0), 8192)
    token_kl = experience.logprobs - reference.detach()
    assert seen["objective/kl"] == pytest.approx(float(token_kl[0].sum() + token_kl[1, :2].sum()) / 2, abs=1e-5)
    assert seen["val/response_length"] == 3.0
    assert seen["val/ended"] == 1.0


def ppo_reference(stage: Stage) -> Any:
    """Another model than the policy, so that KL is not 0."""
    return LanguageModel(tiny_gpt(stage.tokenizer, seed=9))


def test_a_policy_that_is_not_its_reference_before_the_first_step_is_refused(world, tmp_path, monkeypatch):
    stage = Stage(world, tmp_path)
    stage.sampler.check_reference(stage.collect())
    stage.replace(reference=ppo_reference(stage))
    with pytest.raises(ppo.UserError, match="before the first update; it must be 0"):
        stage.sampler.check_reference(stage.collect())


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_policy_that_is_not_what_sampled_is_refused(world, tmp_path, warmup):
    """At its first update, which may come after some of the critic's."""
    stage = Stage(world, tmp_path, ppo__critic_warmup_steps=warmup)
    rollouts, _ = stage.appraise(stage.collect())
    rollouts.logprobs = rollouts.logprobs - 0.1 * rollouts.mask
    for step in range(1, warmup + 1):
        stage.learner.step(rollouts, step)
    with pytest.raises(ppo.UserError, match=r"before the first update log probabilities differ by 0\.1 nats"):
        stage.learner.step(rollouts, warmup + 1)


def test_a_policy_that_diverges_is_stopped(world, tmp_path):
    recipe = recipe_of(ppo, world, tmp_path / "run", optim__learning_rate=0.03, ppo__max_ratio=1.2)
    with pytest.raises(ppo.UserError, match=r"the policy diverged: mean ratio .*Lower optim\.learning_rate"):
        ppo.run(recipe)
    for ratio in (float("nan"), float("inf"), 1.3):
        with pytest.raises(ppo.UserError, match=r"ppo\.max_ratio is 1\.2"):
            check_ratio(ratio, recipe)
    check_ratio(1.1, recipe)


def test_ppo_finds_the_optimum_that_can_be_computed(world, tmp_path):
    """The best policy under a KL penalty is pi_ref * exp(reward / beta), normalised: for one-token answers a formula.

    An answer that is EOS has score 0, any other -1.
    """
    beta = 0.5
    changes = {"reward__path": ..., "reward__function": "helpers:brevity", "ppo__critic": world.base}
    changes |= {"rollout__max_tokens": 1, "kl__coefficient": beta, "ppo__n_minibatches": 1}
    changes |= {"optim__batch_size": 64, "optim__learning_rate": 0.003, "train__steps": 60}
    recipe = recipe_of(ppo, world, tmp_path / "run", **changes)
    ppo.run(recipe)
    tokenizer = load_tokenizer(world.base)
    asked = ppo.encode(recipe, tokenizer, load(recipe.data, "prompts", 1).train)
    start, found = (eos_probabilities(path, asked, tokenizer) for path in (world.base, tmp_path / "run" / "model"))
    best = start * math.exp(1 / beta) / (start * math.exp(1 / beta) + 1 - start)
    assert float((start - best).abs().mean()) > 0.3
    assert float((found - best).abs().mean()) < 0.05
    assert float((found - best).mean()) == pytest.approx(0.0, abs=0.03)


@torch.no_grad()
def eos_probabilities(path: Any, asked: list[EncodedPrompt], tokenizer: Any) -> torch.Tensor:
    """How likely the answer to each prompt is EOS alone."""
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    logits = torch.stack([model(torch.tensor([prompt.ids])).logits[0, -1] for prompt in asked])
    return logits.softmax(-1)[:, tokenizer.eos_token_id]
