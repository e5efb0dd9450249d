"""A conversation as the template writes it, and where in it the answers stand.

A written conversation is cut into spans: an answer, or what stands between two answers. An answer is what the template
writes after its generation prompt, up to and including the token that ends the turn (`align.text.ends`). What it writes
after that (the newline of ChatML) begins the next span, for no model is asked to say it.

Three kinds of templates make this less than plain.

- One that ends a turn without such a token, or only before the next turn. An end is appended where an answer is the
  last, and nowhere else: a prompt is exactly what the template writes.
- One that writes an answer otherwise once other turns follow it: those of reasoning models drop its thoughts. Such a
  conversation becomes several rows, one for each answer that was rewritten, each after its history as it was then.
- One whose generation prompt opens a thought. An answer with thoughts goes on from there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from align.errors import UserError
from align.text.chat import special_tokens
from align.text.ends import ends_of
from align.text.records import Message
from align.text.template import THOUGHT_MARKS, Messages, Template, answer_parts, opened_by
from align.text.values import n_shared

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Span(NamedTuple):
    """A stretch of a written conversation."""

    text: str
    turn: int | None = None  # the turn that it is the answer of
    append_end: bool = False  # the template does not write the token that an answer ends with
    is_target: bool = False


Row = list[Span]

_NAME = re.compile(r'"name": *"([^"]+)"')  # of a function that is called


class Writer:
    """Writes conversations out with a tokenizer's chat template, in spans."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._template = Template.of(tokenizer)
        self._ends = [str(token) for token in tokenizer.convert_ids_to_tokens(list(ends_of(tokenizer).ids))]
        self._specials = special_tokens(tokenizer)
        self._marks = [pair for pair in THOUGHT_MARKS if pair[0] in self._specials]
        self._remove = special_token_remover(tokenizer)
        self.taken_out: Counter[str] = Counter()  # special tokens that stood in contents, and in how many
        self._clean = lru_cache(maxsize=4096)(self._cleaned)  # each turn is written several times
        self._written = lru_cache(maxsize=1024)(self._write)  # answers to one prompt write it once
        self._cut = lru_cache(maxsize=1024)(self._cut_prompt)

    def conversation(self, messages: Messages, last_only: bool = False) -> list[Row]:
        """The rows of a demonstration, whose last turn is the assistant's: together they teach each answer once.

        One row, unless the template rewrites earlier answers. What an assistant says before anybody has asked is not
        learned.
        Raises `UserError` when the template refuses these turns, or does not write one of them.
        """
        if not messages or messages[-1].role != "assistant":
            raise UserError("a demonstration ends with the assistant's turn; this one does not")
        final = len(messages) - 1
        wanted = {i for i in _answers(messages) if messages[i].learned and (i == final or not last_only)}
        rows: list[Row] = []
        left = wanted or {final}
        while left:
            last = max(left)
            spans = [*self.prompt(messages[:last]), self.answer(messages[:last], messages[last])._replace(turn=last)]
            for turn, text in ((span.turn, span.text) for span in spans if span.turn in left & wanted):
                _check_whole(turn + 1, self._clean(messages[turn]), text)
            rows.append([span._replace(is_target=span.turn in left & wanted) for span in spans])
            left = left - {span.turn for span in spans}
        return rows[::-1]

    def prompt(self, prompt: Messages) -> Row:
        """The spans of a prompt and the generation prompt after it: together exactly what the template writes.

        Answers that it writes as they were said are spans of their own.
        """
        return self._cut(prompt)

    def text(self, prompt: Messages) -> Span:
        """A prompt in one span: what stands before its answer."""
        return Span(self._written(prompt, True))

    def answer(self, prompt: Messages, answer: Message) -> Span:
        """An answer as the template writes it after this prompt. Raises `UserError` if it does not go on from there."""
        before = self._written(prompt, True)
        through = self._written((*prompt, answer), False)
        answer = self._clean(answer)
        if through.startswith(before):
            span = self._until_end(through[len(before) :])
        else:
            span = self._until_end(self._after_opening(before, through, prompt, answer))
        _check_whole(len(prompt) + 1, answer, span.text)
        return span

    def _cut_prompt(self, prompt: Messages) -> Row:
        whole = self._written(prompt, True)
        spans: Row = []
        done = 0  # characters of `whole` that are in spans
        for index in _answers(prompt):
            before, through = self._written(prompt[:index], True), self._written(prompt[: index + 1], False)
            answer = self._until_end(through[len(before) :])
            text = answer.text
            rest = whole[len(before) + len(text) :]
            if answer.append_end:  # some templates write an end only before the next turn
                space = rest[: len(rest) - len(rest.lstrip())]
                end = next((space + end for end in self._ends if rest.startswith(space + end)), None)
                text += end or ""
            is_as_said = through.startswith(before) and whole.startswith(before + text)
            if is_as_said and not (answer.append_end and end is None):
                spans += [Span(before[done:]), Span(text, index)]
                done = len(before) + len(text)
        return [*spans, Span(whole[done:])]

    def _after_opening(self, before: str, through: str, prompt: Messages, answer: Message) -> str:
        """What follows a generation prompt that opens a thought, of which the template then writes nothing."""
        opening = opened_by(before)
        start, _, space = before.rpartition(opening) if opening else ("", "", "")
        written = through.removeprefix(start)
        closing = dict(THOUGHT_MARKS).get(opening, "")
        content = answer.content
        said = f"{opening}\n{answer.thoughts.strip()}\n{closing}\n\n{content}" if answer.thoughts else content.lstrip()
        spoken = said.rpartition(closing)[2].strip() if closing else ""
        lead, spoken, after = written.partition(spoken) if spoken else ("", "", "")
        if not (opening and through.startswith(start)) or lead.strip():
            raise _does_not_go_on(before, through, prompt, answer)
        if not (said.startswith(opening) and closing in said):
            raise _no_thoughts(opening)
        return said.removeprefix(opening).removeprefix(space).lstrip(" ") + (after if spoken else written)

    def _until_end(self, text: str) -> Span:
        for end in self._ends:
            if (place := text.find(end)) >= 0:
                return Span(text[: place + len(end)])
        return Span(text.rstrip(), append_end=True)

    def _write(self, messages: Messages, add_generation_prompt: bool) -> str:
        turns = tuple(map(self._clean, messages))
        written = self._template.write(turns, add_generation_prompt)
        check_written(self._template, turns, written)
        return written

    def _cleaned(self, turn: Message) -> Message:
        """A turn without special tokens, but for those that mark the thoughts at an answer's beginning."""
        content = turn.content
        kept = ""
        for opening, closing in self._marks if turn.role == "assistant" else ():
            inside, mark, rest = content.lstrip().removeprefix(opening).partition(closing)
            if mark and content.lstrip().startswith(opening):
                kept, content = opening + self._removed(inside) + closing, rest
        cleaned = turn._replace(content=kept + self._removed(content))
        if turn.thoughts or turn.calls or turn.name:
            calls = json.dumps(json.loads(turn.calls), ensure_ascii=False) if turn.calls else ""
            thoughts, calls, name = map(self._removed, (turn.thoughts, calls, turn.name))
            cleaned = cleaned._replace(thoughts=thoughts, calls=calls, name=name)
        return cleaned

    def _removed(self, text: str) -> str:
        cleaned = self._remove(text)
        if cleaned != text:
            self.taken_out.update(token for token in {*self._specials, self._ends[0]} if token in text)
        return cleaned


