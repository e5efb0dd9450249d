"""Reward model card: accuracy, calibration, length bias and score distribution on held-out rankings.

`reward_card` returns one dict of plain numbers, written as card.json; `card_text` formats it for the run's README.md;
`draw` makes reliability.png. Intervals are {mean, low, high} at 95%, by bootstrap over prompts.

    n_prompts, n_rankings, n_pairs    size of the held-out data; ties are not pairs
    accuracy                          share of pairs that the scores order as the annotators did, averaged over prompts
    by_source.<name>                  {accuracy, n_prompts}: by the column `source`, else by file
    by_annotator.<name>               the same by annotator, if named
    by_rank_distance.<d>              {accuracy, n_pairs}: for answers d ranks apart
    calibration                       {ece, n_bins, bins}: is the model right on 80% of pairs with confidence 80%?
    length                            correlation of score and length; preferences for the longer answer
    scores                            distribution of scores, and mean by rank
    annotator_agreement, accuracy_bound    annotators' agreement, and the accuracy that it allows: align.stats.agreement
    ensemble                          {n, accuracy, spread, ...}: of an ensemble: its members
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.config import Section
from align.stats.agreement import annotators, decided_pairs, rightness, with_scores
from align.stats.bootstrap import bootstrap_mean
from align.stats.calibration import draw_reliability, reliability
from align.text.rankings import Ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Card = dict[str, Any]

LEAST_SURE = 0.5  # lowest confidence: it is that of the higher-scored of two answers
MAX_ROWS = 20  # of a table in README.md; card.json has all
QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


class Pair(NamedTuple):
    """One comparison by an annotator, with the model's scores."""

    prompt: Hashable
    source: str
    annotator: str
    distance: int  # in rank
    right: float  # 1, 0, or 0.5 for equal scores
    logit: float  # score of the better minus that of the worse, before scaling
    longer: int  # 1 if the better answer has more tokens, -1 if fewer, 0 if equal


def reward_card(rows: Sequence[Ranked], members: ArrayLike, scales: Sequence[float]) -> Card:
    """The card of a reward model. Empty without held-out pairs.

    Args:
        rows: held-out rankings.
        members: (n_answers, heads), scores of all answers of all rows.
        scales: divisor of each member's scores after training: its probability is sigmoid(scale x difference).
    """
    if not rows:
        return {}
    every = np.asarray(members, dtype=np.float64)
    every = every.reshape(len(every), -1)  # (n_answers, heads)
    scores = every.mean(1)
    pairs = _pairs(rows, scores, (every * np.asarray(scales)).mean(1))
    if not pairs:
        return {}
    card: Card = {"n_prompts": len({row.key for row in rows}), "n_rankings": len(rows), "n_pairs": len(pairs)}
    card["accuracy"] = _accuracy(pairs)
    card["by_source"] = _by(pairs, lambda pair: pair.source, "n_prompts")
    if any(pair.annotator for pair in pairs):
        card["by_annotator"] = _by(pairs, lambda pair: pair.annotator or "(not named)", "n_prompts")
    card["by_rank_distance"] = _by(pairs, lambda pair: pair.distance, "n_pairs")
    card["calibration"] = reliability(*_confidence(pairs), low=LEAST_SURE)
    card["length"] = _length(rows, scores, pairs)
    card["scores"] = _distribution(rows, scores)
    card |= annotators(rows)
    if every.shape[1] > 1:
        card["ensemble"] = _ensemble(rows, every)
    return card


def correlation(x: ArrayLike, y: ArrayLike) -> float | None:
    """Pearson's correlation. None if one of them is constant."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 1e-12 else None


def _pairs(rows: Sequence[Ranked], scores: NDArray[np.float64], logits: NDArray[np.float64]) -> list[Pair]:
    pairs = []
    for (row, mine), (_, claims) in zip(with_scores(rows, scores), with_scores(rows, logits), strict=True):
        for i, j in decided_pairs(row):
            longer = int(np.sign(len(row.answers[i]) - len(row.answers[j])))
            right, logit = rightness(float(mine[i]), float(mine[j])), float(claims[i] - claims[j])
            distance = row.ranks[j] - row.ranks[i]
            pairs.append(Pair(row.key, row.origin, row.annotator, distance, right, logit, longer))
    return pairs


def _accuracy(pairs: Iterable[Pair]) -> dict[str, float]:
    """Accuracy with its interval: mean over prompts, which are resampled."""
    found: dict[Hashable, list[float]] = {}
    for pair in pairs:
        found.setdefault(pair.prompt, []).append(pair.right)
    return bootstrap_mean([sum(values) / len(values) for values in found.values()])._asdict()


def _by(pairs: Sequence[Pair], key: Callable[[Pair], Any], count: str) -> dict[str, Any]:
    """Accuracy of each group of pairs, and its number of prompts or pairs."""
    groups: dict[Any, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(key(pair), []).append(pair)
    return {
        str(name): {
            "accuracy": _accuracy(groups[name]),
            count: len(groups[name]) if count == "n_pairs" else len({pair.prompt for pair in groups[name]}),
        }
        for name in sorted(groups)
    }


def _confidence(pairs: Sequence[Pair]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confidence in the preferred answer, in [0.5, 1], and whether annotators prefer it too."""
    logits = np.array([pair.logit for pair in pairs])
    right = np.where(logits > 0, 1.0, np.where(logits < 0, 0.0, 0.5))
    return 1 / (1 + np.exp(-np.abs(logits))), right


