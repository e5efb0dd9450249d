"""Simulated annotators: rank answers by gold score plus noise.

    align rank answers.jsonl --out rankings.jsonl --seed 1

An annotator sorts by gold score + Gumbel noise of scale `noise`. This is a Plackett-Luce model, so every pair of
different answers follows Bradley-Terry: P(i above j) = sigmoid((g_i - g_j) / noise). The noise is set so that two
independent annotators agree on a pair as often as InstructGPT's training labelers did: 72.6 +- 1.5% (arXiv
2203.02155, section 3.4).

`answers.jsonl` has rows {"prompt", "responses"}; a prompt is a string or a list of {"role", "content"} messages whose
last user message is judged. The rankings are rows {"prompt", "responses", "ranks", "annotator"}; rank 1 is best. With
`--overlap 2` two annotators rank each row of answers, each in a row of their own, so their agreement can be measured.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypedDict

from align.commands import program
from align.lab.judge import judge

AGREEMENT = 0.73
NOISE_RANGE = (0.01, 100.0)  # from almost certain to almost random, on scores between -0.75 and 1.5
ANNOTATORS = tuple(f"annotator-{i}" for i in range(1, 9))

log = logging.getLogger(__name__)


class Summary(TypedDict):
    """The result of `rank_file`."""

    n: int  # rankings written
    noise: float
    annotator_agreement: float  # expected, of two annotators, over all pairs of different answers to a prompt
    gold_agreement: float  # expected, of an annotator with the gold judge, where the gold scores differ


class BrokenLine(ValueError):
    """A line of an input file that cannot be used."""

    def __init__(self, path: Path, line: int, reason: str):
        super().__init__(f"{path}:{line}: {reason}")


# ----------------------------------------------------------------------------------------------------------- ranking


def rank(prompt: str, responses: Sequence[str], noise: float, rng: Random, *, tie_margin: float = 0.0) -> list[int]:
    """One annotator's ranks of the responses; 1 is best.

    Responses with the same text tie. With a `tie_margin` an answer also ties with the best of the group above it if its
    noisy score is at most that much lower; the next rank counts all better answers (1, 1, 3). Raises ValueError if the
    prompt is not from the lab's world.
    """
    seen = {text: judge(prompt, text).score + noise * _gumbel(rng) for text in dict.fromkeys(responses)}
    return _ranks([seen[text] for text in responses], tie_margin)


def _gumbel(rng: Random) -> float:
    return -math.log(max(-math.log(1.0 - rng.random()), 1e-300))


def _ranks(values: Sequence[float], tie_margin: float) -> list[int]:
    order = sorted(range(len(values)), key=lambda i: -values[i])
    ranks = [0] * len(values)
    best = order[0]  # of the group of ties
    for place, i in enumerate(order, start=1):
        if i == best or values[best] - values[i] > tie_margin:
            best, ranks[i] = i, place
        else:
            ranks[i] = ranks[best]
    return ranks


# --------------------------------------------------------------------------------------------------------- agreement


def expected_agreement(score_lists: Iterable[Sequence[float]], noise: float) -> float:
    """The share of pairs that two independent annotators order in the same way: the mean of p^2 + (1 - p)^2.

    `score_lists` has the gold scores of the answers to each prompt. A pair of equal scores counts as one half.
    """
    return _agreement(_gaps(score_lists), noise)


def agreement_with_gold(score_lists: Iterable[Sequence[float]], noise: float) -> float:
    """How often an annotator prefers the better answer, over pairs with different gold scores.

    A perfect judge would have this accuracy on the annotators' labels, so it bounds a reward model's.
    """
    gaps = {gap: n for gap, n in _gaps(score_lists).items() if gap > 0}
    if not gaps:
        raise ValueError("all answers to each prompt have the same gold score, so there is nothing to rank")
    return sum(n * _sigmoid(gap / noise) for gap, n in gaps.items()) / sum(gaps.values())


def calibrate_noise(score_lists: Iterable[Sequence[float]], agreement: float = AGREEMENT) -> float:
    """The noise at which `expected_agreement` is `agreement`, by bisection within `NOISE_RANGE`.

    If too many pairs tie in gold to reach that agreement, returns the smallest noise of the range and logs a warning
    with the agreement that is reached; `expected_agreement` gives it too.
    """
    if not 0.5 < agreement < 1:
        raise ValueError(
            f"agreement = {agreement}: two noisy annotators agree more often than by chance, but not always; give a "
            "number between 0.5 and 1"
        )
    gaps = _gaps(score_lists)
    low, high = NOISE_RANGE
    if _agreement(gaps, low) <= agreement:
        reached = _agreement(gaps, low)
        log.warning(
            "agreement %.3f is out of reach, because too many answers are equally good: %.3f", agreement, reached
        )
        return low
    for _ in range(60):  # agreement falls as noise grows
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _agreement(gaps, middle) > agreement else (low, middle)
    return low


def _gaps(score_lists: Iterable[Sequence[float]]) -> Counter[float]:
    """Counts of each distance between two scores of one prompt; gold scores have few different distances."""
    gaps: Counter[float] = Counter()
    for scores in score_lists:
        gaps.update(abs(a - b) for i, a in enumerate(scores) for b in scores[:i])
    if not gaps:
        raise ValueError("no prompt has two different answers, so there are no pairs to compare; sample more answers")
    return gaps


def _agreement(gaps: Counter[float], noise: float) -> float:
    chances = ((_sigmoid(gap / noise), n) for gap, n in gaps.items())
    return sum(n * (p * p + (1 - p) * (1 - p)) for p, n in chances) / sum(gaps.values())


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))  # x >= 0: distances have no sign


# -------------------------------------------------------------------------------------------------------------- files


def rank_file(
    answers_path: str | Path, out_path: str | Path, seed: int, agreement: float = AGREEMENT, overlap: int = 1
) -> Summary:
    """Ranks every row of a file of answers with annotators of that agreement, and writes rows of rankings.

    `overlap` different annotators rank each row, each in a row of their own, so agreement can be measured.

    Raises BrokenLine for a row that cannot be used, ValueError if there is nothing to rank or `overlap` is too large,
    and OSError if a file cannot be read or written.
    """
    if not 1 <= overlap <= len(ANNOTATORS):
        raise ValueError(f"overlap = {overlap}: 1 to {len(ANNOTATORS)} annotators can rank each row")
    rows, score_lists = [], []
    for line, row in _read_rows(Path(answers_path)):
        rows.append(row)
        score_lists.append(_scores(row, Path(answers_path), line))
    noise = calibrate_noise(score_lists, agreement)
    summary = Summary(
        n=len(rows) * overlap,
        noise=noise,
        annotator_agreement=expected_agreement(score_lists, noise),
        gold_agreement=agreement_with_gold(score_lists, noise),
    )
    out = Path(out_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="\n") as file:
        for i, row in enumerate(rows):
            rng = Random(f"annotators {seed} {i}")
            for annotator in rng.sample(ANNOTATORS, overlap):
                file.write(json.dumps(_rank_row(row, annotator, noise, rng), ensure_ascii=False) + "\n")
    return summary


def _rank_row(row: dict[str, Any], annotator: str, noise: float, rng: Random) -> dict[str, Any]:
    ranks = rank(_question(row["prompt"]), row["responses"], noise, rng)
    return {"prompt": row["prompt"], "responses": row["responses"], "ranks": ranks, "annotator": annotator}


def _scores(row: dict[str, Any], path: Path, line: int) -> list[float]:
    """The gold scores of a row's different answers. Equal answers are no pair, because they always tie."""
    try:
        return [judge(_question(row["prompt"]), text).score for text in dict.fromkeys(row["responses"])]
    except ValueError as error:
        raise BrokenLine(path, line, str(error)) from None