def _check_whole(number: int, answer: Message, written: str) -> None:
    """Raises `UserError` if an answer that is to be learned was not written whole."""
    if answer.content.strip() in written and not (answer.thoughts or answer.calls):
        return  # as most: the parts of a content that is there are there
    for said in [*answer_parts(answer.content), answer.thoughts.strip(), *_NAME.findall(answer.calls)]:
        if said not in written:
            raise _not_written(number, answer, said, written)


def _answers(messages: Messages) -> list[int]:
    """The assistant's turns that somebody asked for."""
    asked = next((i for i, turn in enumerate(messages) if turn.role in ("user", "tool")), len(messages))
    return [i for i, turn in enumerate(messages) if i > asked and turn.role == "assistant"]


def check_written(template: Template, turns: Messages, written: str) -> None:
    """Raises `UserError` if a turn is not in what was written of all. Thoughts of earlier turns need not be."""
    for number, turn in enumerate(turns, start=1):
        if turn.content.strip() in written and not turn.calls:
            continue
        if turn.role == "tools":
            wanted = [] if template.writes_tools else [turn.content]
        elif turn.role == "assistant":
            wanted = [*_NAME.findall(turn.calls)[:1], *answer_parts(turn.content)[-1:]]
        else:
            wanted = [turn.content.strip()]
        for said in wanted:
            if said not in written and json.dumps(said, ensure_ascii=False)[1:-1] not in written:  # as gpt-oss writes
                raise _not_written(number, turn, said, "")


