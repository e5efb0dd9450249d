"""Checks of annotation payloads, on the server; the page's own checks are not trusted.

    {answers: {"0": {rating, flags, comment}}, ranks: {"0": 1, "1": 1, "2": 3} | null, all_bad, comment}

Keys are slots: positions in the person's order of the answers. Rank 1 is best, equal ranks are ties. `ranks` stays null
until every answer has a rank; only an `all_bad` task can be submitted without ranks.
"""

from __future__ import annotations

from typing import Any

from apps.store.errors import BadPayload
from apps.store.settings import Questions, Ranking
from apps.store.tables import canonical

LONGEST_COMMENT = 10_000
LARGEST = 200_000  # bytes of a payload as JSON
KEYS = ("answers", "ranks", "all_bad", "comment")


def check_draft(payload: Any) -> dict[str, Any]:
    """Checks a draft: it may be incomplete, but must be an object of reasonable size. Raises `BadPayload`."""
    if not isinstance(payload, dict):
        raise BadPayload([f"payload: expected an object, found {_shown(payload)}"])
    try:
        size = len(canonical(payload))
    except (ValueError, TypeError, RecursionError):
        raise BadPayload(["payload: it is not JSON"]) from None
    if size > LARGEST:
        raise BadPayload([f"payload: {size} bytes, more than the limit of {LARGEST}; shorten the comments"])
    return payload


def check_payload(payload: Any, n_answers: int, questions: Questions, ranking: Ranking) -> dict[str, Any]:
    """A complete ranking with every key filled in. Raises `BadPayload` with all problems at once."""
    given = check_draft(payload)
    problems = [f"{key}: unknown key; the keys are {', '.join(KEYS)}" for key in given if key not in KEYS]
    all_bad = given.get("all_bad", False)
    if not isinstance(all_bad, bool):
        problems.append(f"all_bad = {_shown(all_bad)}: expected true or false")
    whole = {
        "answers": _answers(given.get("answers"), n_answers, questions, problems),
        "ranks": _ranks(given.get("ranks"), n_answers, ranking, all_bad is True, problems),
        "all_bad": all_bad,
        "comment": _comment(given.get("comment"), "comment", questions, problems),
    }
    if problems:
        raise BadPayload(problems)
    return whole


def check_reason(reason: Any, comment: Any = "") -> dict[str, Any]:
    """The checked reason for a skip or a report. Raises `BadPayload`."""
    problems: list[str] = []
    whole = {
        "reason": _text(reason, "reason", 200, problems),
        "comment": _text(comment, "comment", LONGEST_COMMENT, problems),
    }
    if not problems and not whole["reason"]:
        problems.append("reason: empty; give a reason")
    if problems:
        raise BadPayload(problems)
    return whole


def _answers(value: Any, n_answers: int, questions: Questions, problems: list[str]) -> dict[str, Any]:
    """Each answer's rating, flags and comment, for all slots."""
    given = {} if value is None else value
    if not isinstance(given, dict) or not all(isinstance(answer, dict) for answer in given.values()):
        problems.append(f"answers = {_shown(value)}: expected an object for each slot")
        return {}
    problems += [f"answers.{slot}: no such slot" for slot in given if slot not in _slots(n_answers)]
    return {slot: _answer(given.get(slot, {}), f"answers.{slot}", questions, problems) for slot in _slots(n_answers)}


def _answer(given: dict[str, Any], key: str, questions: Questions, problems: list[str]) -> dict[str, Any]:
    problems += [f"{key}.{name}: unknown key" for name in given if name not in ("rating", "flags", "comment")]
    rating, flags = given.get("rating"), given.get("flags", [])
    asked = questions.rating
    if rating is None and asked.ask and asked.required:
        problems.append(f"{key}.rating: not given yet; rate this answer from 1 to 7")
    elif rating is not None and not (asked.ask and _is_int(rating, 1, 7)):
        problems.append(
            f"{key}.rating = {_shown(rating)}: " + ("expected 1 to 7" if asked.ask else "this project has no ratings")
        )
    known = [flag.name for flag in questions.flags]
    if not isinstance(flags, list) or not all(isinstance(flag, str) and flag in known for flag in flags):
        expected = f"the flags are {', '.join(known)}" if known else "this project has no flags"
        problems.append(f"{key}.flags = {_shown(flags)}: {expected}")
        flags = []
    comment = _comment(given.get("comment"), f"{key}.comment", questions, problems)
    return {"rating": rating, "flags": [name for name in known if name in flags], "comment": comment}


def _ranks(value: Any, n_answers: int, ranking: Ranking, all_bad: bool, problems: list[str]) -> dict[str, int] | None:
    slots = _slots(n_answers)
    if value is None:
        if not all_bad:
            problems.append("ranks: some answers have no rank; rank all of them, or mark all as bad")
        return None
    is_whole = isinstance(value, dict) and sorted(value) == slots
    if not is_whole or not all(_is_int(rank, 1, n_answers) for rank in value.values()):
        problems.append(
            f"ranks = {_shown(value)}: expected a rank from 1 to {n_answers} for each slot from 0 to {n_answers - 1}"
        )
        return None
    if not ranking.ties and len(set(value.values())) < n_answers:
        problems.append(f"ranks = {_shown(value)}: two answers have the same rank, but this project allows no ties")
    return {slot: value[slot] for slot in slots}


def _comment(value: Any, key: str, questions: Questions, problems: list[str]) -> str:
    text = _text(value, key, LONGEST_COMMENT, problems)
    if text and not questions.comment:
        problems.append(f"{key}: this project has no comments")
    return text


def _text(value: Any, key: str, longest: int, problems: list[str]) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest:
        problems.append(f"{key} = {_shown(value)}: expected a text of at most {longest} characters")
        return ""
    return value


def _slots(n_answers: int) -> list[str]:
    return [str(slot) for slot in range(n_answers)]


def _is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
