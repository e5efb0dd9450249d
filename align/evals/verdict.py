"""What a report says in words: is each model better than the one it came from, and how good is the reward model?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

from align.evals.contents import (
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


def verdict(report: Report) -> str:
    """One sentence: is each model better than the one it came from? '' if nothing was scored.

    Two models differ if their gold intervals do not touch; without gold scores, if the win rate's interval leaves 50%.
    """
    sentence = "; and ".join(f"{claim}: {evidence}" for claim, evidence in claims_of(ordered(report)))
    return sentence and sentence + "."


def reward_model_reading(report: Report) -> str:
    """How to read the reward model's accuracy: beside what its noisy labels allow."""
    block = block_at(ordered(report), "reward_model")
    accuracy, agreement = interval_of(block.get("accuracy")), mean_of(block.get("annotator_agreement"))
    text = "The labels are annotators' choices, and annotators disagree: an accuracy of 100% is out of reach."
    if ceiling := text_of(block.get("gold_agreement"), "share"):
        text += f" Where the gold judge prefers one answer, annotators choose it {ceiling} of the time:"
        text += " that is about the ceiling."
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
    """The verdict's clauses, the last model's first: what is claimed, and the numbers that it rests on."""
    names = list(block_at(report, "models"))
    claims = [claim for name, other in reversed(_pairs(names)) if (claim := _compared(report, name, other))]
    if claims and claims[0][0].startswith("between "):  # a sentence's first word; a model's name is left as it is
        claims[0] = ("B" + claims[0][0][1:], claims[0][1])
    alone = [
        (label_of(name), f"gold score {text_of(gold, 'score')}") for name in names if (gold := gold_of(report, name))
    ]
    return claims or alone


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each model with the one it came from: SFT for whatever was tuned from it, else the one before."""
    tuned = _tuned(names)
    return [(name, "sft" if name in tuned else before) for before, name in pairwise(names)]


def _tuned(names: Sequence[str]) -> list[str]:
    """The models that came from SFT."""
    return [name for name in names if name not in ("base", "sft")] if "sft" in names else []


def compared_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """(model, other) that a report has win rates of: each with the one it came from, then the tuned ones in pairs."""
    order = list(in_order(dict.fromkeys(names, 0), MODELS))
    tuned = _tuned(order)
    return _pairs(order) + [(later, earlier) for earlier, later in combinations(tuned, 2)]


def _compared(report: Report, name: str, other: str) -> tuple[str, str] | None:
    a, b = gold_of(report, name), gold_of(report, other)
    rate = interval_of(block_at(report, "win_rates").get(f"{name}_over_{other}"))
    side = 0 if rate is None else (rate.low > 0.5) - (rate.high < 0.5)
    wins = f"{label_of(name)} wins {text_of(rate, 'share')} of the prompts"
    if a and b:
        sign = (a.low > b.high) - (a.high < b.low)
        evidence = f"gold score {text_of(a, 'score')} against {text_of(b, 'score')}"
    elif rate:
        sign, evidence = side, wins
    else:
        return None
    if sign == 0:
        # The intervals of two means ignore that the prompts were the same; the paired win rate can see more.
        evidence += f", though {wins}" if side else ""
        return f"between {label_of(name)} and {label_of(other)} no difference that these prompts can show", evidence
    evidence += _over_optimised(report, name, other) if sign < 0 else ""
    return f"{label_of(name)} is {'better' if sign > 0 else 'worse'} than {label_of(other)}", evidence


def _over_optimised(report: Report, name: str, other: str) -> str:
    now, before = (mean_of(block_at(report, "models", model).get("reward")) for model in (name, other))
    if now is None or before is None or now <= before:
        return ""
    return (
        f", although its reward rose from {text_of(before, 'score')} to {text_of(now, 'score')}: it is over-optimised"
    )
