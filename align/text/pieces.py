"""A conversation as the template writes it, cut into the pieces that are tokenised one by one.

A piece is an answer or what stands between two answers. An answer is what the template writes after its generation
prompt, up to and including the token that ends the turn (`align.text.ends`). What it writes after that (the newline of
ChatML) begins the next piece, for no model is asked to say it. Where a template ends a turn without such a token, the
answer's trailing space is left to the next piece and EOS is appended.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from align.errors import UserError
from align.text.chat import special_tokens
from align.text.ends import ends_of
from align.text.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = tuple[Message, ...]


class Piece(NamedTuple):
    """A stretch of a written conversation."""

    text: str
    is_answer: bool = False
    append_end: bool = False  # the template does not write the token that an answer ends with


class Writer:
    """Writes conversations out with a tokenizer's chat template, in pieces."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        turn = ends_of(tokenizer).turn
        if tokenizer.chat_template is None:
            raise UserError("this tokenizer has no chat template; load it with align.text.tokenizer.load_tokenizer")
        self._ends = [str(token) for token in tokenizer.convert_ids_to_tokens([turn, tokenizer.eos_token_id])]
        added = tokenizer.added_tokens_decoder.get(turn)
        self._takes_space = added is not None and added.rstrip
        self._tokenizer = tokenizer
        self._clean = special_token_remover(tokenizer)
        self._written = lru_cache(maxsize=256)(self._write)  # answers to one prompt write it once

    def conversation(self, messages: Turns, last_only: bool = False) -> list[Piece]:
        """The pieces of a demonstration, whose last turn is the assistant's.

        Raises `UserError` when the template refuses these turns, or rewrites an earlier answer that is to be learned.
        """
        if not messages or messages[-1].role != "assistant":
            raise UserError("a demonstration ends with the assistant's turn; this one does not")
        prompt, answer = messages[:-1], messages[-1].content
        return [*self.prompt(prompt, cut_needed=not last_only), self.answer(prompt, answer)]

    def prompt(self, prompt: Turns, cut_needed: bool = False) -> list[Piece]:
        """The pieces of a prompt and the generation prompt after it.

        Some templates write an answer differently once another turn follows it (those of reasoning models drop its
        thoughts). What was learned is then not what is seen later: such a prompt is one piece, or, where the answers in
        it are to be learned (`cut_needed`), a `UserError`.
        """
        whole = self._written(prompt, True)
        pieces: list[Piece] = []
        done = 0  # characters of `whole` that are in pieces
        for index in (i for i, message in enumerate(prompt) if message.role == "assistant"):
            before, through = self._written(prompt[:index], True), self._written(prompt[: index + 1], False)
            answer = self._until_end(through[len(before) :])
            if not (through.startswith(before) and whole.startswith(before + answer.text)):
                if cut_needed:
                    raise _rewritten(through, whole)
                return [Piece(whole)]
            pieces += [Piece(before[done:]), answer]
            rest = whole[len(before) + len(answer.text) :]
            if answer.append_end:  # some templates write it only before the next turn
                rest = rest.removeprefix(self._ends[0])
            if self._takes_space:  # as Phi-3's: the space after it is no token, but would be one at a piece's start
                rest = rest.lstrip()
            done = len(whole) - len(rest)
        return [*pieces, Piece(whole[done:])]

    def answer(self, prompt: Turns, response: str) -> Piece:
        """An answer as the template writes it after this prompt. Raises `UserError` if it does not go on from there."""
        before = self._written(prompt, True)
        through = self._written((*prompt, Message("assistant", response)), False)
        if not through.startswith(before):
            raise _does_not_go_on(before, through)
        return self._until_end(through[len(before) :])

    def _until_end(self, span: str) -> Piece:
        for end in self._ends:
            if (place := span.find(end)) >= 0:
                return Piece(span[: place + len(end)], is_answer=True)
        return Piece(span.rstrip(), is_answer=True, append_end=True)

    def _write(self, messages: Turns, add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        turns = [turn._replace(content=self._clean(turn.content)).as_dict() for turn in messages]
        try:
            written = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages) or "no turn"
            raise UserError(f"the chat template refuses these turns ({roles}): {error}") from None
        return str(written)


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


def _does_not_go_on(before: str, through: str) -> UserError:
    shared = _shared_length(before, through)
    return UserError(
        "this chat template does not write an answer right after its generation prompt: the prompt goes on with "
        f"{before[shared:][:40]!r}, the answered conversation with {through[shared:][:40]!r}; use a template that "
        "writes under add_generation_prompt exactly what it writes before an assistant turn"
    )


def _rewritten(through: str, whole: str) -> UserError:
    shared = _shared_length(through, whole)
    return UserError(
        "this chat template writes an answer differently once other turns follow it: "
        f"{through[shared:][:40]!r} becomes {whole[shared:][:40]!r}; learn from the last turn only, "
        "or use a template that writes every turn the same wherever it stands"
    )


def _shared_length(one: str, other: str) -> int:
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
