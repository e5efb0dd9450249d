"""The layouts of single published collections, read as `align.text.parsers` reads the common ones.

Most hold what people said of two answers: Chatbot Arena's battles, HelpSteer's preferences, SHP, OpenAssistant's trees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from align.text.messages import messages_of
from align.text.parsers import SAME_ANSWER, Parsed, compared, parse_messages, parse_ranking, prompt_of, said
from align.text.values import BadRow, LeftOut, Messages, Values, listed, number, rank_of, shown, turn_text, value_of

TREE = ("message_tree_id", "tree_state", "prompt")
NOT_READY = "the tree is not ready for export (tree_state)"
NO_REPLIES = "the tree has no reply that was kept, or no two ranked ones"

_WINNERS = {"model_a": "a", "model_b": "b", "a": "a", "b": "b"}
_WINNERS |= {"tie": "tie"} | dict.fromkeys(("tie (bothbad)", "tie(bothbad)", "both_bad", "bothbad"), "bad")
_RANKS = {"a": (1, 2), "b": (2, 1), "tie": (1, 1), "bad": (1, 1)}


def parse_dolly(row: Values) -> Parsed:
    """{instruction, response}: the context, if any, stands before the instruction, as in every format of one text."""
    answer = said(turn_text(value_of(row, "response"), "response"))
    return Parsed(prompt=prompt_of(row, "instruction"), answers=(answer,))


def parse_helpsteer(row: Values) -> Parsed:
    """{prompt, response, helpfulness}: an answer with people's ratings, to be scored; it is not said to be good."""
    return Parsed(prompt=prompt_of(row), unranked=(turn_text(value_of(row, "response"), "response"),))


def parse_helpsteer2(row: Values) -> Parsed:
    """{prompt, response_1, response_2, preference_strength}: below 0 the first answer is better, at 0 they tie."""
    texts = tuple(turn_text(value_of(row, name), name) for name in ("response_1", "response_2"))
    return _judged(prompt_of(row), texts, _by_strength(row, "preference_strength"))


def parse_helpsteer3(row: Values) -> Parsed:
    """{context, response1, response2, overall_preference}: context is the turns before; else as helpsteer2."""
    texts = tuple(turn_text(value_of(row, name), name) for name in ("response1", "response2"))
    context = messages_of(listed(value_of(row, "context")), "context")
    return _judged(context, texts, _by_strength(row, "overall_preference"))


def parse_shp(row: Values) -> Parsed:
    """{history, human_ref_A, human_ref_B, labels}: 1 where the first comment is the better one, 0 where the second."""
    asked = prompt_of(row, "history")
    texts = tuple(turn_text(value_of(row, name), name) for name in ("human_ref_A", "human_ref_B"))
    label = value_of(row, "labels")
    if label not in (0, 1, "0", "1"):
        raise BadRow(f"labels must be 1 (human_ref_A is better) or 0, found {shown(label)}")
    parsed = _judged(asked, texts, "a" if int(label) else "b")
    if row.get("score_A") is None or row.get("score_B") is None:
        return parsed
    scores = [number(row[name], name) for name in ("score_A", "score_B")]
    return parsed._replace(spread=scores[0] - scores[1] if int(label) else scores[1] - scores[0])


def parse_arena(row: Values) -> Parsed:
    """{conversation_a, conversation_b, winner}: model_a, model_b or a tie, of both good or both bad."""
    a, b = (messages_of(listed(value_of(row, name)), name) for name in ("conversation_a", "conversation_b"))
    return _with_verdict(compared(a, b), _winner(row))


def parse_arena_pairs(row: Values) -> Parsed:
    """{prompt, response_a, response_b}: texts, or lists of as many. Who won is in winner, or in winner_model_a,
    winner_model_b and winner_tie; without these, nobody has judged them yet.
    """
    asked, *answers = (_as_texts(row, name) for name in ("prompt", "response_a", "response_b"))
    if not len(asked) == len(answers[0]) == len(answers[1]):
        raise BadRow(f"{len(asked)} prompts need as many answers, found {len(answers[0])} and {len(answers[1])}")
    both = [
        tuple(
            turn for user, text in zip(asked, texts, strict=True) for turn in (*prompt_of({"prompt": user}), said(text))
        )
        for texts in answers
    ]
    parsed = compared(*both)
    if all(row.get(name) is None for name in ("winner", *map(_flag, ("a", "b", "tie")))):
        return Parsed(prompt=parsed.prompt, unranked=tuple(answer.content for answer in parsed.answers))
    return _with_verdict(parsed, _winner(row))


def parse_oasst(row: Values) -> Parsed:
    """{message_tree_id, tree_state, prompt}: OpenAssistant's trees. The best-ranked replies are the conversation; each
    prompt with two ranked replies is a ranking.
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
    """The rows in a tree: messages, or rankings where they are wanted. A tree that has none is a row itself.

    Raises `BadRow` for replies that are none.
    """
    root = row.get("prompt")
    beside = {name: value for name, value in row.items() if name not in TREE}
    found: list[Values] = []
    if isinstance(root, dict) and row.get("tree_state") == "ready_for_export" and _is_kept(root):
        found = list(_rankings((), root)) if kind in ("rankings", "answers") else _best_path(root)
    return [{**beside, **part} for part in found] or [row]


def _rankings(before: tuple[Values, ...], asked: Values) -> Iterator[Values]:
    """Each message of a user in the tree whose replies were ranked, with all that came before it."""
    turns = (*before, _turn(asked))
    replies = _replies(asked)
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
    """The replies that were kept, the best-ranked first. Raises `BadRow` for what cannot be replies."""
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
    """Two answers and which is better: a, b or tie, or a strength (below 0 for the first), which is the margin too."""
    if isinstance(verdict, str):
        return _with_verdict(Parsed("", prompt, tuple(map(said, texts)), (1, 2)), verdict)
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
    """One text or several; the Kaggle set writes several as JSON."""
    value = listed(value_of(row, name))
    if not isinstance(value, list):
        return [turn_text(value, name)]
    return [turn_text(text, name) for text in value]
