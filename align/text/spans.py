"""Renders a conversation with the chat template and finds the span of each answer in it.

The rendered text is cut into spans: an answer, or the text between two answers. An answer is the text that the template
writes after its generation prompt, up to and including the token that ends the message (`align.text.ends`). Text after
that token (ChatML's newline) belongs to the next span, because no model has to generate it.

Three kinds of templates need special care:

- Templates that end a message without such a token, or write it only before the next message. The end token is appended
  if the answer is the last message, and only then: a prompt is exactly the text that the template writes.
- Templates that rewrite an answer when other messages follow it: those of reasoning models drop its thoughts. Such a
  conversation becomes several rows, one for each rewritten answer, each after its history at that point.
- Templates with a generation prompt that opens a thought. An answer with thoughts continues from there.
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
    """A part of a rendered conversation."""

    text: str
    turn: int | None = None  # index of the assistant message, if it is an answer
    append_end: bool = False  # the end token has to be appended, because the template does not write it
    is_target: bool = False


Row = list[Span]

_NAME = re.compile(r'"name": *"([^"]+)"')  # the name of a called function


class Writer:
    """Renders conversations with a tokenizer's chat template, as spans."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._template = Template.of(tokenizer)
        self._ends = [str(token) for token in tokenizer.convert_ids_to_tokens(list(ends_of(tokenizer).ids))]
        self._specials = special_tokens(tokenizer)
        self._marks = [pair for pair in THOUGHT_MARKS if pair[0] in self._specials]
        self._remove = special_token_remover(tokenizer)
        self.taken_out: Counter[str] = Counter()  # special tokens removed from contents, with counts
        self._clean = lru_cache(maxsize=4096)(self._cleaned)  # each message is rendered several times
        self._written = lru_cache(maxsize=1024)(self._write)  # answers share their prompt
        self._cut = lru_cache(maxsize=1024)(self._cut_prompt)

    def conversation(self, messages: Messages, last_only: bool = False) -> list[Row]:
        """The rows of a demonstration: together they have each answer once as a target.

        One row, unless the template rewrites earlier answers. An assistant message before the first user message is
        never a target.
        Raises `UserError` if the last message is not the assistant's, if the template refuses these messages, or if it
        does not write one of them.
        """
        if not messages or messages[-1].role != "assistant":
            raise UserError("a demonstration must end with an assistant message; this one does not")
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
        """The spans of a prompt with the generation prompt: together exactly the text that the template writes.

        Answers that the template does not rewrite are separate spans.
        """
        return self._cut(prompt)

    def text(self, prompt: Messages) -> Span:
        """A prompt with the generation prompt as one span."""
        return Span(self._written(prompt, True))

    def answer(self, prompt: Messages, answer: Message) -> Span:
        """An answer as the template writes it after this prompt. Raises `UserError` if it does not follow on."""
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
            if answer.append_end:  # some templates write an end token only before the next message
                space = rest[: len(rest) - len(rest.lstrip())]
                end = next((space + end for end in self._ends if rest.startswith(space + end)), None)
                text += end or ""
            is_unchanged = through.startswith(before) and whole.startswith(before + text)
            if is_unchanged and not (answer.append_end and end is None):
                spans += [Span(before[done:]), Span(text, index)]
                done = len(before) + len(text)
        return [*spans, Span(whole[done:])]

    def _after_opening(self, before: str, through: str, prompt: Messages, answer: Message) -> str:
        """The answer after a generation prompt that opens a thought, if the template does not write that opening."""
        opening = opened_by(before)
        start, _, space = before.rpartition(opening) if opening else ("", "", "")
        written = through.removeprefix(start)
        closing = dict(THOUGHT_MARKS).get(opening, "")
        content = answer.content
        full = f"{opening}\n{answer.thoughts.strip()}\n{closing}\n\n{content}" if answer.thoughts else content.lstrip()
        visible = full.rpartition(closing)[2].strip() if closing else ""
        lead, visible, after = written.partition(visible) if visible else ("", "", "")
        if not (opening and through.startswith(start)) or lead.strip():
            raise _does_not_continue(before, through, prompt, answer)
        if not (full.startswith(opening) and closing in full):
            raise _no_thoughts(opening)
        return full.removeprefix(opening).removeprefix(space).lstrip(" ") + (after if visible else written)

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
        """A message without special tokens, except those around thoughts at the start of an answer."""
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
    """Raises `UserError` if the template did not write all of a target answer."""
    if answer.content.strip() in written and not (answer.thoughts or answer.calls):
        return  # the usual case
    for part in [*answer_parts(answer.content), answer.thoughts.strip(), *_NAME.findall(answer.calls)]:
        if part not in written:
            raise _not_written(number, answer, part, written)


