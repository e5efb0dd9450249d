"""Self-BLEU: BLEU-4 of each text against all others, in time linear in the words.

A library counts the n-grams of all references for each text: for 1,000 answers, a million times. Here each n-gram's
largest count in any text is found once, and the second largest in another text: for the text with the largest count,
the maximum over the others is the second.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

MAX_RUN = 4  # words: BLEU-4
FLOOR = 0.1  # count for an n-gram length without matches, if another length has some

Run = tuple[str, ...]


class Most(NamedTuple):
    """An n-gram's largest count in a text, that text, and the largest count in any other."""

    here: int
    text: int
    second: int


def self_bleu(texts: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-4 (Papineni et al. 2002) of each text against the others, 0 to 1. [] for fewer than two texts.

    Equals sacrebleu's sentence_bleu(smooth_method="floor"): 0.1 is counted for an n-gram length without matches;
    lengths longer than the text are ignored; the reference of the nearest length (of two, the shorter) decides brevity.
    """
    if len(texts) < 2:
        return []
    runs = [counted(words) for words in texts]
    most = largest(runs)
    by_length = sorted(len(words) for words in texts)
    return [bleu(index, len(words), runs[index], most, by_length) for index, words in enumerate(texts)]


def counted(words: Sequence[str]) -> Counter[Run]:
    """Counts of all n-grams of one to four words."""
    sizes = range(1, MAX_RUN + 1)
    return Counter(run for size in sizes for run in zip(*(words[start:] for start in range(size)), strict=False))


def largest(runs: Sequence[Counter[Run]]) -> dict[Run, Most]:
    """The largest counts of every n-gram."""
    most: dict[Run, Most] = {}
    for index, counts in enumerate(runs):
        for run, count in counts.items():
            before = most.get(run, Most(0, -1, 0))
            if count > before.here:
                most[run] = Most(count, index, before.here)
            elif count > before.second:
                most[run] = before._replace(second=count)
    return most


def bleu(index: int, n_words: int, counts: Counter[Run], most: dict[Run, Most], by_length: list[int]) -> float:
    """BLEU-4 of text `index`. `by_length`: sorted lengths of all texts."""
    matches, totals = [0] * MAX_RUN, [0] * MAX_RUN
    for run, count in counts.items():
        best = most[run]
        matches[len(run) - 1] += min(count, best.second if best.text == index else best.here)
        totals[len(run) - 1] += count
    if not any(matches):
        return 0.0
    shares = [max(match, FLOOR) / total for match, total in zip(matches, totals, strict=True) if total]
    brevity = min(0.0, 1 - nearest_other(n_words, by_length) / n_words)
    return math.exp(brevity + sum(map(math.log, shares)) / len(shares))


def nearest_other(n_words: int, by_length: list[int]) -> int:
    """The nearest length to `n_words` after removing one text of that length; of two, the shorter."""
    place = bisect_left(by_length, n_words)
    if by_length[place + 1 : place + 2] == [n_words]:
        return n_words
    others = by_length[max(0, place - 1) : place] + by_length[place + 1 : place + 2]
    return min(others, key=lambda length: (abs(length - n_words), length))
