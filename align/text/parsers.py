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
    """A parsed row of any format: a text, or a prompt with any number of answers."""

    text: str = ""
    prompt: Messages = ()
    answers: Messages = ()  # assistant messages
    ranks: tuple[int, ...] = ()  # of the answers, 1 is best; empty if they are not ranked
    unranked: tuple[str, ...] = ()  # answers without ranks: to be scored, not to be learned from
    note: str = ""  # the rule that changed this row, if any; counted for the log
    spread: float | None = None  # the best answer's score minus the worst answer's
    margin: float | None = None  # as in `Ranking`, if the format has it
    good: bool | None = None  # whether the answer is labelled good
    learned: bool = True  # whether the row is to be learned


EMPTY_TURN = "a message of the transcript is empty"
NO_SHARED_PROMPT = "chosen and rejected do not answer the same prompt"
SAME_ANSWER = "chosen and rejected are the same: kept as a tie"
DIFFER_EARLIER = "chosen and rejected differ before the last message: the first differing answers were taken"
AFTER_ANSWER = "messages after the last answer were left out"

REPEATED = "chosen and rejected repeat the prompt: it was cut off"
TRANSCRIPT = "a transcript in the prompt was read as messages"

_ANSWERS = "\n\nAssistant:"
_STOPS = ".?!:。？！："
_TRANSCRIPT_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def parse_text(row: Values) -> Parsed:
    """{text}: kept unchanged, white space included."""
    return Parsed(text=string(value_of(row, "text"), "text"))


def parse_prompt(row: Values) -> Parsed:
    """{prompt}: a string, which is a user message, or messages that end with one."""
    return Parsed(prompt=prompt_of(row))


def parse_prompt_completion(row: Values) -> Parsed:
    """{prompt, completion}: two strings, or two lists of messages (TRL's conversational form)."""
    prompt, completion = prompt_of(row), turns_or_text(value_of(row, "completion"))
    if isinstance(completion, str):
        return Parsed(prompt=prompt, answers=(text_answer(turn_text(completion, "completion")),))
    return _demonstration(_after(prompt, messages_of(completion, "completion")))


def parse_messages(row: Values) -> Parsed:
    """{messages}: messages with role and content."""
    return _demonstration(messages_of(listed(value_of(row, "messages")), "messages"))


def parse_alpaca(row: Values) -> Parsed:
    """{instruction, input, output}: the user message is the instruction and, after a blank line, the input if any.

    LLaMA-Factory's `history` (pairs of a question and an answer) comes before it.
    """
    *before, question = prompt_of(row, "instruction")
    if given := optional(row, "input"):
        question = question._replace(content=f"{question.content}\n\n{given}")
    answer = text_answer(turn_text(value_of(row, "output"), "output"))
    return Parsed(prompt=(*_history(row.get("history")), *before, question), answers=(answer,))


def _history(value: Any) -> Messages:
    """Pairs of a question and an answer as messages; also messages in which user and assistant alternate."""
    given = listed(value)
    if is_missing(given) or given in ("", []):
        return ()
    if isinstance(given, list) and all(isinstance(turn, dict) for turn in given):
        turns = messages_of(given, "history")
        if [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2):
            return turns
    if not (isinstance(given, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given)):
        raise BadRow(f"history must be a list of [question, answer], found {shown(given)}")
    texts = [(turn_text(question, "history"), turn_text(answer, "history")) for question, answer in given]
    return tuple(turn for one, other in texts for turn in (Message("user", one), Message("assistant", other)))


def parse_sharegpt(row: Values) -> Parsed:
    """{conversations}: messages with from (human, gpt, system) and value."""
    return _demonstration(messages_of(listed(value_of(row, "conversations")), "conversations"))


def parse_question_answer(row: Values) -> Parsed:
    """{question, answer}: two strings, as in GSM8K."""
    return Parsed(
        prompt=prompt_of(row, "question"), answers=(text_answer(turn_text(value_of(row, "answer"), "answer")),)
    )


def parse_sharegpt_preference(row: Values) -> Parsed:
    """{conversations, chosen, rejected}: the shared messages, and one message each."""
    shared = messages_of(listed(value_of(row, "conversations")), "conversations")
    chosen, rejected = (messages_of(as_list(value_of(row, name)), name) for name in ("chosen", "rejected"))
    return compared((*shared, *chosen), (*shared, *rejected))


