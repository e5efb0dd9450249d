"""The report's verdict in words: is each model better than the one it came from; reading of the reward model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

from align.report.fields import (
    MODELS,
    Report,
    block_at,
    gold_of,
    in_order,
    interval_of,
    label_of,
    mean_of,
    ordered,
    text_of,
)
from align.stats.bootstrap import Interval

MOST_APART = 2  # most models tuned from SFT with a clause each


class Claim(NamedTuple):
    """A clause of the verdict."""

    name: str
    other: str  # the model that it is compared with
    sign: int  # 1 better, -1 worse, 0 no difference
    text: str
    evidence: str
    difference: Interval | None = None
    by: str = ""  # the score of the difference


def verdict(report: Report) -> str:
    """One sentence: is each model better than the one it came from? '' without scores.

    Two models differ if the interval of their paired difference excludes 0; in a report without differences, if their
    gold intervals do not overlap; without gold scores, if the win rate's interval excludes 50%.
    """
    sentence = "; and ".join(f"{claim}: {evidence}" for claim, evidence in claims_of(ordered(report)))
    return sentence and sentence + "."


def reward_model_reading(report: Report) -> str:
    """How to read the reward model's accuracy, given the noise of its labels."""
    block = block_at(ordered(report), "reward_model")
    accuracy, agreement = interval_of(block.get("accuracy")), mean_of(block.get("annotator_agreement"))
    text = "The labels are annotators' choices, and annotators disagree, so an accuracy of 100% is impossible."
    if ceiling := text_of(block.get("gold_agreement"), "share"):
        text += f" Where the gold judge prefers one answer, annotators choose it {ceiling} of the time:"
        text += " this is about the upper limit."
    if accuracy and agreement is not None:
        how = (
            "better than"
            if accuracy.low > agreement
            else "worse than"
            if accuracy.high < agreement
            else "about as well as"
        )
        text += f" This reward model predicts a label {how} a second annotator would."
    return text


def claims_of(report: Report) -> list[tuple[str, str]]:
    """The verdict's clauses as (claim, evidence), the last model first.

    If more than two models were tuned from SFT, those with the same outcome share a clause.
    """
    names = list(block_at(report, "models"))
    found = [claim for name, other in reversed(_pairs(names)) if (claim := _compared(report, name, other))]
    tuned = [claim for claim in found if claim.other == "sft"]
    if len(tuned) > MOST_APART:
        found = [*_grouped(tuned[::-1]), *(claim for claim in found if claim.other != "sft")]
    claims = [(claim.text, claim.evidence) for claim in found]
    if claims and claims[0][0].startswith("between "):  # capitalise the first word, unless it is a model's name
        claims[0] = ("B" + claims[0][0][1:], claims[0][1])
    alone = [
        (label_of(name), f"gold score {text_of(gold, 'score')}") for name in names if (gold := gold_of(report, name))
    ]
    return claims or alone


def _grouped(claims: Sequence[Claim]) -> Iterator[Claim]:
    """One claim for all models with the same outcome against SFT, with the smallest and largest difference."""
    for sign, verb in ((1, "are better than"), (-1, "are worse than"), (0, "show no difference to")):
        same = [claim for claim in claims if claim.sign == sign]
        if len(same) < 2 or any(claim.difference is None for claim in same):
            yield from same
            continue
        names = [label_of(claim.name) for claim in same]
        ends = sorted(same, key=lambda claim: claim.difference or (0.0,))
        ends_text = [f"{text_of(claim.difference, 'score')} ({label_of(claim.name)})" for claim in (ends[0], ends[-1])]
        yield Claim(
            same[0].name,
            "sft",
            sign,
            f"{', '.join(names[:-1])} and {names[-1]} {verb} {label_of('sft')}",
            f"differences in {same[0].by} from {ends_text[0]} to {ends_text[1]}",
        )


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each model with the one it came from: SFT for models tuned from it, else the previous model."""
    tuned = _tuned(names)
    return [(name, "sft" if name in tuned else before) for before, name in pairwise(names)]


def _tuned(names: Sequence[str]) -> list[str]:
    """The models tuned from SFT."""
    return [name for name in names if name not in ("base", "sft")] if "sft" in names else []


def came_from(names: Iterable[str]) -> dict[str, str]:
    """The model that each model came from; the first has none."""
    return dict(_pairs(list(in_order(dict.fromkeys(names, 0), MODELS))))


def compared_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs with win rates in a report: each model with the one it came from, then all pairs of tuned models."""
    order = list(in_order(dict.fromkeys(names, 0), MODELS))
    tuned = _tuned(order)
    return _pairs(order) + [(later, earlier) for earlier, later in combinations(tuned, 2)]


def all_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every pair of models once, in the order of `compared_pairs`, the later model first."""
    order = list(in_order(dict.fromkeys(names, 0), MODELS))
    known = compared_pairs(order)
    rest = [(later, earlier) for earlier, later in combinations(order, 2)]
    return [*known, *(pair for pair in rest if pair not in known and pair[::-1] not in known)]


def _compared(report: Report, name: str, other: str) -> Claim | None:
    key, by = f"{name}_over_{other}", str(report.get("compared_by") or "gold")
    a, b = (block_at(report, "models", model).get(by) for model in (name, other))
    difference = interval_of(block_at(report, "differences").get(key))
    rate = interval_of(block_at(report, "win_rates").get(key))
    side = 0 if rate is None else (rate.low > 0.5) - (rate.high < 0.5)
    wins = f"{label_of(name)} wins {text_of(rate, 'share')} of the prompts"
    scale = "gold score" if by == "gold" else by
    if difference:
        sign = (difference.low > 0) - (difference.high < 0)
        evidence = f"{scale} {text_of(mean_of(a), 'score')} against {text_of(mean_of(b), 'score')}, "
        evidence += f"a difference of {text_of(difference, 'score')}"
    elif (mine := interval_of(a)) and (others := interval_of(b)):
        sign = (mine.low > others.high) - (mine.high < others.low)
        evidence = f"{scale} {text_of(a, 'score')} against {text_of(b, 'score')}"
    elif rate:
        sign, evidence = side, wins
    else:
        return None
    pair = label_of(name), label_of(other)
    if sign == 0:
        evidence += f", though {wins}" if side else ""
        return Claim(
            name, other, 0, f"between {pair[0]} and {pair[1]} no difference that these prompts can show", evidence,
            difference, scale,
        )  # fmt: skip
    if by == "reward":  # tuning raised this score, whether or not answers became better
        text = f"{pair[0]} scores {'higher' if sign > 0 else 'lower'} than {pair[1]} by the reward model"
    else:
        text = f"{pair[0]} is {'better' if sign > 0 else 'worse'} than {pair[1]}"
    evidence += _over_optimised(report, name, other) if sign < 0 else ""
    return Claim(name, other, sign, text, evidence, difference, scale)


def _over_optimised(report: Report, name: str, other: str) -> str:
    now, before = (mean_of(block_at(report, "models", model).get("reward")) for model in (name, other))
    if now is None or before is None or now <= before:
        return ""
    return (
        f", although its reward rose from {text_of(before, 'score')} to {text_of(now, 'score')}: it is over-optimised"
    )