def _question(prompt: str | list[dict[str, str]]) -> str:
    """The text to judge: a prompt, or its last user message."""
    if isinstance(prompt, str):
        return prompt
    return next(message["content"] for message in reversed(prompt) if message["role"] == "user")


def _read_rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw.decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise BrokenLine(path, line, "not UTF-8 text") from None
            except json.JSONDecodeError as error:
                raise BrokenLine(path, line, f"not JSON: {error}") from None
            if reason := _fault(row):
                raise BrokenLine(path, line, reason)
            yield line, row


def _fault(row: Any) -> str | None:
    """The error in a row's structure, or None."""
    if not isinstance(row, dict):
        return f"a row must be an object with prompt and responses, not {type(row).__name__}"
    for key in ("prompt", "responses"):
        if key not in row:
            return f'no "{key}"; found {sorted(row)}'
    responses = row["responses"]
    if not isinstance(responses, list) or not all(isinstance(text, str) for text in responses):
        return "responses must be a list of strings"
    if len(responses) < 2:
        return f"{len(responses)} responses; a ranking needs at least two"
    return None if isinstance(row["prompt"], str) else _fault_of_messages(row["prompt"])


def _fault_of_messages(prompt: Any) -> str | None:
    is_list = isinstance(prompt, list) and all(isinstance(message, dict) for message in prompt)
    if not is_list or not all(isinstance(m.get(key), str) for m in prompt for key in ("role", "content")):
        return "prompt must be a string or a list of {role, content} messages"
    return None if any(m["role"] == "user" for m in prompt) else "prompt has no user message to judge"


# ------------------------------------------------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """The options of `align rank`."""
    made = argparse.ArgumentParser(prog=program("align.lab.annotators"), description="Rank answers of the lab's world.")
    made.add_argument("answers", type=Path, help="JSONL with rows {prompt, responses}")
    made.add_argument(
        "--out", type=Path, required=True, help="JSONL to write, rows {prompt, responses, ranks, annotator}"
    )
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--overlap", type=int, default=1, help="annotators who rank each row of answers (%(default)s)")
    made.add_argument("--agreement", type=float, default=AGREEMENT, help="of two annotators on a pair (%(default)s)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and ranks."""
    args = parser().parse_args(argv)
    try:
        summary = rank_file(args.answers, args.out, args.seed, args.agreement, args.overlap)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{args.out}: {summary['n']} rankings; noise {summary['noise']:.3f}; two annotators agree on "
        f"{summary['annotator_agreement']:.1%} of pairs, one with the gold judge on {summary['gold_agreement']:.1%}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
