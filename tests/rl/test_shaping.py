"""From raw scores to those that PPO maximises: each key by hand, and all of them together."""

from typing import Any

import pytest
import torch

from align.config import build
from align.errors import UserError
from align.generation.sampling import Answer
from align.rewards.settings import Reward
from align.rl.rollouts import Rollouts
from align.rl.shaping import RunningMoments, Shaping, cut_after, token_id, whole
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator as make_accelerator

EOS, DOT = 1, 9


class TenTokens:
    """As much of a tokenizer as is needed."""

    eos_token_id, chat_template = EOS, None
    all_special_tokens, all_special_ids, added_tokens_decoder = ["</s>"], [EOS], {}

    def get_vocab(self) -> dict[str, int]:
        return {str(token): token for token in range(10)}


def shaping(**keys: Any) -> Shaping:
    return Shaping(build(Reward, {"path": "r", **keys}, "reward"), TenTokens(), make_accelerator("fp32"))


def rollouts(*answers: list[int]) -> Rollouts:
    """Prompts of different lengths before these answers; one that ends in EOS has ended."""
    prompts = [[5] * (2 + index) for index in range(len(answers))]
    return Rollouts.of(prompts, [Answer(ids, [0.0] * len(ids), ids[-1] == EOS) for ids in answers], "cpu")


def shaped(made: Shaping, scores: list[float], *answers: list[int]) -> list[float]:
    return made.shape(torch.tensor(scores), made.scored_part(rollouts(*answers))).tolist()


def test_without_any_key_scores_are_what_they_were():
    scores = [0.1, -7.3, 1e-9]
    assert shaped(shaping(missing_eos=None), scores, [3], [3, EOS], [4, 4, 4]) == torch.tensor(scores).tolist()


def test_clipping_comes_before_the_penalty_for_a_missing_eos():
    assert shaped(shaping(clip=0.5), [3.0, -3.0, 3.0], [3, EOS], [3, EOS], [3, 3]) == [0.5, -0.5, -1.0]


def test_each_token_beyond_the_free_ones_costs():
    made = shaping(length_penalty=0.25, length_free=2, clip=1.0)
    assert shaped(made, [9.0, 1.0, 0.0], [EOS], [3, EOS], [3, 3, 3, EOS]) == [1.0, 1.0, -0.5]


def test_an_answer_that_is_too_short_scores_what_one_without_eos_does():
    made = shaping(min_tokens=3, missing_eos=-2.0)
    assert shaped(made, [5.0, 5.0, 5.0, 5.0], [EOS], [3, EOS], [3, 3, EOS], [3, 3, 3]) == [-2.0, -2.0, 5.0, -2.0]


def test_answers_are_cut_after_the_first_token_that_counts():
    """lm-human-preferences: the token is looked for from position truncate_after on, counted from 0."""
    cut = cut_after(rollouts([3, DOT, 4, DOT, 6, 7], [DOT, 3, EOS], [3, 3, DOT]), DOT, 2, EOS)
    assert cut.sequences == [[5, 5, 3, DOT, 4, DOT, EOS], [5, 5, 5, DOT, 3, EOS], [5, 5, 5, 5, 3, 3, DOT, EOS]]
    assert cut.n_tokens.tolist() == [4, 3, 3]
    assert cut.ended.tolist() == [True, False, True]


def test_whichever_end_an_answer_says_it_is_read_at_its_turns():
    """A reward model has seen answers that end as they are taught to."""
    part = whole(rollouts([3, EOS], [3, 4]), end=DOT)
    assert part.sequences == [[5, 5, 3, DOT], [5, 5, 5, 3, 4]]
    assert part.n_tokens.tolist() == [2, 2]


def test_a_cut_at_eos_adds_no_second_one():
    cut = cut_after(rollouts([3, 4, EOS], [3, 4, 4]), EOS, 0, EOS)
    assert cut.sequences == [[5, 5, 3, 4, EOS], [5, 5, 5, 3, 4, 4]]
    assert cut.ended.tolist() == [True, False]


def test_without_the_token_an_answer_scores_minus_1_even_if_it_said_eos():
    made = shaping(truncate_token=DOT, truncate_after=1)
    assert shaped(made, [0.5, 0.5, 0.5], [3, DOT, 4], [DOT, 3, EOS], [3, 3, 3]) == [0.5, -1.0, -1.0]


def test_lengths_are_those_of_what_is_scored():
    made = shaping(truncate_token=DOT, length_penalty=1.0)
    assert shaped(made, [0.0], [3, DOT, 4, 4, 4]) == [-2.0]