def _answers(messages: Messages) -> list[int]:
    """Indices of the assistant messages after the first user or tool message."""
    first = next((i for i, turn in enumerate(messages) if turn.role in ("user", "tool")), len(messages))
    return [i for i, turn in enumerate(messages) if i > first and turn.role == "assistant"]


def check_written(template: Template, turns: Messages, written: str) -> None:
    """Raises `UserError` if a message is missing in the rendered text. Thoughts of earlier messages may be missing."""
    for number, turn in enumerate(turns, start=1):
        if turn.content.strip() in written and not turn.calls:
            continue
        if turn.role == "tools":
            wanted = [] if template.writes_tools else [turn.content]
        elif turn.role == "assistant":
            wanted = [*_NAME.findall(turn.calls)[:1], *answer_parts(turn.content)[-1:]]
        else:
            wanted = [turn.content.strip()]
        for text in wanted:
            if text not in written and json.dumps(text, ensure_ascii=False)[1:-1] not in written:  # as gpt-oss writes
                raise _not_written(number, turn, text, "")


def special_token_remover(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """A function that removes special tokens from a text (`</s>` in a web page): they would end a message."""
    texts = special_tokens(tokenizer)
    if tokenizer.eos_token_id is not None:  # encoders have none
        texts.add(str(tokenizer.convert_ids_to_tokens(ends_of(tokenizer).turn)))  # may not be a special token
    longest_first = sorted(texts, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))

    def remove(text: str) -> str:
        while pattern.search(text):  # again, because removing one may form another: <|us<|pad|>er|>
            text = pattern.sub("", text)
        return text

    return remove


def _does_not_continue(before: str, through: str, prompt: Messages, answer: Message) -> UserError:
    helps = [
        "set data.template to a template whose generation prompt is exactly the text that it writes before an "
        "assistant message"
    ]
    if answer.thoughts:
        helps.append("data.thoughts=drop removes thoughts; data.template_options may switch thinking on")
    elif len(answer_parts(answer.content)) > 1:
        helps.append("data.template_options may switch thinking on; else remove the thoughts from the contents")
    if prompt[-1].role == "assistant":
        helps.append("data.same_role=join joins two assistant messages")
    shared = n_shared(before, through)
    return UserError(
        "this chat template does not write the answer right after its generation prompt: the prompt continues with "
        f"{before[shared:][:40]!r}, the conversation with the answer with {through[shared:][:40]!r}; "
        + "; or ".join(helps[::-1])
    )


def _no_thoughts(opening: str) -> UserError:
    return UserError(
        f"the generation prompt of this chat template opens a thought ({opening}), but this answer has none; add "
        "thoughts to the rows (reasoning_content), switch thinking off if the template can (data.template_options="
        "{enable_thinking: false}), or set data.template to one without thoughts"
    )


def _not_written(number: int, turn: Message, missing: str, found: str) -> UserError:
    instead = f"; it writes {found[:60]!r}" if found else ""
    if turn.role == "system":
        helps = "data.system=merge merges system messages into the next user message, data.system=drop removes them"
    elif turn.role in ("tools", "tool") or (turn.calls and missing in turn.calls):
        helps = "set data.template to a template that writes tools"
        helps += ", or ignore them with data.columns={_tools: tools}" if turn.role == "tools" else ""
    elif missing == turn.thoughts.strip():
        helps = "data.thoughts=inline writes thoughts into the answer, data.thoughts=drop removes them"
    else:
        helps = "set data.template to a template that writes it"
    return UserError(
        f"the chat template does not write all of message {number} ({turn.role}): {missing[:60]!r} is missing"
        f"{instead}; {helps}"
    )