def parse_hh(row: Values) -> Parsed:
    """{chosen, rejected}: HH-RLHF's transcripts. A `prompt` column is the beginning of both, and they may repeat it.

    Consecutive messages of one role are joined. A transcript with an empty message is left out.
    """
    beginning = string(row["prompt"], "prompt", may_be_empty=True) if not is_missing(row.get("prompt")) else ""
    both = [string(value_of(row, name), name) for name in ("chosen", "rejected")]
    if not all(text.lstrip().startswith(beginning.strip()) for text in both):
        both = [beginning + text for text in both]
    return compared(*map(_transcript, both))


def parse_preference(row: Values) -> Parsed:
    """{prompt, chosen, rejected}, or {chosen, rejected} with the prompt as shared beginning; strings or messages.

    The shared beginning of two strings is cut back to whole words. Messages may repeat the prompt.
    """
    chosen, rejected = turns_or_text(value_of(row, "chosen")), turns_or_text(value_of(row, "rejected"))
    begun = row.get("prompt") or chosen
    if isinstance(begun, str) and _ANSWERS in begun and has_transcripts(row):  # the first row had no transcript
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
    question, begin = words.strip(), len(words.rstrip())
    answers = [trimmed(text[begin:]) for text in (chosen, rejected)]
    if not (question and all(answers)):
        raise BadRow("chosen and rejected have no shared prompt with two different answers; add a prompt column")
    return _pair((Message("user", question),), *answers)


def _ask_for_prompt(row: Values, chosen: Any) -> None:
    """Raises `BadRow` if another column may be the prompt."""
    known = ("prompt", "chosen", "rejected")
    texts = [name for name, value in row.items() if name not in known and _may_ask(value)]
    texts = [name for name in texts if name not in keys.ROW_NAMES and not name.startswith("_")]
    if texts and not is_transcript(chosen) and (isinstance(chosen, str) or _begins_with_answer(chosen)):
        raise BadRow(
            f"there is no column prompt, but {', '.join(texts)}; if that is the prompt, set data.columns="
            f"{{prompt: {texts[0]}}}, else data.columns={{_{texts[0]}: {texts[0]}}}"
        )


def _may_ask(value: Any) -> bool:
    """Whether a value is a text or messages."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, list) and any(isinstance(turn, dict) for turn in value)


def _begins_with_answer(turns: Any) -> bool:
    return bool(turns) and isinstance(turns, list) and messages_of(turns[:1], "chosen")[0].role == "assistant"


def _after(prompt: Messages, turns: Messages) -> Messages:
    """The prompt and the messages of an answer, which may repeat the prompt. Raises `BadRow` for another prompt."""
    if turns[0].role == "assistant" or not prompt:
        return (*prompt, *turns)
    if prompt[-1] not in turns:
        raise BadRow(
            f"the messages do not contain the prompt's last one, {shown(prompt[-1].content)}; remove the prompt "
            "column or the first messages"
        )
    system = [turn for turn in prompt[:1] if turn.role == "system" and turns[0].role != "system"]
    return (*system, *turns)


def _unrepeated(prompt: Messages, *answers: str) -> Parsed | None:
    """The pair without the prompt, if both answers begin with it; else None.

    One word without a full stop is not enough, because answers may begin with the same word.
    """
    question = prompt[-1].content
    if not (answers[0].startswith(question) and answers[1].startswith(question)):
        return None
    rests = [answer.removeprefix(question) for answer in answers]
    if question[-1] not in _STOPS and (len(question.split()) == 1 or any(rest[:1].strip() for rest in rests)):
        return None
    chosen, rejected = (turn_text(rest, "an answer without the repeated prompt") for rest in rests)
    return _pair(prompt, chosen, rejected, REPEATED)


def parse_ranking(row: Values) -> Parsed:
    """{prompt, responses, ranks}: K >= 2 answers, rank 1 is best, equal ranks are ties. Ranks may be missing.

    With scores but no ranks, the highest score is best. An answer may be empty: a model can answer nothing, and
    annotators rank that too. Ranks are renumbered from 1.
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
    answers = tuple(text_answer(text) for text in _texts(responses))
    order = {rank: place for place, rank in enumerate(sorted({rank_of(rank) for rank in ranks}), start=1)}
    return Parsed("", prompt, answers, tuple(order[rank_of(rank)] for rank in ranks))


