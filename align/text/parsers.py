"""Parsers of the common formats: one small function for each, from a row to a `Parsed`.

Messages are stripped of white space; texts to pretrain on keep it. A value that cannot be right (an empty answer, ranks
of another length, an unknown role) is a `BadRow`: a mistake in the file. A well-formed row that a rule of its format
excludes is `LeftOut`; such rows are counted by reason and never stop a run.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from align.text import keys
from align.text.messages import answerable, messages_of
from align.text.records import Message, Role
from align.text.values import (
    BadRow,
    LeftOut,
    Messages,
    Values,
    as_list,
    is_missing,
    listed,
    n_shared,
    number,
    optional,
    rank_of,
    shown,
    string,
    trimmed,
    turn_text,
    turns_or_text,
    value_of,
)


class Parsed(NamedTuple):
    """A row of any format: a text, or turns that end with the user's and any number of answers to them."""

    text: str = ""
    prompt: Messages = ()
    answers: Messages = ()  # the assistant's
    ranks: tuple[int, ...] = ()  # of the answers, 1 is best; empty where there is no order
    unranked: tuple[str, ...] = ()  # answers that nobody has ordered yet: there to be scored, not to be learned from
    note: str = ""  # the rule that was applied to this row, if it needed one; counted for the log
    spread: float | None = None  # the best answer's score less the worst's
    margin: float | None = None  # as `Ranking` has it, where the format says it
    good: bool | None = None  # whether the answer is a good one, where the row says it
    learned: bool = True  # whether the row is to be learned


EMPTY_TURN = "a turn of the transcript is empty"
NO_SHARED_PROMPT = "chosen and rejected do not answer the same prompt"
SAME_ANSWER = "chosen and rejected are the same: kept as a tie"
DIFFER_EARLIER = "chosen and rejected differ in more than the last turn: the first answers that differ were taken"
AFTER_ANSWER = "turns after the last answer were left out"

REPEATED = "chosen and rejected repeat the prompt: it was cut off"
TRANSCRIPT = "a transcript in the prompt was read as turns"

_ANSWERS = "\n\nAssistant:"
_STOPS = ".?!:。？！："
_TRANSCRIPT_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def parse_text(row: Values) -> Parsed:
    """{text}: kept as it is, space included."""
    return Parsed(text=string(value_of(row, "text"), "text"))


def parse_prompt(row: Values) -> Parsed:
    """{prompt}: a string, which is a user's turn, or messages that end with one."""
    return Parsed(prompt=prompt_of(row))


def parse_prompt_completion(row: Values) -> Parsed:
    """{prompt, completion}: two strings, or two lists of messages (TRL's conversational form)."""
    prompt, completion = prompt_of(row), turns_or_text(value_of(row, "completion"))
    if isinstance(completion, str):
        return Parsed(prompt=prompt, answers=(said(turn_text(completion, "completion")),))
    return _demonstration(_after(prompt, messages_of(completion, "completion")))


def parse_messages(row: Values) -> Parsed:
    """{messages}: turns with role and content."""
    return _demonstration(messages_of(listed(value_of(row, "messages")), "messages"))


def parse_alpaca(row: Values) -> Parsed:
    """{instruction, input, output}: the user's turn is the instruction and, after a blank line, the input if any.

    LLaMA-Factory's `history` (pairs of a question and an answer) comes before it.
    """
    *before, asked = prompt_of(row, "instruction")
    if given := optional(row, "input"):
        asked = asked._replace(content=f"{asked.content}\n\n{given}")
    answer = said(turn_text(value_of(row, "output"), "output"))
    return Parsed(prompt=(*_history(row.get("history")), *before, asked), answers=(answer,))


def _history(value: Any) -> Messages:
    """Pairs of a question and an answer as turns; or turns, where user and assistant alternate."""
    given = listed(value)
    if is_missing(given) or given in ("", []):
        return ()
    if isinstance(given, list) and all(isinstance(turn, dict) for turn in given):
        turns = messages_of(given, "history")
        if [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2):
            return turns
    if not (isinstance(given, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given)):
        raise BadRow(f"history must be a list of [question, answer], found {shown(given)}")
    said = [(turn_text(question, "history"), turn_text(answer, "history")) for question, answer in given]
    return tuple(turn for asked, answer in said for turn in (Message("user", asked), Message("assistant", answer)))