def _length(rows: Sequence[Ranked], scores: NDArray[np.float64], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Correlation of score and number of tokens, over all answers and within prompts."""
    lengths = np.array([len(answer) - row.n_prompt for row in rows for answer in row.answers], dtype=np.float64)
    within = [[values - np.mean(values) for _, values in with_scores(rows, column)] for column in (scores, lengths)]
    longer = [pair for pair in pairs if pair.longer]
    scored = [pair.right if pair.longer > 0 else 1 - pair.right for pair in longer]
    return {
        "correlation": correlation(scores, lengths),
        "correlation_within_prompt": correlation(*(np.concatenate(parts) for parts in within)),
        "longer_preferred_by_annotators": _mean([float(pair.longer > 0) for pair in longer]),
        "longer_scored_higher": _mean(scored),
        "mean_tokens": float(lengths.mean()),
    }


def _distribution(rows: Sequence[Ranked], scores: NDArray[np.float64]) -> dict[str, Any]:
    ranks = np.array([rank for row in rows for rank in row.ranks])
    spread: dict[str, Any] = {"mean": float(scores.mean()), "std": float(scores.std())}
    spread |= {name: float(np.quantile(scores, share)) for name, share in QUANTILES.items()}
    return spread | {"mean_by_rank": {str(rank): float(scores[ranks == rank].mean()) for rank in np.unique(ranks)}}


def _ensemble(rows: Sequence[Ranked], every: NDArray[np.float64]) -> dict[str, Any]:
    """Each member's accuracy, the spread of members' scores, and accuracy where all members agree."""
    alone = [_accuracy(_pairs(rows, member, member))["mean"] for member in every.T]
    sides = [np.array([pair.right for pair in _pairs(rows, member, member)]) for member in every.T]
    votes = np.mean(sides, axis=0)  # share of members that agree with the annotator, per pair
    of_one_mind = (votes == 0) | (votes == 1)
    return {
        "n": int(every.shape[1]),
        "accuracy": alone,
        "spread": float(every.std(1).mean()),
        "of_one_mind": float(of_one_mind.mean()),
        "accuracy_where_of_one_mind": _mean(votes[of_one_mind].tolist()),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# -- output --------------------------------------------------------------------------------------------------


def write_reward_card(folder: Path, card: Card, members: ArrayLike, rows: Sequence[Ranked]) -> None:
    """Write card.json and, with held-out pairs, reliability.png."""
    (folder / "card.json").write_text(json.dumps(card, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if "accuracy" in card:
        every = np.asarray(members, dtype=np.float64)
        draw(card, rows, every.reshape(len(every), -1).mean(1), folder / "reliability.png")


def write_readme(
    folder: Path, recipe: Section, figures: dict[str, float], card: Card, note: str, reach: list[str]
) -> None:
    """Write the run's README.md: figures, card, trained parameters, loading, recipe.

    `note`: remarks on loading; `reach`: lines of `align.models.lora.Shares`.
    """
    from align.models.save import write_card

    loading = [
        "## Loading",
        "",
        "PPO takes it as `reward.path`. In transformers, for a conversation through the tokenizer's chat template, "
        "ending in EOS:",
        "",
        "```python",
        'model = AutoModelForSequenceClassification.from_pretrained("model")',
        "score = model(input_ids).logits[:, 0]",
        "```",
        "",
        note or "Its scores are those of `score_head.safetensors`, shift and scale included.",
        "",
    ]
    write_card(folder, "rm", recipe, figures, more="\n".join([card_text(card), *reach, "", *loading]))


def card_text(card: Card) -> str:
    """The card as Markdown."""
    if "accuracy" not in card:
        return "## How good it is\n\nNot known: no ranking was held out (`data.validation`).\n"
    accuracy, noise = _shown(card["accuracy"]), card.get("annotator_agreement")
    lines = ["## How good it is", ""]
    lines += [f"On {card['n_pairs']} held-out pairs of {card['n_prompts']} prompts; 95% intervals, by prompt.", ""]
    lines += [f"**Accuracy {accuracy}**: how often it orders a pair as its annotators did; 50% is a coin's toss. "]
    if noise is None:
        lines[-1] += "Nobody ranked an answer twice, so what the annotators' noise allows is not known."
    else:
        lines[-1] += (
            f"Two annotators agree on {noise:.1%} of pairs, and no model can agree with them on more than about "
            f"{card['accuracy_bound']:.1%} (less, where pairs are not all as hard)."
        )
    lines += ["", *_table("source", card["by_source"], "n_prompts"), ""]
    if "by_annotator" in card:
        lines += [*_table("annotator", card["by_annotator"], "n_prompts"), ""]
    lines += [*_table("ranks apart", card["by_rank_distance"], "n_pairs"), ""]
    lines += [*_calibration_lines(card["calibration"]), "", *_length_lines(card["length"]), "", *_score_lines(card)]
    return "\n".join(lines) + "\n"


def _calibration_lines(found: dict[str, Any]) -> list[str]:
    return [
        f"**Calibration**: expected calibration error {found['ece']:.3f} ({found['n_bins']} bins of the confidence "
        "sigmoid(difference) in the answer that scores higher).",
        "",
        "![reliability, scores, accuracy by distance](reliability.png)",
    ]


def _length_lines(found: dict[str, Any]) -> list[str]:
    def share(value: float | None) -> str:
        return "not known" if value is None else f"{value:.1%}"

    def number(value: float | None) -> str:
        return "not known" if value is None else f"{value:+.2f}"

    return [
        f"**Length**: correlation of score and tokens {number(found['correlation'])} over all answers, "
        f"{number(found['correlation_within_prompt'])} between answers to one prompt. Of two answers annotators prefer "
        f"the longer in {share(found['longer_preferred_by_annotators'])} of pairs, the model in "
        f"{share(found['longer_scored_higher'])}. A model that prefers it far more often than they do is led by length."
    ]


def _score_lines(card: Card) -> list[str]:
    scores = card["scores"]
    by_rank = ", ".join(f"{rank}: {mean:+.2f}" for rank, mean in scores["mean_by_rank"].items())
    lines = [
        f"**Scores** of held-out answers: mean {scores['mean']:+.2f}, standard deviation {scores['std']:.2f}, "
        f"{scores['p5']:+.2f} to {scores['p95']:+.2f} for the middle 90%. Mean by rank: {by_rank}."
    ]
    if "ensemble" in card:
        found = card["ensemble"]
        alone = ", ".join(f"{share:.1%}" for share in found["accuracy"])
        sure = found["accuracy_where_of_one_mind"]
        lines += [
            "",
            f"**Ensemble** of {found['n']} heads: alone they reach {alone}; their scores of an answer lie "
            f"{found['spread']:.2f} apart (standard deviation). On {found['of_one_mind']:.1%} of pairs they are of one "
            f"mind" + ("." if sure is None else f", and right there in {sure:.1%}."),
        ]
    return lines


def _table(heading: str, groups: dict[str, Any], count: str) -> list[str]:
    counted = "prompts" if count == "n_prompts" else "pairs"
    rows = [f"| {name} | {_shown(group['accuracy'])} | {group[count]} |" for name, group in groups.items()]
    rows[MAX_ROWS:] = [f"| and {len(rows) - MAX_ROWS} more in card.json | | |"] if len(rows) > MAX_ROWS else []
    return [f"| {heading} | accuracy | {counted} |", "|---|---|---|", *rows]


def _shown(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"


def draw(card: Card, rows: Sequence[Ranked], scores: NDArray[np.float64], path: Path) -> None:
    """Three panels: is its confidence right, how the scores of best and other answers lie, accuracy by distance."""
    import matplotlib
    from matplotlib.figure import Figure

    from align.plots import STYLE

    settings: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with matplotlib.rc_context(settings | STYLE):
        figure = Figure(figsize=(12.6, 3.6), layout="constrained", facecolor="white")
        confidences, distribution, distances = figure.subplots(1, 3)
        confidences.set(title="Reliability", xlabel="confidence", ylabel="share that is right")
        draw_reliability(confidences, {"reward model": card["calibration"]}, LEAST_SURE)
        _draw_scores(distribution, rows, scores)
        _draw_distances(distances, card)
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _draw_scores(axes: Axes, rows: Sequence[Ranked], scores: NDArray[np.float64]) -> None:
    axes.set(title="Scores", xlabel="score", ylabel="answers")
    is_best = np.array([rank == min(row.ranks) for row in rows for rank in row.ranks])
    edges = np.histogram_bin_edges(scores, bins=30).tolist()
    axes.hist(scores[~is_best], edges, color="#d9722e", alpha=0.6, label="others")
    axes.hist(scores[is_best], edges, color="#2f6fb0", alpha=0.6, label="best of its ranking")
    axes.legend()


def _draw_distances(axes: Axes, card: Card) -> None:
    axes.set(title="Accuracy by distance", xlabel="ranks apart", ylabel="share that is right", ylim=(0, 1.02))
    groups = card["by_rank_distance"]
    means = [group["accuracy"]["mean"] for group in groups.values()]
    low = [group["accuracy"]["mean"] - group["accuracy"]["low"] for group in groups.values()]
    high = [group["accuracy"]["high"] - group["accuracy"]["mean"] for group in groups.values()]
    axes.errorbar(list(groups), means, yerr=[low, high], fmt="o-", color="#1f4e79", capsize=3)
    axes.axhline(0.5, color="#8b929c", linestyle="--", linewidth=1.2)
