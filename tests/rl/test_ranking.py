"""What a recipe's loss section makes of rankings."""

import pytest
import torch
from torch import tensor

from align import sections
from align.config import build
from align.errors import UserError
from align.rl.losses import bootstrap_draw, pairs_of, ranking_loss
from align.rl.ranking import Loss, check_loss, encoded, margins_of, objective, pairs_in
from align.text.rankings import Ranked
from align.text.records import Message, Ranking


def ranked(ranks: tuple[int, ...], name: str = "a", annotator: str = "", margin: float | None = None) -> Ranked:
    responses = tuple(f"{name}{i}" for i in range(len(ranks)))
    return Ranked([[1, 2]] * len(ranks), ranks, (Message("user", name),), responses, annotator, "", margin)


def test_the_default_is_the_published_loss():
    rows = [ranked((1, 2, 2)), ranked((2, 1))]
    assert pairs_in(Loss(), rows) == pairs_of([(1, 2, 2), (2, 1)])
    scores = tensor([1.0, 0.0, 0.5, 0.0, 2.0])
    assert torch.equal(objective(Loss(), 1, scores, rows), ranking_loss(scores, pairs_of([(1, 2, 2), (2, 1)])))


def test_margins_are_given_or_by_rank():
    rows = [ranked((1, 2), margin=0.5), ranked((1, 2)), ranked((1, 3, 2), margin=2.0)]
    given = pairs_in(Loss(margin="given", margin_scale=3.0), rows)
    assert given.margin == pytest.approx([1.5, 0.0, 6.0, 3.0, 3.0])
    by_rank = pairs_in(Loss(margin="ranks"), rows)
    assert by_rank.margin == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.5])
    assert set(pairs_in(Loss(), rows).margin) == {0.0}


def test_annotators_who_are_not_named_weigh_one():
    rows = [ranked((1, 2), annotator="ann"), ranked((1, 2), annotator="bob"), ranked((1, 2))]
    assert pairs_in(Loss(annotator_weights={"ann": 0.25}), rows).weight == [0.25, 1.0, 1.0]


def test_members_of_an_ensemble_learn_from_their_own_draws():
    rows = [ranked((1, 2), f"prompt {i}") for i in range(6)]
    scores = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    by_hand = []
    for member in range(3):
        draws = [bootstrap_draw(7, row.text, member) for row in rows]
        by_hand.append(ranking_loss(scores[:, member], pairs_of([row.ranks for row in rows], weights=draws)))
    assert float(objective(Loss(), 7, scores, rows)) == pytest.approx(float(sum(by_hand)) / 3)
    assert len({round(float(loss), 6) for loss in by_hand}) == 3


def test_margins_of_scores_are_the_members_mean_over_pairs_that_are_no_tie():
    rows = [ranked((1, 1, 2))]
    scores = tensor([[2.0, 4.0], [1.0, 1.0], [0.0, 1.0]])
    assert margins_of(Loss(ties="half"), scores, rows).tolist() == [2.5, 0.5]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"margin_scale": 2.0}, "loss.margin_scale = 2.0 has no effect with margin: none"),
        ({"annotator_weights": {"ann": -1.0}}, "a weight is at least 0, found {'ann': -1.0}"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"ties": "keep"}, "ties"),
    ],
)
def test_what_a_loss_cannot_be(given, told):
    with pytest.raises(UserError, match=r"1 problem") as error:
        build(Loss, given, "recipe")
    assert told in str(error.value)


def test_a_loss_that_finds_nothing_to_work_on_is_refused(capsys):
    prompt = (Message("user", "say red"),)
    rankings = [Ranking(prompt, ("a", "b"), (1, 2), "ann"), Ranking(prompt, ("a", "b"), (1, 2), "bob")]
    with pytest.raises(UserError, match=r"no ranking is by annotator 'eve'; the annotators are ann, bob"):
        check_loss(Loss(annotator_weights={"eve": 0.5}), rankings)
    with pytest.raises(UserError, match="no ranking has a column annotator"):
        check_loss(Loss(annotator_weights={"eve": 0.5}), [Ranking(prompt, ("a", "b"), (1, 2))])
    with pytest.raises(UserError, match="every ranking has weight 0"):
        check_loss(Loss(annotator_weights={"ann": 0.0, "bob": 0.0}), rankings)
    with pytest.raises(UserError, match="no ranking has a column margin; add it, or choose ranks or none"):
        check_loss(Loss(margin="given"), rankings)
    check_loss(Loss(margin="given"), [*rankings, rankings[0]._replace(margin=1.0)])
    assert "2 of 3 rankings have no margin; their margin is 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answers", "ranks", "told"),
    [
        (["red", "blue"], [1, 1], r"none of 3 rankings is left: 3 are all tied and prefer no answer$"),
        (["red " * 80, "blue"], [1, 2], r"none of 3 rankings is left: 3 are too long; raise data\.max_tokens = 48$"),
    ],
)
def test_why_no_ranking_is_left(answers, ranks, told, world, tokenizer):
    data = sections.Data(path=world.rankings, max_tokens=48, too_long="drop")
    rows = [Ranking(prompt=(Message("user", "say"),), responses=tuple(answers), ranks=tuple(ranks))] * 3
    with pytest.raises(UserError, match=told):
        encoded(tokenizer, rows, data)
