"""Where scores come from, and how a source that misbehaves is told by its name."""

import sys
from typing import Any

import pytest
import torch
from tiny import sentences, tiny_reward_model

from align.errors import UserError
from align.models.scalar import score_all
from align.rl.rewards import FunctionReward, ModelReward, find_function
from align.text.encode import encode_conversation, encode_prompt, encode_response
from align.text.records import Message
from align.text.tokenizer import load_tokenizer, train_tokenizer

PROMPTS = [[Message("user", "say red")], [Message("system", "be kind"), Message("user", "say blue cat")]]
TEXTS = ["red", "blue and cat"]

FUNCTIONS = """
import torch
def by_length(prompts, responses): return [len(p) + 100 * len(r) for p, r in zip(prompts, responses)]
def as_tensor(prompts, responses): return torch.tensor([1.5, 2.5])
def as_generator(prompts, responses): return (True for _ in responses)
def raises(prompts, responses): return [1 / 0 for _ in responses]
def too_few(prompts, responses): return [1.0]
def nothing(prompts, responses): return None
def not_finite(prompts, responses): return [1.0, float("nan")]
def words(prompts, responses): return ["good", "bad"]
not_a_function = 5
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of reward functions in the folder where the command runs."""
    (tmp_path / "my_rewards.py").write_text(FUNCTIONS)
    (tmp_path / "unfinished.py").write_text("def reward(prompts, responses:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    yield
    for name in ("my_rewards", "unfinished"):
        sys.modules.pop(name, None)


def scores_of(name: str) -> list[float]:
    return FunctionReward(f"my_rewards:{name}").score(PROMPTS, TEXTS, [[], []])


def test_a_function_gets_the_last_user_turn_and_the_answer(module):
    assert scores_of("by_length") == [len("say red") + 300.0, len("say blue cat") + 1200.0]


@pytest.mark.parametrize(("name", "expected"), [("as_tensor", [1.5, 2.5]), ("as_generator", [1.0, 1.0])])
def test_scores_may_come_in_any_form_of_numbers(module, name, expected):
    assert scores_of(name) == expected


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "raised ZeroDivisionError: division by zero"),
        ("too_few", "returned 1 scores for 2 answers"),
        ("nothing", "'NoneType' object is not iterable"),
        ("not_finite", "returned nan for the answer 'blue and cat'; every score must be finite"),
        ("words", "returned what is no number"),
    ],
)
def test_a_function_that_misbehaves_is_named(module, name, told):
    with pytest.raises(UserError) as refused:
        scores_of(name)
    assert str(refused.value).startswith(f"reward function my_rewards:{name} ")
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("my_rewards", "a function is named module:function"),
        ("no_such_module:reward", "cannot import no_such_module"),
        ("my_rewards:no_such_function", "my_rewards has no no_such_function"),
        ("my_rewards:not_a_function", "is a int, not a function"),
        ("unfinished:reward", "cannot import unfinished"),
    ],
)
def test_a_function_that_cannot_be_found_is_named(module, name, told):
    with pytest.raises(UserError) as refused:
        find_function(name)
    assert told in str(refused.value)
    assert name in str(refused.value)


@pytest.fixture
def other_tokenizer() -> Any:
    """Splits the same words into other tokens."""
    return train_tokenizer(sentences(40), 270)


def answers_of(tokenizer: Any) -> list[list[int]]:
    pairs = zip(PROMPTS, TEXTS, strict=True)
    return [encode_prompt(tokenizer, p) + encode_response(tokenizer, p, text) for p, text in pairs]


def test_with_the_same_tokenizer_the_very_tokens_that_were_sampled_are_scored(world):
    tokenizer = load_tokenizer(world.base)
    reward = ModelReward(world.reward, tokenizer, "cpu", 8192)
    ids = [[*row[:-1], 9, 9, tokenizer.eos_token_id] for row in answers_of(tokenizer)]  # not how the text is encoded
    assert reward.score(PROMPTS, TEXTS, ids) == pytest.approx(score_all(reward.model, ids, 8192, "cpu"))
    assert reward.score(PROMPTS, TEXTS, ids) != pytest.approx(reward.score(PROMPTS, TEXTS, answers_of(tokenizer)))


def test_with_another_tokenizer_the_text_is_read_anew(other_tokenizer, world, tmp_path):
    tiny_reward_model(other_tokenizer).save(tmp_path)
    other_tokenizer.save_pretrained(tmp_path)
    policy_tokenizer = load_tokenizer(world.base)
    reward = ModelReward(str(tmp_path), policy_tokenizer, "cpu", 8192)
    turns = [(*prompt, Message("assistant", text)) for prompt, text in zip(PROMPTS, TEXTS, strict=True)]
    expected = score_all(reward.model, [encode_conversation(other_tokenizer, t, 999).ids for t in turns], 8192, "cpu")
    assert answers_of(policy_tokenizer) != answers_of(other_tokenizer)
    assert reward.score(PROMPTS, TEXTS, answers_of(policy_tokenizer)) == pytest.approx(expected)


def test_a_reward_model_is_frozen(world):
    reward = ModelReward(world.reward, load_tokenizer(world.base), "cpu", 8192)
    assert not any(parameter.requires_grad for parameter in reward.model.parameters())
    assert not reward.model.training


def test_scores_do_not_depend_on_the_budget_and_come_in_the_order_given(world):
    tokenizer = load_tokenizer(world.base)
    rows = [torch.randint(5, 60, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (9, 3, 20, 3, 7)]
    one, all_at_once = (
        ModelReward(world.reward, tokenizer, "cpu", budget).score([], [], rows) for budget in (1, 100_000)
    )
    assert one == pytest.approx(all_at_once, abs=1e-5)
    assert len(set(one)) == 4  # two rows are the same