def parse_sharegpt(row: Values) -> Parsed:
    """{conversations}: turns with from (human, gpt, system) and value."""
    return _demonstration(messages_of(listed(value_of(row, "conversations")), "conversations"))


def parse_question_answer(row: Values) -> Parsed:
    """{question, answer}: two strings, as GSM8K."""
    return Parsed(prompt=prompt_of(row, "question"), answers=(said(turn_text(value_of(row, "answer"), "answer")),))


def parse_sharegpt_preference(row: Values) -> Parsed:
    """{conversations, chosen, rejected}: turns that both share, and one turn each."""
    shared = messages_of(listed(value_of(row, "conversations")), "conversations")
    chosen, rejected = (messages_of(as_list(value_of(row, name)), name) for name in ("chosen", "rejected"))
    return compared((*shared, *chosen), (*shared, *rejected))


def parse_hh(row: Values) -> Parsed:
    """{chosen, rejected}: HH-RLHF's transcripts; a `prompt` column, where there is one, is the beginning of both.

    They may repeat the prompt. Two turns of one speaker in a row are one turn. One with an empty turn is left out.
    """
    beginning = string(row["prompt"], "prompt", may_be_empty=True) if not is_missing(row.get("prompt")) else ""
    both = [string(value_of(row, name), name) for name in ("chosen", "rejected")]
    if not all(text.lstrip().startswith(beginning.strip()) for text in both):
        both = [beginning + text for text in both]
    return compared(*map(_transcript, both))


def parse_preference(row: Values) -> Parsed:
    """{prompt, chosen, rejected}, or {chosen, rejected} whose shared beginning is the prompt; strings or messages.

    The shared beginning of two strings is cut back to whole words. Messages may repeat the prompt or not.
    """
    chosen, rejected = turns_or_text(value_of(row, "chosen")), turns_or_text(value_of(row, "rejected"))
    begun = row.get("prompt") or chosen
    if isinstance(begun, str) and _ANSWERS in begun and has_transcripts(row):  # in a file whose first row has none
        return parse_hh(row)
    prompt = prompt_of(row) if not is_missing(row.get("prompt")) else ()
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("chosen and rejected must both be strings or both lists of messages")
    if not prompt:
        _ask_for_prompt(row, chosen)
    if not isinstance(chosen, str):
        each = messages_of(chosen, "chosen"), messages_of(rejected, "rejected")
        return compared(*(_after(prompt, turns) for turns in each))
    if prompt:
        chosen, rejected = turn_text(chosen, "chosen"), turn_text(rejected, "rejected")
        return _unrepeated(prompt, chosen, rejected) or _pair(prompt, chosen, rejected)
    words = re.sub(r"\S+$", "", chosen[: n_shared(chosen, rejected)])
    asked, begin = words.strip(), len(words.rstrip())
    answers = [trimmed(text[begin:]) for text in (chosen, rejected)]
    if not (asked and all(answers)):
        raise BadRow("chosen and rejected do not begin with the same prompt and go on differently; add a prompt column")
    return _pair((Message("user", asked),), *answers)


def _ask_for_prompt(row: Values, chosen: Any) -> None:
    """Raises `BadRow` where another column than `prompt` may well be the prompt."""
    known = ("prompt", "chosen", "rejected")
    texts = [name for name, value in row.items() if name not in known and _may_ask(value)]
    texts = [name for name in texts if name not in keys.ROW_NAMES and not name.startswith("_")]
    if texts and not is_transcript(chosen) and (isinstance(chosen, str) or _begins_with_answer(chosen)):
        raise BadRow(
            f"there is no column prompt, but {', '.join(texts)}; say which is the prompt, data.columns="
            f"{{prompt: {texts[0]}}}, or that it is not, data.columns={{_{texts[0]}: {texts[0]}}}"
        )


