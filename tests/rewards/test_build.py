"""Where scores come from, and how a source that misbehaves is told by its name."""

import datetime
import sys
from typing import Any

import pytest
import torch
from tiny import sentences, tiny_reward_model

from align.config import build
from align.errors import RewardError, UserError
from align.models.scalar import score_all
from align.rewards.build import build_reward, detailed_scores
from align.rewards.function import FunctionReward, find_function
from align.rewards.model import EnsembleReward, ModelReward, combine
from align.rewards.settings import Reward
from align.text.encode import encode_conversation, encode_prompt, encode_response
from align.text.records import Message
from align.text.template import fix_date
from align.text.tokenizer import load_tokenizer, train_tokenizer

PROMPTS = [[Message("user", "say red")], [Message("system", "be kind"), Message("user", "say blue cat")]]
TEXTS = ["red", "blue and cat"]

FUNCTIONS = """
import numpy
import torch
def by_length(prompts, responses): return [len(p) + 100 * len(r) for p, r in zip(prompts, responses)]
def as_tensor(prompts, responses): return torch.tensor([1.5, 2.5])
def as_generator(prompts, responses): return (True for _ in responses)
def as_array(prompts, responses): return numpy.array([1.5, 2.5], dtype=numpy.float16)
def as_bfloat16(prompts, responses): return torch.tensor([1.5, 2.5], dtype=torch.bfloat16)
def with_gradient(prompts, responses): return torch.tensor([1.5, 2.5], requires_grad=True)
def as_column(prompts, responses): return torch.tensor([[1.5], [2.5]])
def as_matrix(prompts, responses): return torch.ones(2, 2)
def as_number(prompts, responses): return torch.tensor(1.0)
def elsewhere(prompts, responses): return torch.ones(2, device="meta")
def list_elsewhere(prompts, responses): return list(torch.ones(2, device="meta"))
def too_large(prompts, responses): return [10**400, 1]
def on_gpu(prompts, responses): return torch.tensor([1.5, 2.5], device="cuda")
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


FORMS = ("as_tensor", "as_array", "as_bfloat16", "with_gradient", "as_column")


@pytest.mark.parametrize(("name", "expected"), [("as_generator", [1.0, 1.0]), *((name, [1.5, 2.5]) for name in FORMS)])
def test_scores_may_come_in_any_form_of_numbers(module, name, expected):
    assert scores_of(name) == expected


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "raised ZeroDivisionError: division by zero"),
        ("too_few", "returned 1 scores for 2 answers"),
        ("nothing", "returned a NoneType; return a list with one score for each answer"),
        ("not_finite", "returned nan for the answer 'blue and cat'; every score must be finite"),
        ("words", "returned no number"),
        ("as_matrix", "returned an array of shape (2, 2); return one score for each answer"),
        ("as_number", "returned an array of shape ()"),
        ("elsewhere", "returned a tensor on the device 'meta', which cannot be read"),
        ("list_elsewhere", "returned no number"),
        ("too_large", "returned no number (int too large to convert to float)"),
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
        ("my_rewards", "is not of the form module:function"),
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


def test_an_answer_without_tokens_of_its_own_is_read_anew(world):
    tokenizer = load_tokenizer(world.base)
    reward = ModelReward(world.reward, tokenizer, "cpu", 8192)
    ids = answers_of(tokenizer)
    assert reward.score(PROMPTS, TEXTS, [[], *ids[1:]]) == pytest.approx(reward.score(PROMPTS, TEXTS, ids))


@pytest.fixture
def of_template(world, tmp_path):
    """A reward model whose template begins prompts, or ends them, with something more."""

    def made(before: str = "", after: str = "") -> str:
        tokenizer = load_tokenizer(world.reward)
        tokenizer.chat_template = f"{before}{tokenizer.chat_template}{after}"
        tiny_reward_model(tokenizer).save(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return made


def test_a_reward_model_that_reads_no_answer_without_thoughts_is_refused_before_the_run(world, of_template):
    path = of_template(after="{{ '<think>' if add_generation_prompt }}")
    with pytest.raises(UserError, match=r"reward model .* without thoughts.*data\.template to one.*align\.rm"):
        ModelReward(path, load_tokenizer(world.base), "cpu", 8192)


def test_a_reward_model_writes_the_date_of_the_run(world, of_template):
    policy = load_tokenizer(world.base)
    fix_date(policy, datetime.date(2020, 2, 3))
    reward = ModelReward(of_template("{{ strftime_now('%Y-%m-%d') }}"), policy, "cpu", 8192)
    [(prompt, _)] = reward.encode(PROMPTS[:1], TEXTS[:1])
    assert reward.tokenizer.decode(prompt).startswith("2020-02-03")


def test_a_function_is_given_what_the_user_asked_last():
    asked = (Message("user", "weather ?"), Message("assistant", "", calls="[{}]"), Message("tool", "rain"))
    reward = FunctionReward("helpers:brevity")
    given: list[str] = []
    reward.function = lambda prompts, texts: given.extend(prompts) or [0.0] * len(texts)
    reward.score([asked, (Message("user", "and now ?"),)], ["red", "blue"], [])
    assert given == ["weather ?", "and now ?"]


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


def test_the_place_in_the_users_file_is_told(module, tmp_path):
    with pytest.raises(RewardError, match=r"my_rewards\.py:\d+, in "):
        scores_of("raises")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_tensor_on_a_gpu_is_brought_back(module):
    assert scores_of("on_gpu") == [1.5, 2.5]


MEMBERS = [[1.0, 4.0], [3.0, 4.0], [2.0, 4.0]]


@pytest.mark.parametrize(
    ("how", "uncertainty", "expected"),
    [
        ("mean", 1.0, [2.0, 4.0]),
        ("min", 1.0, [1.0, 4.0]),
        ("mean_minus_std", 1.0, [2.0 - (2 / 3) ** 0.5, 4.0]),
        ("mean_minus_std", 0.0, [2.0, 4.0]),
        ("mean_minus_std", 3.0, [2.0 - 3 * (2 / 3) ** 0.5, 4.0]),
    ],
)
def test_what_counts_of_an_ensemble(how, uncertainty, expected):
    assert combine(MEMBERS, how, uncertainty) == pytest.approx(expected)


@pytest.fixture
def second(tokenizer, tmp_path) -> str:
    """Another reward model with the same tokenizer."""
    tiny_reward_model(tokenizer, seed=8).save(tmp_path / "second")
    tokenizer.save_pretrained(tmp_path / "second")
    return str(tmp_path / "second")


def built(keys: dict[str, Any], world: Any) -> Any:
    return build_reward(build(Reward, keys, "reward"), load_tokenizer(world.base), "cpu", 8192)


def test_one_path_is_one_model_whether_it_is_listed_or_not(world):
    for path in (world.reward, [world.reward]):
        assert isinstance(built({"path": path}, world), ModelReward)
    with pytest.raises(UserError, match=r"ensemble = min has no effect: .* is one reward model"):
        built({"path": world.reward, "ensemble": "min"}, world)


def test_an_ensemble_scores_with_all_its_members(world, second):
    ids = answers_of(load_tokenizer(world.base))
    one, other = (built({"path": path}, world).score(PROMPTS, TEXTS, ids) for path in (world.reward, second))
    assert one != pytest.approx(other)
    reward = built({"path": [world.reward, second], "ensemble": "min"}, world)
    assert isinstance(reward, EnsembleReward)
    assert reward.score(PROMPTS, TEXTS, ids) == [min(pair) for pair in zip(one, other, strict=True)]
    scores, columns = detailed_scores(reward, PROMPTS, TEXTS, ids)
    assert scores == reward.score(PROMPTS, TEXTS, ids)
    halves = [abs(a - b) / 2 for a, b in zip(one, other, strict=True)]
    assert columns == {"objective/ensemble_std": pytest.approx(halves)}


def test_several_sources_are_added_with_their_weights_and_each_is_logged(module, world, second):
    ids = answers_of(load_tokenizer(world.base))
    sources = [
        {"path": [world.reward, second], "name": "models", "weight": 2},
        {"function": "my_rewards:by_length", "weight": -0.01},
        {"function": "my_rewards:as_tensor", "weight": 0},
    ]
    scores, columns = detailed_scores(built({"sources": sources}, world), PROMPTS, TEXTS, ids)
    names = ["scores/models", "ensemble_std/models", "scores/by_length", "scores/as_tensor"]
    assert list(columns) == [f"objective/{name}" for name in names]
    both = [built({"path": path}, world).score(PROMPTS, TEXTS, ids) for path in (world.reward, second)]
    models, by_length = combine(both, "mean", 1.0), scores_of("by_length")
    assert columns["objective/scores/models"] == models
    assert columns["objective/scores/by_length"] == by_length
    assert scores == pytest.approx([2 * a - 0.01 * b for a, b in zip(models, by_length, strict=True)])


def test_one_plain_source_has_nothing_more_to_log(world):
    ids = answers_of(load_tokenizer(world.base))
    reward = built({"path": world.reward}, world)
    assert detailed_scores(reward, PROMPTS, TEXTS, ids) == (reward.score(PROMPTS, TEXTS, ids), {})


def test_a_reward_model_whose_scores_are_not_finite_is_told(world):
    reward = ModelReward(world.reward, load_tokenizer(world.base), "cpu", 8192)
    reward.model.head.bias.fill_(float("nan"))
    with pytest.raises(RewardError, match=f"reward model {world.reward}: a score is not finite"):
        reward.score(PROMPTS, TEXTS, answers_of(load_tokenizer(world.base)))


def test_an_answer_longer_than_the_reward_model_reads_is_told(world):
    reward = ModelReward(world.reward, load_tokenizer(world.base), "cpu", 8192)
    with pytest.raises(RewardError, match=r"have 65 of its tokens; it has 64 positions\. Lower data\.max_tokens"):
        reward.score(PROMPTS, TEXTS, [[5] * 65, [5]])
