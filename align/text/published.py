"""Parsers for single published data sets: Dolly, HelpSteer, SHP, Chatbot Arena's battles, OpenAssistant's trees.

Most hold human preferences between two answers. Parsers of the common formats are in `align.text.parsers`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from align.text.messages import messages_of
from align.text.parsers import SAME_ANSWER, Parsed, compared, parse_messages, parse_ranking, prompt_of, text_answer
from align.text.values import BadRow, LeftOut, Messages, Values, listed, number, rank_of, shown, turn_text, value_of

TREE = ("message_tree_id", "tree_state", "prompt")
NOT_READY = "the tree is not ready for export (tree_state)"
NO_REPLIES = "the tree has no reply that was kept, or no two ranked ones"

_WINNERS = {"model_a": "a", "model_b": "b", "a": "a", "b": "b"}
_WINNERS |= {"tie": "tie"} | dict.fromkeys(("tie (bothbad)", "tie(bothbad)", "both_bad", "bothbad"), "bad")
_RANKS = {"a": (1, 2), "b": (2, 1), "tie": (1, 1), "bad": (1, 1)}


def parse_dolly(row: Values) -> Parsed:
    """{instruction, response}: a context, if any, is put before the instruction (`align.text.keys`)."""
    answer = text_answer(turn_text(value_of(row, "response"), "response"))
    return Parsed(prompt=prompt_of(row, "instruction"), answers=(answer,))


def parse_helpsteer(row: Values) -> Parsed:
    """{prompt, response, helpfulness}: a rated answer, to be scored. It has no label good or bad."""
    return Parsed(prompt=prompt_of(row), unranked=(turn_text(value_of(row, "response"), "response"),))


def parse_helpsteer2(row: Values) -> Parsed:
    """{prompt, response_1, response_2, preference_strength}: below 0 the first answer is better, 0 is a tie."""
    texts = tuple(turn_text(value_of(row, name), name) for name in ("response_1", "response_2"))
    return _judged(prompt_of(row), texts, _by_strength(row, "preference_strength"))


def parse_helpsteer3(row: Values) -> Parsed:
    """{context, response1, response2, overall_preference}: context is the prompt's messages; else as helpsteer2."""
    texts = tuple(turn_text(value_of(row, name), name) for name in ("response1", "response2"))
    context = messages_of(listed(value_of(row, "context")), "context")
    return _judged(context, texts, _by_strength(row, "overall_preference"))


def parse_shp(row: Values) -> Parsed:
    """{history, human_ref_A, human_ref_B, labels}: 1 if the first comment is better, 0 if the second."""
    prompt = prompt_of(row, "history")
    texts = tuple(turn_text(value_of(row, name), name) for name in ("human_ref_A", "human_ref_B"))
    label = value_of(row, "labels")
    if label not in (0, 1, "0", "1"):
        raise BadRow(f"labels must be 1 (human_ref_A is better) or 0, found {shown(label)}")
    parsed = _judged(prompt, texts, "a" if int(label) else "b")
    if row.get("score_A") is None or row.get("score_B") is None:
        return parsed
    scores = [number(row[name], name) for name in ("score_A", "score_B")]
    return parsed._replace(spread=scores[0] - scores[1] if int(label) else scores[1] - scores[0])


def parse_arena(row: Values) -> Parsed:
    """{conversation_a, conversation_b, winner}: winner is model_a, model_b, tie, or tie (bothbad)."""
    a, b = (messages_of(listed(value_of(row, name)), name) for name in ("conversation_a", "conversation_b"))
    return _with_verdict(compared(a, b), _winner(row))


def parse_arena_pairs(row: Values) -> Parsed:
    """{prompt, response_a, response_b}: texts, or lists of equal length. The winner is in winner, or in winner_model_a,
    winner_model_b and winner_tie. Without these columns the answers are unranked.
    """
    questions, *answers = (_as_texts(row, name) for name in ("prompt", "response_a", "response_b"))
    if not len(questions) == len(answers[0]) == len(answers[1]):
        raise BadRow(f"{len(questions)} prompts need as many answers, found {len(answers[0])} and {len(answers[1])}")
    both = [
        tuple(
            turn
            for user, text in zip(questions, texts, strict=True)
            for turn in (*prompt_of({"prompt": user}), text_answer(text))
        )
        for texts in answers
    ]
    parsed = compared(*both)
    if all(row.get(name) is None for name in ("winner", *map(_flag, ("a", "b", "tie")))):
        return Parsed(prompt=parsed.prompt, unranked=tuple(answer.content for answer in parsed.answers))
    return _with_verdict(parsed, _winner(row))