def _by_scores(prompt: Messages, responses: list[Any], scores: Any) -> Parsed:
    """Ranks answers by their scores; equal scores are ties."""
    if not (isinstance(scores, list) and len(scores) == len(responses)):
        raise BadRow(f"{len(responses)} responses need as many scores, found {shown(scores)}")
    found = [number(score, "a score") for score in scores]
    order = {score: place for place, score in enumerate(sorted(set(found), reverse=True), start=1)}
    answers = tuple(text_answer(text) for text in _texts(responses))
    return Parsed("", prompt, answers, tuple(order[score] for score in found), spread=max(found) - min(found))


def is_transcript(value: Any) -> bool:
    """Whether a value is a dialogue as HH-RLHF writes it, also one with text before it, which is refused later."""
    if not isinstance(value, str) or _ANSWERS not in value:
        return False
    return value.lstrip()[:6] == "Human:" or ("\n\nHuman:" in value and value.rstrip().endswith(_ANSWERS))


def has_transcripts(row: Values) -> bool:
    """Whether the row's prompt, or chosen if there is none, is a transcript."""
    prompt = row.get("prompt")
    if isinstance(prompt, str) and prompt and not prompt.isspace():
        return is_transcript(prompt) and isinstance(row["chosen"], str)
    return isinstance(row["chosen"], str) and {"Human", "Assistant"} <= {*_TRANSCRIPT_TURN.findall(row["chosen"])}


def _demonstration(turns: Messages) -> Parsed:
    """Splits messages into prompt and answer. If they do not end with the assistant, all are the prompt."""
    if turns[-1].role != "assistant":
        return Parsed(prompt=turns)
    return Parsed(prompt=turns[:-1], answers=turns[-1:])


def compared(chosen: Messages, rejected: Messages) -> Parsed:
    """Two conversations as a pair: the shared messages are the prompt, the first differing answers are compared.

    Messages after the last answer are left out. Only the first two differing answers have the same prompt, so later
    differences are left out too. If user messages differ first, there is no pair: `LeftOut`.
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


def text_answer(text: str) -> Message:
    """An assistant message with only a text."""
    return Message("assistant", text)


def _pair(prompt: Messages, chosen: str | Message, rejected: str | Message, note: str = "") -> Parsed:
    one, other = [text_answer(answer) if isinstance(answer, str) else answer for answer in (chosen, rejected)]
    answers = (one, other)
    if one == other:
        return Parsed("", prompt, answers, (1, 1), note=SAME_ANSWER)
    return Parsed("", prompt, answers, (1, 2), note=note)


def _until_last_answer(turns: Messages) -> Messages:
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if not answers:
        raise BadRow("there is no assistant message")
    return turns[: answers[-1] + 1]


def _transcript(text: str) -> Messages:
    before, *parts = _TRANSCRIPT_TURN.split(text.strip())
    if before or not parts:
        raise BadRow(f'a transcript must begin with "Human:", found {shown(text)}; remove the text before it')
    turns: list[Message] = []
    for name, content in zip(parts[::2], map(_content, parts[1::2]), strict=True):
        role: Role = "user" if name == "Human" else "assistant"
        if not content:
            raise LeftOut(EMPTY_TURN)
        if turns and turns[-1].role == role:
            turns[-1] = Message(role, f"{turns[-1].content}\n\n{content}")
        else:
            turns.append(Message(role, content))
    return tuple(turns)


def _content(text: str) -> str:
    return trimmed(text.removeprefix(" ")) if text.strip() else ""


def prompt_of(row: Values, name: str = "prompt") -> Messages:
    """The messages of the prompt column: a text (user message or transcript), or messages that end with the user."""
    value = turns_or_text(value_of(row, name))
    if is_transcript(value):
        return answerable(_transcript(value.rstrip().removesuffix("Assistant:")))
    if isinstance(value, list):
        return answerable(messages_of(value, name))
    if not isinstance(value, str):
        raise BadRow(f"{name} must be a string or a list of messages, found {shown(value)}")
    return (Message("user", turn_text(value, name)),)


def _unranked(responses: Any) -> tuple[str, ...]:
    """Answers without ranks. Empty if they are not a list of texts: the row can still give a prompt."""
    if not (isinstance(responses, list) and all(isinstance(response, str) for response in responses)):
        return ()
    return _texts(responses)


def _texts(responses: list[Any]) -> tuple[str, ...]:
    return tuple(trimmed(string(response, "a response", may_be_empty=True)) for response in responses)
