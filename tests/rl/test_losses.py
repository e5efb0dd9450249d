"""Every loss on numbers small enough to check by hand."""

import math

import pytest
import torch
from torch import tensor

from align.rl.losses import bootstrap_draw, entropy, explained_variance, pairs_of, policy_loss, ranking_loss, value_loss

LOG2 = math.log(2)


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def test_two_answers_are_the_pairwise_loss():
    loss = ranking_loss(tensor([2.0, 0.5]), pairs_of([(1, 2)]))
    assert float(loss) == pytest.approx(-log_sigmoid(1.5))
    assert float(ranking_loss(tensor([2.0, 0.5]), pairs_of([(2, 1)]))) == pytest.approx(-log_sigmoid(-1.5))


def test_three_answers_by_hand():
    scores, ranks = [0.0, 3.0, 1.0], (3, 1, 2)
    by_hand = -(log_sigmoid(3.0 - 1.0) + log_sigmoid(3.0 - 0.0) + log_sigmoid(1.0 - 0.0)) / 3
    assert float(ranking_loss(tensor(scores), pairs_of([ranks]))) == pytest.approx(by_hand)


@pytest.mark.parametrize(("k", "n_pairs"), [(2, 1), (4, 6), (9, 36)])
def test_a_ranking_of_k_gives_all_its_pairs_each_weighing_one_over_their_number(k, n_pairs):
    pairs = pairs_of([tuple(range(k, 0, -1))])  # the last answer is the best
    assert len(pairs.better) == len(pairs.worse) == n_pairs
    assert all(better > worse for better, worse in zip(pairs.better, pairs.worse, strict=True))
    assert len(set(zip(pairs.better, pairs.worse, strict=True))) == n_pairs
    assert pairs.weight == pytest.approx([1 / n_pairs] * n_pairs)


def test_a_batch_of_64_prompts_of_nine_answers_has_2304_pairs():
    assert len(pairs_of([tuple(range(1, 10))] * 64).better) == 2304


def test_answers_are_numbered_through_the_batch():
    assert pairs_of([(1, 2), (2, 1, 3)]).better == [0, 3, 2, 3]
    assert pairs_of([(1, 2), (2, 1, 3)]).worse == [1, 2, 4, 4]


def test_a_tie_gives_no_pair_and_leaves_the_weight_of_the_others():
    pairs = pairs_of([(1, 2, 2)])
    assert (pairs.better, pairs.worse) == ([0, 0], [1, 2])
    assert pairs.weight == pytest.approx([1 / 3, 1 / 3])
    assert pairs_of([(1, 1)]) == ([], [], [], [], [])
    assert float(ranking_loss(tensor([1.0, 2.0]), pairs_of([(1, 1)]))) == 0.0


def test_a_tie_taken_for_half_draws_its_scores_together():
    pairs = pairs_of([(1, 2, 2)], ties="half")
    assert (pairs.better, pairs.worse, pairs.target) == ([0, 0, 1], [1, 2, 2], [1.0, 1.0, 0.5])
    scores = tensor([0.0, 3.0, 1.0], requires_grad=True)
    loss = ranking_loss(scores, pairs)
    by_hand = -(log_sigmoid(-3.0) + log_sigmoid(-1.0) + 0.5 * log_sigmoid(2.0) + 0.5 * log_sigmoid(-2.0)) / 3
    assert float(loss.detach()) == pytest.approx(by_hand)
    equal = tensor([5.0, 5.0], requires_grad=True)
    loss = ranking_loss(equal, pairs_of([(1, 1)], ties="half"))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(LOG2)  # the least that it can be: a coin's toss
    assert equal.grad.tolist() == [0.0, 0.0]


def test_decided_pairs_are_those_without_ties():
    pairs = pairs_of([(1, 2, 2), (1, 2)], ties="half", margins=[1.0, 0.0])
    assert pairs.decided() == pairs_of([(1, 2, 2), (1, 2)], margins=[1.0, 0.0])
    assert pairs_of([(1, 2)]).decided() == pairs_of([(1, 2)])


def test_a_margin_is_what_the_better_answer_must_lead_by():
    """Llama 2, equation 2: -log sigmoid(r_chosen - r_rejected - m)."""
    loss = ranking_loss(tensor([2.0, 0.5]), pairs_of([(1, 2)], margins=[0.75]))
    assert float(loss) == pytest.approx(-log_sigmoid(2.0 - 0.5 - 0.75))


def test_answers_closer_in_rank_have_their_share_of_the_margin():
    pairs = pairs_of([(3, 1, 2), (1, 5), (1, 1)], ties="half", margins=[1.0, 3.0, 2.0])
    assert pairs.margin == pytest.approx([1.0, 0.5, 0.5, 3.0, 0.0])


