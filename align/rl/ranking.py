"""The reward model's loss on a batch of rankings: its recipe keys, tokenised rankings, pairs, loss and margins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section
from align.errors import UserError
from align.text.rankings import Ranked, encode_rankings
from align.text.records import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from align.rl.losses import Pairs


class Loss(Section):
    """The loss of a pair of answers. The defaults are InstructGPT's loss."""

    ties: Literal["drop", "half"] = "drop"
    """drop ignores pairs of equal rank (InstructGPT, appendix C.2); half pulls their scores together: target 0.5."""
    margin: Literal["none", "given", "ranks"] = "none"
    """Required difference of a pair's scores (Llama 2, 2307.09288, equation 2): given reads each row's margin (for K
    answers, between best and worst; closer ranks get less), ranks uses 1. InstructGPT: none."""
    margin_scale: float = Field(1.0, gt=0)
    """Factor of every margin (Llama 2, table 27: 1 for its small margins, 3 for its large ones)."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Probability that a label is wrong (cDPO, Mitchell 2023). InstructGPT: 0."""
    centering: float = Field(0.0, ge=0)
    """Weight of the squared sum of a pair's scores, to keep scores near 0 (Eisenstein et al., 2312.09244; TRL advises
    0.01). InstructGPT: 0."""
    annotator_weights: dict[str, float] = Field(default_factory=dict)
    """Weight of each annotator's rankings in the loss, as {ann: 0.5}; 1 for all others (InstructGPT)."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        if self.margin == "none" and self.margin_scale != 1:
            raise ValueError(
                f"loss.margin_scale = {self.margin_scale} has no effect with margin: none; choose a margin"
            )
        if wrong := {name: weight for name, weight in self.annotator_weights.items() if weight < 0}:
            raise ValueError(f"loss.annotator_weights: a weight is at least 0, found {wrong}")
        return self


def check_loss(loss: Loss, rankings: list[Ranking]) -> None:
    """Raise `UserError` for a key of the loss that these rankings have no data for."""
    from align.train.parallel import say

    named = sorted({ranking.annotator for ranking in rankings if ranking.annotator})
    if unknown := [name for name in loss.annotator_weights if name not in named]:
        found = f"the annotators are {', '.join(named[:20])}" if named else "no ranking has a column annotator"
        raise UserError(f"loss.annotator_weights: no ranking is by annotator {unknown[0]!r}; {found}")
    if not any(loss.annotator_weights.get(ranking.annotator, 1.0) for ranking in rankings):
        raise UserError("loss.annotator_weights: every ranking has weight 0: nothing to learn from; raise one")
    n_given = sum(ranking.margin is not None for ranking in rankings)
    if loss.margin == "given" and not n_given:
        raise UserError("loss.margin = given: no ranking has a column margin; add it, or choose ranks or none")
    if loss.margin == "given" and n_given < len(rankings):
        say(f"{len(rankings) - n_given} of {len(rankings)} rankings have no margin; their margin is 0")


def encoded(tokenizer: Any, rankings: list[Ranking], data: sections.Data, keep_tied: bool = False) -> list[Ranked]:
    """Rankings as tokens; the log lists what is left out or cut. Raises `UserError` if none is left."""
    from align.train.parallel import say

    rows, counts = encode_rankings(tokenizer, rankings, data.max_tokens, data.too_long, keep_tied)
    say(*(f"{count} of {len(rankings)} rankings {reason}" for reason, count in counts.items() if count))
    if rankings and not rows:
        longer, tied, same = counts.values()
        why = [f"{tied} are all tied and prefer no answer"] if tied else []
        why += [f"{same} have answers with the same tokens"] if same else []
        why += [f"{longer} are too long; raise data.max_tokens = {data.max_tokens}"] if longer else []
        raise UserError(f"data.path: none of {len(rankings)} rankings is left: {', '.join(why)}")
    return rows


def objective(loss: Loss, seed: int, scores: Tensor, rows: Sequence[Ranked]) -> Tensor:
    """The summed loss of these prompts. scores: (n_answers,), or (n_answers, heads) for the mean over an ensemble.

    Each ensemble member weights each prompt by its own bootstrap draw, so that members learn from different data.
    """
    from align.rl.losses import bootstrap_draw, ranking_loss

    def of(member: Tensor, draws: list[int] | None) -> Tensor:
        return ranking_loss(member, pairs_in(loss, rows, draws), loss.label_smoothing, loss.centering)

    if scores.dim() == 1:
        return of(scores, None)
    draws = [[bootstrap_draw(seed, row.text, member) for row in rows] for member in range(scores.shape[1])]
    losses = [of(scores[:, member], drawn) for member, drawn in enumerate(draws)]
    return sum(losses[1:], losses[0]) / len(losses)


def pairs_in(loss: Loss, rows: Sequence[Ranked], draws: list[int] | None = None) -> Pairs:
    """The pairs of some rankings under the recipe's loss. `draws`: how often each ranking was drawn."""
    from align.rl.losses import pairs_of

    weights = [loss.annotator_weights.get(row.annotator, 1.0) for row in rows]
    if draws is not None:
        weights = [weight * drawn for weight, drawn in zip(weights, draws, strict=True)]
    given = {"none": lambda row: 0.0, "ranks": lambda row: 1.0, "given": lambda row: row.margin or 0.0}[loss.margin]
    margins = [loss.margin_scale * given(row) for row in rows]
    return pairs_of([row.ranks for row in rows], loss.ties, margins, weights)


def margins_of(loss: Loss, scores: Tensor, rows: Sequence[Ranked]) -> Tensor:
    """Score of the better answer minus that of the worse, for each pair without a tie. scores: as in `objective`."""
    pairs = pairs_in(loss, rows).decided()
    scores = scores if scores.dim() == 1 else scores.mean(1)
    return scores[pairs.better] - scores[pairs.worse]
