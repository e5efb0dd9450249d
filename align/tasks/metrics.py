"""Whether an answer in words is right, and how far it is from one that is."""

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
    """Lower case, without punctuation, articles and more than single spaces, as SQuAD's evaluation (1606.05250) does.

    A text that has nothing else, such as "+" or "a", stays as it is.
    """
    left = " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
    return left or text.strip().lower()


def number_of(text: str) -> str | None:
    """The first number in a text in one way of writing: "$1,234.50." is "1234.5". None if there is none.

    GSM8K's answers are numbers with thousands' commas, and models add units, currency and a full stop.
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
    """What two answers have in common that say the same."""
    return (number_of(text) if number else None) or normalised(text)


def exact(said: str, answers: Sequence[str], number: bool = False) -> float:
    """1 if the answer is one of the right ones after normalisation, else 0."""
    return float(key_of(said, number) in {key_of(answer, number) for answer in answers})


def f1(said: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over the words of the closest right answer (SQuAD, 1606.05250)."""
    return max(_f1(normalised(said).split(), normalised(answer).split()) for answer in answers)


def _f1(said: list[str], answer: list[str]) -> float:
    n_common = sum((Counter(said) & Counter(answer)).values())
    return 2 * n_common / (len(said) + len(answer)) if n_common else 0.0


def rouge_l(said: str, answers: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of words with the closest right answer (Lin 2004), no stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return float(max(scorer.score(answer, said)["rougeL"].fmeasure for answer in answers))


def majority(said: Sequence[str | None], number: bool = False) -> int | None:
    """Index of an answer that most samples agree on; of as many votes, the one that was said first. None if none.

    Self-consistency (Wang et al., 2203.11171): the samples that give no answer have no vote.
    """
    keys = [None if text is None else key_of(text, number) for text in said]
    votes = Counter(key for key in keys if key is not None)
    return keys.index(votes.most_common(1)[0][0]) if votes else None


MEASURES: dict[str, Callable[[str, Sequence[str]], float]] = {"f1": f1, "rouge_l": rouge_l}