def test_the_token_is_named_by_its_text_or_its_number(world):
    tokenizer = load_tokenizer(world.base)
    number = tokenizer("red", add_special_tokens=False)["input_ids"][0]
    assert token_id(tokenizer, number) == number
    assert tokenizer.decode([token_id(tokenizer, ".")]) == "."
    assert token_id(tokenizer, tokenizer.eos_token) == tokenizer.eos_token_id
    with pytest.raises(UserError, match=r"truncate_token = '\. \. \.': this tokenizer splits it into \d tokens"):
        token_id(tokenizer, ". . .")
    with pytest.raises(UserError, match=f"has ids 0 to {len(tokenizer) - 1}"):
        token_id(tokenizer, len(tokenizer))


def test_running_moments_are_those_of_all_scores_so_far():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(50, generator=generator) * 3 + 1e4  # far from 0, where naive sums of squares lose all digits
    moments = RunningMoments()
    for batch in scores.split([1, 7, 20, 22]):
        moments.update(batch, make_accelerator("fp32"))
    assert moments.n == 50
    assert moments.mean == pytest.approx(float(scores.double().mean()), rel=1e-12)
    assert moments.std == pytest.approx(float(scores.double().std(correction=0)), rel=1e-9)


def test_running_scores_have_mean_0_and_standard_deviation_1_over_the_first_batch():
    answers = [[3, EOS]] * 4
    assert shaped(shaping(normalize="running"), [1.0, 2.0, 3.0, 4.0], *answers) == pytest.approx(
        [-1.341641, -0.447214, 0.447214, 1.341641], abs=1e-6
    )
    uncentred = shaping(normalize="running", normalize_mean=False)
    assert shaped(uncentred, [1.0, 2.0, 3.0, 4.0], *answers) == pytest.approx(
        [0.894427, 1.788854, 2.683282, 3.577709], abs=1e-6
    )


def test_scores_that_are_all_alike_are_not_blown_up():
    made = shaping(normalize="running", normalize_mean=False)
    assert shaped(made, [2.0, 2.0], [3, EOS], [3, EOS]) == [2.0, 2.0]


def test_clipping_comes_after_normalising():
    made = shaping(normalize="running", clip=1.0)
    assert max(shaped(made, [1.0, 2.0, 3.0, 100.0], *[[3, EOS]] * 4)) == 1.0


def test_what_it_remembers_is_restored_exactly():
    one, other = shaping(normalize="running"), shaping(normalize="running")
    shaped(one, [0.1, 0.7, -3.3], *[[3, EOS]] * 3)
    other.parts()["reward"].load_state_dict(one.parts()["reward"].state_dict())
    more = ([0.3, 0.2], [3, EOS], [3, EOS])
    assert shaped(one, *more) == shaped(other, *more)


def test_nothing_is_remembered_where_nothing_is_normalised():
    assert shaping().parts() == {}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"path": None}, "give either reward.path or reward.function or reward.url or reward.sources, found none of"),
        ({"function": "a:b"}, "found path=r, function=a:b"),
        ({"path": []}, "is empty; give at least one"),
        ({"path": None, "url": "localhost:8000"}, "must begin with http:// or https://"),
        ({"path": None, "function": "a:b", "ensemble": "min"}, "reward.ensemble has no effect without reward models"),
        ({"uncertainty": 2}, "reward.uncertainty has no effect without ensemble: mean_minus_std"),
        ({"retries": 9}, "have no effect without a reward server; give reward.url"),
        ({"normalize_mean": False}, "reward.normalize_mean has no effect without normalize: running"),
        ({"length_free": 3}, "reward.length_free has no effect without a length_penalty above 0"),
        ({"min_tokens": 3, "missing_eos": None}, "reward.min_tokens has no effect with missing_eos: none"),
        ({"truncate_after": 3}, "reward.truncate_after has no effect without a truncate_token"),
        ({"path": None, "sources": [{"path": "a/rm/model"}, {"path": "b/rm"}]}, "are called 'rm'; give each a name"),
        (
            {"path": None, "sources": [{"path": "a", "url": "http://b"}]},
            "give either path or function or url, found path=a",
        ),
    ],
)
def test_a_key_that_would_do_nothing_or_contradicts_another_is_refused(keys, told):
    with pytest.raises(UserError) as refused:
        build(Reward, {"path": "r", **keys}, "reward")
    assert told in str(refused.value)


def test_sources_are_named_by_what_they_are():
    sources = [
        {"path": "runs/rm/model/"},
        {"path": ["a/x", "b/y"]},
        {"function": "m:brief"},
        {"url": "http://h:1/score"},
    ]
    made = build(Reward, {"sources": [*sources, {"function": "m:brief", "name": "again"}]}, "reward")
    assert [source.label for source in made.parts] == ["rm", "x", "brief", "h:1", "again"]
    assert made.paths == ["runs/rm/model/", "a/x", "b/y"]
    assert made.urls == ["http://h:1/score"]