def _may_ask(value: Any) -> bool:
    """Whether a value is a text, or turns."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, list) and any(isinstance(turn, dict) for turn in value)


def _begins_with_answer(turns: Any) -> bool:
    return bool(turns) and isinstance(turns, list) and messages_of(turns[:1], "chosen")[0].role == "assistant"


def _after(prompt: Messages, turns: Messages) -> Messages:
    """The turns of an answer, after the prompt unless they repeat it. Raises `BadRow` where they have another one."""
    if turns[0].role == "assistant" or not prompt:
        return (*prompt, *turns)
    if prompt[-1] not in turns:
        raise BadRow(f"the turns lack the prompt's last one, {shown(prompt[-1].content)}; leave out one or the other")
    system = [turn for turn in prompt[:1] if turn.role == "system" and turns[0].role != "system"]
    return (*system, *turns)


def _unrepeated(prompt: Messages, *answers: str) -> Parsed | None:
    """The pair whose answers both begin with the prompt, without it; none if they do not.

    One word without a full stop is not enough: answers may begin with the same one. Nor is one answer of two.
    """
    asked = prompt[-1].content
    if not (answers[0].startswith(asked) and answers[1].startswith(asked)):
        return None
    rests = [answer.removeprefix(asked) for answer in answers]
    if asked[-1] not in _STOPS and (len(asked.split()) == 1 or any(rest[:1].strip() for rest in rests)):
        return None
    chosen, rejected = (turn_text(rest, "an answer after the prompt that it repeats") for rest in rests)
    return _pair(prompt, chosen, rejected, REPEATED)


def parse_ranking(row: Values) -> Parsed:
    """{prompt, responses, ranks}: K >= 2 answers, rank 1 is best, equal ranks are ties; or no ranks at all.

    Where there are scores and no ranks, the highest score is best. An answer may be empty here: a model can say
    nothing, and people rank that too. Ranks are renumbered from 1 on.
    """
    prompt, responses, ranks = prompt_of(row), listed(value_of(row, "responses")), listed(row.get("ranks"))
    if is_missing(ranks) and not is_missing(row.get("scores")) and isinstance(responses, list) and len(responses) > 1:
        return _by_scores(prompt, responses, listed(row["scores"]))
    if is_missing(ranks):
        return Parsed(prompt=prompt, unranked=_unranked(responses))
    if not (isinstance(responses, list) and len(responses) >= 2):
        raise BadRow(f"responses must be a list of at least 2 answers, found {shown(responses)}")
    if not (isinstance(ranks, list) and len(ranks) == len(responses)):
        raise BadRow(f"{len(responses)} responses need as many ranks, found {shown(ranks)}")
    answers = tuple(said(text) for text in _texts(responses))
    order = {rank: place for place, rank in enumerate(sorted({rank_of(rank) for rank in ranks}), start=1)}
    return Parsed("", prompt, answers, tuple(order[rank_of(rank)] for rank in ranks))


def _by_scores(prompt: Messages, responses: list[Any], scores: Any) -> Parsed:
    """Answers in the order of their scores, equal ones as ties."""
    if not (isinstance(scores, list) and len(scores) == len(responses)):
        raise BadRow(f"{len(responses)} responses need as many scores, found {shown(scores)}")
    found = [number(score, "a score") for score in scores]
    order = {score: place for place, score in enumerate(sorted(set(found), reverse=True), start=1)}
    answers = tuple(said(text) for text in _texts(responses))
    return Parsed("", prompt, answers, tuple(order[score] for score in found), spread=max(found) - min(found))


def is_transcript(value: Any) -> bool:
    """Whether a value is written as HH-RLHF writes its dialogues, or as one with words before it, which is refused."""
    if not isinstance(value, str) or _ANSWERS not in value:
        return False
    return value.lstrip()[:6] == "Human:" or ("\n\nHuman:" in value and value.rstrip().endswith(_ANSWERS))


def has_transcripts(row: Values) -> bool:
    """Whether the texts that are compared in a row go on with a transcript, or are one."""
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt and not prompt.isspace():
        return is_transcript(prompt) and isinstance(row["chosen"], str)
    return isinstance(row["chosen"], str) and {"Human", "Assistant"} <= {*_TRANSCRIPT_TURN.findall(row["chosen"])}


def _demonstration(turns: Messages) -> Parsed:
    """Messages as a prompt and its answer; where they end with the user's, there is a prompt only."""
    if turns[-1].role != "assistant":
        return Parsed(prompt=turns)
    return Parsed(prompt=turns[:-1], answers=turns[-1:])