def parse_oasst(row: Values) -> Parsed:
    """{message_tree_id, tree_state, prompt}: OpenAssistant's trees. The best-ranked replies make the conversation. Each
    prompt with at least two ranked replies is a ranking.
    """
    if "responses" in row:
        return parse_ranking(row)
    if "messages" in row:
        return parse_messages(row)
    if row.get("tree_state") != "ready_for_export":
        raise LeftOut(NOT_READY)
    if not isinstance(row.get("prompt"), dict):
        raise BadRow(f"prompt must be the first message of a tree, found {shown(row.get('prompt'))}")
    raise LeftOut(NO_REPLIES)


def oasst_parts(row: Values, kind: str) -> list[Values]:
    """The rows of a tree: rankings if `kind` needs them, else messages. A tree without any is returned as one row.

    Raises `BadRow` for malformed replies.
    """
    root = row.get("prompt")
    others = {name: value for name, value in row.items() if name not in TREE}
    found: list[Values] = []
    if isinstance(root, dict) and row.get("tree_state") == "ready_for_export" and _is_kept(root):
        found = list(_rankings((), root)) if kind in ("rankings", "answers") else _best_path(root)
    return [{**others, **part} for part in found] or [row]


def _rankings(before: tuple[Values, ...], message: Values) -> Iterator[Values]:
    """Yields each user message of the tree with ranked replies, after all messages before it."""
    turns = (*before, _turn(message))
    replies = _replies(message)
    ranked = [reply for reply in replies if reply.get("rank") is not None]
    if len(ranked) > 1:
        texts, ranks = ([reply.get(name) for reply in ranked] for name in ("text", "rank"))
        yield {"prompt": list(turns), "responses": texts, "ranks": ranks}
    for reply in replies:
        for following in _replies(reply):
            yield from _rankings((*turns, _turn(reply)), following)


def _best_path(root: Values) -> list[Values]:
    path = [root]
    while replies := _replies(path[-1]):
        path.append(replies[0])
    return [{"messages": [_turn(message) for message in path]}] if len(path) > 1 else []


def _replies(message: Values) -> list[Values]:
    """The replies that were not removed, the best-ranked first. Raises `BadRow` for malformed replies."""
    given = message.get("replies") or []
    if not (isinstance(given, list) and all(isinstance(reply, dict) for reply in given)):
        raise BadRow(f"replies must be a list of messages, found {shown(given)}")
    kept = [reply for reply in given if _is_kept(reply)]
    return sorted(kept, key=lambda reply: math.inf if reply.get("rank") is None else rank_of(reply["rank"]))


def _is_kept(message: Values) -> bool:
    return not message.get("deleted") and message.get("review_result") is not False


def _turn(message: Values) -> Values:
    return {"role": message.get("role"), "content": message.get("text")}


def _judged(prompt: Messages, texts: tuple[str, ...], verdict: str | float) -> Parsed:
    """Two answers with a verdict: a, b or tie, or a strength (below 0 if the first is better), used as margin."""
    if isinstance(verdict, str):
        return _with_verdict(Parsed("", prompt, tuple(map(text_answer, texts)), (1, 2)), verdict)
    better = "tie" if verdict == 0 else "a" if verdict < 0 else "b"
    return _judged(prompt, texts, better)._replace(margin=abs(verdict))


def _with_verdict(parsed: Parsed, verdict: str) -> Parsed:
    good = False if verdict == "bad" else None
    if parsed.answers[0] == parsed.answers[1]:
        return parsed._replace(ranks=(1, 1), note=SAME_ANSWER, good=good)
    return parsed._replace(ranks=_RANKS[verdict], good=good)


def _by_strength(row: Values, name: str) -> float:
    return number(value_of(row, name), name)


def _winner(row: Values) -> str:
    if row.get("winner") is not None:
        name = row["winner"]
        verdict = _WINNERS.get(name.strip().lower()) if isinstance(name, str) else None
        if verdict is None:
            raise BadRow(f"winner must be model_a, model_b or tie, found {shown(name)}")
        return verdict
    won = [side for side in ("a", "b", "tie") if str(row.get(_flag(side))) in ("1", "1.0", "True", "true")]
    if len(won) != 1:
        raise BadRow("one of winner_model_a, winner_model_b and winner_tie must be 1, and the others 0")
    return won[0]


def _flag(side: str) -> str:
    return "winner_tie" if side == "tie" else f"winner_model_{side}"


def _as_texts(row: Values, name: str) -> list[str]:
    """One text or several. The Kaggle data set writes several as JSON."""
    value = listed(value_of(row, name))
    if not isinstance(value, list):
        return [turn_text(value, name)]
    return [turn_text(text, name) for text in value]