def special_token_remover(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """Takes special tokens that are written out in a text (`</s>` in a web page) out of it: they would end a turn."""
    texts = special_tokens(tokenizer)
    if tokenizer.eos_token_id is not None:  # encoders end no turn
        texts.add(str(tokenizer.convert_ids_to_tokens(ends_of(tokenizer).turn)))  # which need not be a special token
    longest_first = sorted(texts, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))

    def remove(text: str) -> str:
        while pattern.search(text):  # again, for what is left may close up to another: <|us<|pad|>er|>
            text = pattern.sub("", text)
        return text

    return remove


def _does_not_go_on(before: str, through: str, prompt: Messages, answer: Message) -> UserError:
    helps = [
        "give data.template a template that writes under add_generation_prompt exactly what it writes before an "
        "assistant turn"
    ]
    if answer.thoughts:
        helps.append("data.thoughts=drop leaves thoughts out, data.template_options may let the template think")
    elif len(answer_parts(answer.content)) > 1:
        helps.append("data.template_options may let the template think, else take the thoughts out of the contents")
    if prompt[-1].role == "assistant":
        helps.append("data.same_role=join makes one turn of two of the assistant's")
    shared = n_shared(before, through)
    return UserError(
        "this chat template does not write an answer right after its generation prompt: the prompt goes on with "
        f"{before[shared:][:40]!r}, the answered conversation with {through[shared:][:40]!r}; "
        + "; or ".join(helps[::-1])
    )


def _no_thoughts(opening: str) -> UserError:
    return UserError(
        f"this chat template's generation prompt opens a thought ({opening}), and this answer has none; give rows "
        "thoughts (reasoning_content), switch thinking off if the template can (data.template_options="
        "{enable_thinking: false}), or give a template without it (data.template)"
    )


def _not_written(number: int, turn: Message, said: str, found: str) -> UserError:
    instead = f"; it writes {found[:60]!r}" if found else ""
    if turn.role == "system":
        helps = "data.system=merge puts system turns before the user's, data.system=drop leaves them out"
    elif turn.role in ("tools", "tool") or (turn.calls and said in turn.calls):
        helps = "data.template can name a template that knows tools"
        helps += ", data.columns={_tools: tools} leaves them unread" if turn.role == "tools" else ""
    elif said == turn.thoughts.strip():
        helps = "data.thoughts=inline writes thoughts into the answer, data.thoughts=drop leaves them out"
    else:
        helps = "data.template can name a template that writes it"
    return UserError(
        f"the chat template does not write all of turn {number} ({turn.role}): {said[:60]!r} is not in it{instead}; "
        f"{helps}"
    )
