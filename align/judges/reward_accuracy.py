"""Accuracy of a reward model on held-out rankings, with annotators' agreement and the gold judge's for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from align import sections
from align.judges.scoring import READ_AT_ONCE
from align.stats.agreement import accuracy_by_prompt, annotators
from align.stats.bootstrap import bootstrap_mean

if TYPE_CHECKING:
    from align.evals.cache import Cache
    from align.judges.scores import CachedScorer
    from align.text.records import Ranking


def measure_accuracy(
    path: str, data: sections.Data, judge: CachedScorer | None, seed: int, cache: Cache
) -> dict[str, Any]:
    """The report's block `reward_model`. `data`: the held-out rankings."""
    from align.models.fingerprint import fingerprint
    from align.rewards.model import reader_of
    from align.text.load import load
    from align.text.rankings import ranked

    rankings = load(data, "rankings", seed).train
    prompts = [ranking.prompt for ranking in rankings for _ in ranking.responses]
    responses = [response for ranking in rankings for response in ranking.responses]
    encoded = reader_of(sections.Model(path=path)).encode(prompts, responses)
    rows, _ = ranked(encoded, rankings, data.max_tokens, "truncate")
    answers = [answer for row in rows for answer in row.answers]
    of = {"scores": fingerprint(sections.Model(path=path)), "rows": answers}
    scores = cache.rows(of, lambda: _scores(path, answers))
    accuracy = bootstrap_mean(accuracy_by_prompt(rows, scores), seed=seed)
    block: dict[str, Any] = {"accuracy": accuracy._asdict()}
    block |= {key: value for key, value in annotators(rows).items() if key == "annotator_agreement"}
    return block | ({} if judge is None else _against_judge(judge, rankings, rows, scores))


def _scores(path: str, rows: list[list[int]]) -> list[float]:
    from align.rewards.model import ModelReward
    from align.train.machine import accelerator

    members = ModelReward(path, None, accelerator("fp32").device, READ_AT_ONCE).score_tokens(rows)
    return [fmean(found) for found in zip(*members, strict=True)]


def _against_judge(
    judge: CachedScorer, rankings: Sequence[Ranking], rows: Sequence[Any], scores: Sequence[float]
) -> dict[str, float]:
    """Over pairs with different gold scores: how often annotators and the reward model agree with the judge."""
    texts = [(ranking.prompt, answer) for ranking in rankings for answer in ranking.responses]
    gold = judge.columns([prompt for prompt, _ in texts], [answer for _, answer in texts])[judge.column]
    if not np.isfinite(gold).all():
        return {}
    gold_of = {(prompt, answer): score for (prompt, answer), score in zip(texts, gold, strict=True)}
    truth = []
    for row in rows:
        values = [gold_of[row.prompt, answer] for answer in row.responses]
        truth.append(row._replace(ranks=tuple(1 + sum(other > value for other in values) for value in values)))
    as_scores = [-float(rank) for row in rows for rank in row.ranks]
    found = {
        "gold_agreement": accuracy_by_prompt(truth, as_scores, skip_ties=True),
        "accuracy_vs_gold": accuracy_by_prompt(truth, scores),
    }
    return {name: fmean(values) for name, values in found.items() if values}