def test_a_smoothed_label_is_wrong_with_that_probability():
    """cDPO: -(1 - e) log sigmoid(d) - e log sigmoid(-d)."""
    loss = ranking_loss(tensor([2.0, 0.5]), pairs_of([(1, 2)]), label_smoothing=0.1)
    assert float(loss) == pytest.approx(-0.9 * log_sigmoid(1.5) - 0.1 * log_sigmoid(-1.5))
    scores = tensor([math.log(9.0), 0.0], requires_grad=True)  # sigmoid of the difference is 0.9 = 1 - e: the optimum
    ranking_loss(scores, pairs_of([(1, 2)]), label_smoothing=0.1).backward()
    assert scores.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-7)


def test_a_wrong_label_has_its_margin_on_the_other_side():
    loss = ranking_loss(tensor([2.0, 0.5]), pairs_of([(1, 2)], margins=[0.75]), label_smoothing=0.1)
    assert float(loss) == pytest.approx(-0.9 * log_sigmoid(0.75) - 0.1 * log_sigmoid(-2.25))


def test_a_tie_stays_even_however_labels_are_smoothed():
    pairs = pairs_of([(1, 1)], ties="half")
    plain, smooth = (float(ranking_loss(tensor([2.0, 0.5]), pairs, label_smoothing=e)) for e in (0.0, 0.2))
    assert plain == pytest.approx(smooth) == pytest.approx(-0.5 * log_sigmoid(1.5) - 0.5 * log_sigmoid(-1.5))


def test_centering_adds_the_squared_sum_of_each_pair():
    """TRL: loss + c * mean((r_chosen + r_rejected)^2)."""
    scores, pairs = tensor([2.0, 0.5, -1.0]), pairs_of([(1, 2, 3)])
    added = ranking_loss(scores, pairs, centering=0.01) - ranking_loss(scores, pairs)
    assert float(added) == pytest.approx(0.01 * (2.5**2 + 1.0**2 + 0.5**2) / 3)


def test_weights_multiply_a_ranking():
    scores, ranks = tensor([2.0, 0.5, 1.0, 0.0]), [(1, 2), (2, 1)]
    loss = ranking_loss(scores, pairs_of(ranks, weights=[0.5, 0.0]))
    assert float(loss) == pytest.approx(-0.5 * log_sigmoid(1.5))


def test_the_variants_switched_off_are_the_plain_loss_to_the_bit():
    scores = torch.randn(9, generator=torch.Generator().manual_seed(2)) * 3
    pairs = pairs_of([(1, 2, 3, 4), (2, 1, 2), (1, 2)])
    margins = scores[pairs.better] - scores[pairs.worse]
    plain = -(torch.nn.functional.logsigmoid(margins) * tensor(pairs.weight)).sum()
    assert torch.equal(ranking_loss(scores, pairs), plain)


def test_bootstrap_draws_are_poisson_and_depend_on_seed_prompt_and_member_alone():
    draws = [bootstrap_draw(1, f"prompt {i}", 0) for i in range(20000)]
    shares = [draws.count(k) / len(draws) for k in range(4)]
    assert shares == pytest.approx([math.exp(-1), math.exp(-1), math.exp(-1) / 2, math.exp(-1) / 6], abs=0.01)
    assert draws[:50] == [bootstrap_draw(1, f"prompt {i}", 0) for i in range(50)]
    for other in (
        [bootstrap_draw(2, f"prompt {i}", 0) for i in range(50)],
        [bootstrap_draw(1, f"prompt {i}", 1) for i in range(50)],
    ):
        assert other != draws[:50]


def test_the_loss_does_not_see_a_shift_of_all_scores():
    scores, pairs = torch.randn(9, generator=torch.Generator().manual_seed(1)), pairs_of([tuple(range(1, 10))])
    assert float(ranking_loss(scores + 5.0, pairs)) == pytest.approx(float(ranking_loss(scores, pairs)), abs=1e-6)


def test_prompts_weigh_equally_however_many_answers_they_have():
    loss = ranking_loss(torch.zeros(2 + 9), pairs_of([(1, 2), tuple(range(1, 10))]))
    assert float(loss) == pytest.approx(2 * LOG2)  # log 2 for each prompt, where no answer is preferred
    scores = torch.zeros(2 + 9, requires_grad=True)
    ranking_loss(scores, pairs_of([(1, 2), tuple(range(1, 10))])).backward()
    assert scores.grad[:2].tolist() == [-0.5, 0.5]
    assert scores.grad[2:].tolist() == pytest.approx([-0.5 * (8 - 2 * i) / 36 for i in range(9)])


