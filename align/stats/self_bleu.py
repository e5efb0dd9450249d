"""BLEU of each text against all the others, in time that grows with their words and not with their pairs.

A library scores a text against its references: of 1,000 answers each has 999, and their runs of words would be counted
a million times. Here each run's largest count in any text is found once, and the second largest, in another text: that
of the others is the second where the largest is the text's own.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

MAX_RUN = 4  # words: BLEU-4
FLOOR = 0.1  # counted instead of no match of one length of run, where another has matches

Run = tuple[str, ...]


class Most(NamedTuple):
    """The largest count of a run in one text, which that is, and the largest in any other."""

    here: int
    text: int
    second: int


def self_bleu(texts: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-4 (Papineni et al. 2002) of each text, 0 to 1, the others being its references. [] for fewer than two.

    As sacrebleu's sentence_bleu(smooth_method="floor"): where no run of one length matches, 0.1 is counted; lengths of
    run that the text is too short for are left out; the reference of the nearest length, of two the shorter, decides
    about brevity.
    """
    if len(texts) < 2:
        return []
    runs = [counted(words) for words in texts]
    most = largest(runs)
    by_length = sorted(len(words) for words in texts)
    return [bleu(index, len(words), runs[index], most, by_length) for index, words in enumerate(texts)]


def counted(words: Sequence[str]) -> Counter[Run]:
    """How often each run of one to four words is in a text."""
    sizes = range(1, MAX_RUN + 1)
    return Counter(run for size in sizes for run in zip(*(words[start:] for start in range(size)), strict=False))


def largest(runs: Sequence[Counter[Run]]) -> dict[Run, Most]:
    """Of every run its largest counts."""
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
    """BLEU-4 of the text `index`; `by_length` has the lengths of all texts, sorted."""
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
    """The nearest length to `n_words` when one of that length is taken away; of two as near the shorter."""
    place = bisect_left(by_length, n_words)
    if by_length[place + 1 : place + 2] == [n_words]:
        return n_words
    others = by_length[max(0, place - 1) : place] + by_length[place + 1 : place + 2]
    return min(others, key=lambda length: (abs(length - n_words), length))