def compared(chosen: Messages, rejected: Messages) -> Parsed:
    """Two conversations as a prompt, the turns that they share, and two answers.

    What comes after the last answer is left out. When more than the last turn differs, the first two answers that
    differ are taken, for only these answer the same prompt. When the user's turns differ first, there is no such pair.
    """
    cut = [_until_last_answer(turns) for turns in (chosen, rejected)]
    note = AFTER_ANSWER if [len(turns) for turns in cut] != [len(chosen), len(rejected)] else ""
    chosen, rejected = cut
    if chosen == rejected:
        return _pair(chosen[:-1], chosen[-1], rejected[-1])
    n_before = n_shared(chosen, rejected)
    parting = chosen[n_before : n_before + 1] + rejected[n_before : n_before + 1]
    if [turn.role for turn in parting] != ["assistant", "assistant"]:
        raise LeftOut(NO_SHARED_PROMPT)
    if max(len(chosen), len(rejected)) > n_before + 1:
        note = DIFFER_EARLIER
    return _pair(chosen[:n_before], parting[0], parting[1], note)


def said(text: str) -> Message:
    """An answer that is a text and no more."""
    return Message("assistant", text)


def _pair(prompt: Messages, chosen: str | Message, rejected: str | Message, note: str = "") -> Parsed:
    one, other = [said(answer) if isinstance(answer, str) else answer for answer in (chosen, rejected)]
    answers = (one, other)
    if one == other:
        return Parsed("", prompt, answers, (1, 1), note=SAME_ANSWER)
    return Parsed("", prompt, answers, (1, 2), note=note)


def _until_last_answer(turns: Messages) -> Messages:
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if not answers:
        raise BadRow("there is no turn of the assistant")
    return turns[: answers[-1] + 1]


def _transcript(text: str) -> Messages:
    before, *parts = _TRANSCRIPT_TURN.split(text.strip())
    if before or not parts:
        raise BadRow(f'a transcript begins with "Human:", found {shown(text)}; take out what stands before')
    turns: list[Message] = []
    for text_model, said in zip(parts[::2], map(_spoken, parts[1::2]), strict=True):
        role: Role = "user" if text_model == "Human" else "assistant"
        if not said:
            raise LeftOut(EMPTY_TURN)
        if turns and turns[-1].role == role:
            turns[-1] = Message(role, f"{turns[-1].content}\n\n{said}")
        else:
            turns.append(Message(role, said))
    return tuple(turns)


def _spoken(text: str) -> str:
    return trimmed(text.removeprefix(" ")) if text.strip() else ""


def prompt_of(row: Values, name: str = "prompt") -> Messages:
    """The column of the prompt: a text, which is a user's turn or a transcript, or messages that end with one."""
    value = turns_or_text(value_of(row, name))
    if is_transcript(value):
        return answerable(_transcript(value.rstrip().removesuffix("Assistant:")))
    if isinstance(value, list):
        return answerable(messages_of(value, name))
    if not isinstance(value, str):
        raise BadRow(f"{name} must be a string or a list of messages, found {shown(value)}")
    return (Message("user", turn_text(value, name)),)


def _unranked(responses: Any) -> tuple[str, ...]:
    """Answers without ranks; none where they are not a list of texts, since a prompt can be had of such a row too."""
    if not (isinstance(responses, list) and all(isinstance(response, str) for response in responses)):
        return ()
    return _texts(responses)


def _texts(responses: list[Any]) -> tuple[str, ...]:
    return tuple(trimmed(string(response, "a response", may_be_empty=True)) for response in responses)
