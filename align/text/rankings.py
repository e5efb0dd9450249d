"""Encodes rankings: each of a prompt's K answers follows the prompt and ends with EOS, where its score is read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from align.text.encode import encode_prompts, encode_responses
from align.text.records import Message, Ranking


class Ranked(NamedTuple):
    """One ranking as tokens."""

    answers: list[list[int]]  # prompt and answer, with EOS at the end
    ranks: tuple[int, ...]  # 1 is best
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    annotator: str = ""
    origin: str = ""  # its collection or file
    margin: float | None = None  # how much better the best answer is than the worst
    n_prompt: int = 0  # tokens in the prompt

    @property
    def key(self) -> tuple[Any, ...]:
        """Prompt and responses: equal for rankings of the same answers by different annotators."""
        return self.prompt, self.responses

    @property
    def text(self) -> str:
        """The prompt's messages as one text."""
        return "\n\n".join(f"{turn.role}: {turn.text}" for turn in self.prompt)

    @property
    def ids(self) -> list[int]:
        """All tokens, for counting."""
        return [token for answer in self.answers for token in answer]


def encode_rankings(
    tokenizer: Any,
    rankings: list[Ranking],
    max_tokens: int,
    too_long: Literal["truncate", "drop"],
    keep_tied: bool = False,
) -> tuple[list[Ranked], dict[str, int]]:
    """Encodes rankings. Also returns how many were left out or cut.

    A ranking with an answer that is too long is left out, or its answers are cut with their EOS kept. Answers that then
    have the same tokens share a rank. A ranking of ties only is left out, unless `keep_tied`, for a loss that uses
    ties.
    """
    prompts = encode_prompts(tokenizer, [r.prompt for r in rankings], [r.source for r in rankings])
    texts = [(r.prompt, answer) for r in rankings for answer in r.responses]
    responses = iter(encode_responses(tokenizer, texts, [r.source for r in rankings for _ in r.responses]))
    pairs = [(prompt, next(responses)) for prompt, r in zip(prompts, rankings, strict=True) for _ in r.responses]
    return ranked(pairs, rankings, max_tokens, too_long, keep_tied)


def ranked(
    pairs: Iterable[tuple[list[int], list[int]]],
    rankings: list[Ranking],
    max_tokens: int,
    too_long: Literal["truncate", "drop"],
    keep_tied: bool = False,
) -> tuple[list[Ranked], dict[str, int]]:
    """`encode_rankings` for encoded texts: `pairs` are the tokens of (prompt, answer) for each answer in order."""
    encoded = iter(pairs)
    rows: list[Ranked] = []
    tied = long = same = 0
    for ranking in rankings:
        both = [next(encoded) for _ in ranking.responses]
        prompt, answers = both[0][0], [before + answer for before, answer in both]
        is_long, is_tied = max(map(len, answers)) > max_tokens, len(set(ranking.ranks)) == 1 and not keep_tied
        is_dropped = is_long and (too_long == "drop" or len(prompt) > max_tokens - 2)
        tied, long = tied + is_tied, long + is_long
        if is_tied or is_dropped:
            continue
        answers = [shortened(answer, max_tokens) for answer in answers]
        ranks = one_rank_each(answers, ranking.ranks)
        same += ranks != ranking.ranks
        if keep_tied or len(set(ranks)) > 1:
            about = (ranking.annotator, origin(ranking), ranking.margin)
            rows.append(Ranked(answers, ranks, ranking.prompt, ranking.responses, *about, len(prompt)))
    what = "left out" if too_long == "drop" else "cut before their EOS, or left out if the prompt fills them"
    counts = {f"longer than max_tokens={max_tokens}: {what}": long, "all tied: left out": tied}
    return rows, counts | {"answers of different ranks have equal tokens: tied, or left out if no pair is left": same}


def one_rank_each(answers: list[list[int]], ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Ranks in which answers with the same tokens are tied, at the mean of their ranks (Borda count).

    An answer that was ranked both above and below another one then has little or no preference over it.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for answer, rank in zip(answers, ranks, strict=True):
        places.setdefault(tuple(answer), []).append(rank)
    if all(len(set(given)) == 1 for given in places.values()):
        return ranks
    means = [sum(places[tuple(answer)]) / len(places[tuple(answer)]) for answer in answers]
    order = {mean: place for place, mean in enumerate(sorted(set(means)), start=1)}
    return tuple(order[mean] for mean in means)


def origin(ranking: Ranking) -> str:
    """The origin of a ranking: its column `source`, else its file or hub data set."""
    return ranking.origin or re.sub(r":(row )?\d+$", "", ranking.source)


def shortened(ids: list[int], max_tokens: int) -> list[int]:
    """A sequence cut to `max_tokens` with its EOS kept, because the score is read there."""
    return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]


def padded_size(row: Ranked) -> int:
    """Tokens of a ranking in a batch, padding included."""
    return len(row.answers) * max(map(len, row.answers))
