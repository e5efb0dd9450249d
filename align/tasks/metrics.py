"""Metrics of generated answers: normalisation, exact match, F1, ROUGE-L, majority vote."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"-?(?:\d[\d,]*\.?\d*|\.\d+)")


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and extra spaces, as in SQuAD's evaluation (1606.05250).

    A text of nothing else, such as "+" or "a", is only lower-cased.
    """
    left = " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
    return left or text.strip().lower()


def number_of(text: str) -> str | None:
    """The first number in a text, normalised: "$1,234.50." is "1234.5". None if there is none.

    GSM8K's answers have thousands separators, and models add units, currency and a full stop.
    """
    found = _NUMBER.search(text.replace("−", "-").replace("$", ""))
    if found is None:
        return None
    try:
        value = Decimal(found[0].replace(",", "").rstrip("."))
    except InvalidOperation:
        return None
    written = format(value.normalize(), "f")
    return "0" if written in ("-0", "0") else written


def key_of(text: str, number: bool) -> str:
    """The normalised form by which two answers are compared."""
    return (number_of(text) if number else None) or normalised(text)


def exact(prediction: str, answers: Sequence[str], number: bool = False) -> float:
    """1 if the normalised answer is one of the right ones, else 0."""
    return float(key_of(prediction, number) in {key_of(answer, number) for answer in answers})


def f1(prediction: str, answers: Sequence[str]) -> float:
    """F1 of words with the closest right answer (SQuAD, 1606.05250)."""
    return max(_f1(normalised(prediction).split(), normalised(answer).split()) for answer in answers)


def _f1(prediction: list[str], answer: list[str]) -> float:
    n_common = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * n_common / (len(prediction) + len(answer)) if n_common else 0.0


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """ROUGE-L F-measure with the closest right answer (Lin 2004), without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return float(max(scorer.score(answer, prediction)["rougeL"].fmeasure for answer in answers))


def majority(predictions: Sequence[str | None], number: bool = False) -> int | None:
    """Index of the most frequent answer; of equal counts, the first. None without any answer.

    Self-consistency (Wang et al., 2203.11171): samples without an answer do not vote.
    """
    keys = [None if text is None else key_of(text, number) for text in predictions]
    votes = Counter(key for key in keys if key is not None)
    return keys.index(votes.most_common(1)[0][0]) if votes else None


MEASURES: dict[str, Callable[[str, Sequence[str]], float]] = {"f1": f1, "rouge_l": rouge_l}