def test_extreme_margins_do_not_overflow():
    scores = tensor([1e4, -1e4], requires_grad=True)
    loss = ranking_loss(scores, pairs_of([(2, 1)]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2e4)
    assert scores.grad.tolist() == [1.0, -1.0]


def test_the_first_policy_loss_is_minus_the_advantages_and_its_ratio_one():
    logprobs, advantages = tensor([-1.0, -2.0, -0.5]), tensor([0.5, -1.0, 0.25])
    parts = policy_loss(logprobs, logprobs, advantages, clip_range=0.2)
    assert (float(parts.loss), float(parts.ratio), float(parts.approx_kl), int(parts.clipped)) == (0.25, 3.0, 0.0, 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped", "slope"),
    [
        (1.5, 2.0, -2.4, 1, 0.0),  # good and already much likelier: no reason to go on
        (1.5, -2.0, 3.0, 0, 3.0),  # bad and likelier: push back with all force
        (0.5, 2.0, -1.0, 0, -1.0),  # good and less likely: pull up with all force
        (0.5, -2.0, 1.6, 1, 0.0),  # bad and already much less likely: no reason to go on
        (1.1, 2.0, -2.2, 0, -2.2),  # within the range
    ],
)
def test_the_clipped_loss_in_each_of_its_regions(ratio, advantage, loss, clipped, slope):
    logprob = tensor([math.log(ratio)], requires_grad=True)
    parts = policy_loss(logprob, tensor([0.0]), tensor([advantage]), clip_range=0.2)
    parts.loss.backward()
    assert float(parts.loss.detach()) == pytest.approx(loss)
    assert int(parts.clipped) == clipped
    assert float(logprob.grad) == pytest.approx(slope)
    assert float(parts.ratio) == pytest.approx(ratio)
    assert float(parts.approx_kl) == pytest.approx(0.5 * math.log(ratio) ** 2)


def test_watched_figures_carry_no_gradient():
    logprobs = tensor([-1.0], requires_grad=True)
    parts = policy_loss(logprobs, tensor([-1.1]), tensor([1.0]), clip_range=0.2)
    assert [part.requires_grad for part in parts] == [True, False, False, False]


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "clipped", "slope"),
    [
        (0.5, 0.5, 1.0, 0.125, 0, -0.5),  # no change yet: half the squared error
        (0.9, 0.5, 1.0, 0.045, 1, 0.0),  # went too far towards the return: (0.7 - 1)^2 / 2, and no further
        (0.1, 0.5, 1.0, 0.405, 0, -0.9),  # went away from it: the true error counts
        (0.6, 0.5, 1.0, 0.08, 0, -0.4),  # within the range
    ],
)
def test_the_value_loss_takes_the_worse_of_clipped_and_unclipped(value, old, target, loss, clipped, slope):
    values = tensor([value], requires_grad=True)
    parts = value_loss(values, tensor([old]), tensor([target]), clip_range=0.2)
    parts.loss.backward()
    assert float(parts.loss.detach()) == pytest.approx(loss)
    assert int(parts.clipped) == clipped
    assert float(values.grad) == pytest.approx(slope)


def test_losses_are_sums_over_tokens():
    one = policy_loss(tensor([-1.0]), tensor([-1.1]), tensor([1.0]), 0.2)
    three = policy_loss(tensor([-1.0] * 3), tensor([-1.1] * 3), tensor([1.0] * 3), 0.2)
    assert [float(x) for x in three] == pytest.approx([3 * float(x) for x in one])
    assert float(value_loss(tensor([1.0] * 3), tensor([1.0] * 3), tensor([3.0] * 3), 0.2).loss) == 6.0


def test_explained_variance():
    returns = tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(returns + 7, returns) == 1.0  # a constant error is no variance
    assert explained_variance(torch.full((4,), 2.5), returns) == 0.0
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(4)) == 0.0  # nothing to explain


def test_dual_clip_bounds_a_bad_answer_that_became_likely():
    """Ye et al. 2020, equation 5: with A < 0 and a ratio of 8, the loss is 3 and not 8, and pulls no more."""
    new, old = tensor([math.log(8.0), math.log(8.0), 0.0], requires_grad=True), tensor([0.0, 0.0, 0.0])
    advantages = tensor([-1.0, 1.0, -1.0])
    parts = policy_loss(new, old, advantages, 0.2, dual_clip=3.0)
    assert float(parts.loss) == pytest.approx(3.0 - 1.2 + 1.0)
    parts.loss.backward()
    assert new.grad.tolist() == pytest.approx([0.0, 0.0, 1.0])
    assert int(parts.clipped) == 2
    assert float(policy_loss(new, old, advantages, 0.2).loss) == pytest.approx(8.0 - 1.2 + 1.0)


def test_a_value_loss_without_clipping_is_half_the_squared_error():
    parts = value_loss(tensor([1.0, 3.0]), tensor([0.0, 0.0]), tensor([0.0, 1.0]), None)
    assert float(parts.loss) == pytest.approx(0.5 * (1 + 4))
    assert int(parts.clipped) == 0


def test_entropy_of_a_fair_coin_and_of_what_cannot_be_said():
    logits = tensor([[0.0, 0.0], [5.0, 5.0]])
    assert entropy(logits).tolist() == pytest.approx([LOG2, LOG2])
    assert entropy(tensor([[0.0, 0.0, -math.inf]])).tolist() == pytest.approx([LOG2])
