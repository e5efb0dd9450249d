"""Encodes conversations, prompts and answers as tokens with the tokenizer's chat template, and decodes answers.

One rule holds everywhere: a prompt has the same tokens in training and in sampling:

    encode_conversation(prompt + [assistant: answer]).ids == encode_prompt(prompt) + encode_response(prompt, answer)

The rendered conversation is cut before and after each answer (`align.text.spans`). Each span is tokenised together
with the text before it, back to the last added token, and keeps its own tokens: those that `apply_chat_template` gives
for the whole text. Only a token that would cross the start of an answer is cut. The template alone decides about BOS:
none is added, whatever the tokenizer does by default. Special tokens that are written out in a content are removed
first, with one warning.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain, islice, repeat, takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple

from align.errors import UserError
from align.text.chat import own_bos
from align.text.ends import ends_of
from align.text.records import Conversation, Message
from align.text.rows import uncollected
from align.text.spans import Row, Writer, special_token_remover
from align.text.template import Marks, Template
from align.text.values import trimmed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CHUNK = 1000  # texts in one call of the tokenizer: enough for its threads, little memory


class Encoded(NamedTuple):
    """A conversation as tokens. `is_target[t]`: token t belongs to an answer and is trained on."""

    ids: list[int]
    is_target: list[bool]
    truncated: bool = False


class Counts(NamedTuple):
    """Counts of `encode_conversations`. A conversation may become several rows."""

    kept: int
    truncated: int  # among those kept
    too_long: int  # left out because of too_long="drop"
    without_answer: int  # left out: the prompt alone fills max_tokens
    not_learned: int = 0  # left out: no answer is a training target
    unrolled: int = 0  # conversations that became several rows, because the template rewrites earlier answers
    added_rows: int = 0  # rows that unrolling added
    added_tokens: int = 0

    def lines(self, max_tokens: int) -> list[str]:
        """Log lines for conversations that were cut, left out or unrolled."""
        total = self.kept + self.too_long + self.without_answer
        reasons = [
            (self.truncated, "cut"),
            (self.too_long, "left out as too long"),
            (self.without_answer, "left out, because the prompt alone fills them"),
        ]
        lines = [
            f"{count} of {total} conversations {what} (max_tokens={max_tokens})" for count, what in reasons if count
        ]
        if self.not_learned:
            lines.append(f"{self.not_learned} conversations left out: no answer in them is a training target")
        if self.unrolled:
            lines.append(
                f"{self.unrolled} conversations became {self.unrolled + self.added_rows} rows, {self.added_tokens:,} "
                "more tokens: the chat template rewrites an answer when other messages follow it, so each answer is "
                "trained on after its own history. targets=last trains on the last answer only"
            )
        return lines


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_tokens: int, last_only: bool = False
) -> Encoded:
    """A demonstration as tokens, cut at `max_tokens`.

    Targets are all assistant messages that are to be learned, or the last one only. The token that ends an answer is
    part of it. Raises `UserError` if the template cannot write these messages (see `align.text.spans`), or rewrites
    earlier answers so that they need several rows.
    """
    writer = Writer(tokenizer)
    rows = writer.conversation(tuple(messages), last_only)
    _warn_removed(tokenizer, writer)
    if len(rows) > 1:
        raise UserError(
            f"this chat template rewrites earlier answers, so this conversation needs {len(rows)} rows; call "
            "encode_conversations, or train on the last answer only"
        )
    return _encoded(tokenizer, rows, max_tokens)[0]


@uncollected()
def encode_conversations(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    max_tokens: int,
    too_long: Literal["truncate", "drop"] = "truncate",
    last_only: bool = False,
) -> tuple[list[Encoded], Counts]:
    """`encode_conversation` for many, in order, and counts. Conversations without a target are left out.

    If the template rewrites earlier answers, a conversation becomes several consecutive rows.
    Raises `UserError` that names the row that the template refuses, or says why no row is left.
    """
    writer = Writer(tokenizer)
    written = []
    for row in conversations:
        with _with_source(row.source):
            written.append(writer.conversation(row.messages, last_only))
    _warn_removed(tokenizer, writer)
    teaching = [rows for rows in written if any(span.is_target for row in rows for span in row)]
    encoded = _encoded(tokenizer, list(chain.from_iterable(teaching)), max_tokens)
    fitting = [row for row in encoded if too_long == "truncate" or not row.truncated]
    kept = [row for row in fitting if any(row.is_target)]
    counts = Counts(
        len(kept),
        sum(row.truncated for row in kept),
        len(encoded) - len(fitting),
        len(fitting) - len(kept),
        len(written) - len(teaching),
        *_unrolled(teaching, encoded),
    )
    if written and not kept:
        raise UserError("; ".join(["no conversation is left", *counts.lines(max_tokens), "raise data.max_tokens"]))
    return kept, counts


def _unrolled(conversations: list[list[Row]], encoded: list[Encoded]) -> tuple[int, int, int]:
    """The number of conversations with several rows, of their rows except the last, and of the tokens in these."""
    ends = list(accumulate(len(rows) for rows in conversations))
    several = [(end - len(rows), end) for rows, end in zip(conversations, ends, strict=True) if len(rows) > 1]
    added = [row for start, end in several for row in encoded[start : end - 1]]
    return len(several), len(added), sum(len(row.ids) for row in added)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The tokens that a model sees before it answers: the messages and the generation prompt."""
    return encode_prompts(tokenizer, [messages])[0]


@uncollected()
def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]], sources: Iterable[str] = ()
) -> list[list[int]]:
    """`encode_prompt` for many. Raises `UserError` if the template refuses one. `sources` name the rows in errors."""
    writer, rows = Writer(tokenizer), []
    for messages, source in zip(prompts, chain(sources, repeat("")), strict=False):
        with _with_source(source):
            rows.append(writer.prompt(tuple(messages)))
    _warn_removed(tokenizer, writer)
    return [list(chain.from_iterable(ids)) for ids in _span_ids(tokenizer, rows)]


def encode_response(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], response: str) -> list[int]:
    """The tokens of an answer. They follow those of `encode_prompt` and end in exactly one end token."""
    return encode_responses(tokenizer, [(messages, response)])[0]


@uncollected()
def encode_responses(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[tuple[Sequence[Message], str]], sources: Iterable[str] = ()
) -> list[list[int]]:
    """`encode_response` for many (prompt, response). Raises `UserError` as `encode_prompts` does."""
    writer, rows = Writer(tokenizer), []
    for (messages, response), source in zip(pairs, chain(sources, repeat("")), strict=False):
        with _with_source(source):
            prompt, answer = tuple(messages), Message("assistant", response)
            rows.append([writer.text(prompt), writer.answer(prompt, answer)])
    _warn_removed(tokenizer, writer)
    return [ids[-1] for ids in _span_ids(tokenizer, rows, last_only=True)]


def encode_documents(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], chunk: int = CHUNK
) -> Iterator[list[int]]:
    """The tokens of each text, with EOS at the end, and with BOS at the start if the tokenizer adds it by itself.

    Reads `chunk` texts at a time, so a corpus can be streamed.
    """
    without_special_tokens, bos = special_token_remover(tokenizer), own_bos(tokenizer)
    remaining = iter(texts)
    while now := [without_special_tokens(text) for text in islice(remaining, chunk)]:
        yield from ([*bos, *ids, tokenizer.eos_token_id] for ids in _tokenise(tokenizer, now))


class DecodedAnswer(NamedTuple):
    """A sampled answer as text, and the thoughts before it."""

    text: str
    thoughts: str = ""


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Sampled tokens up to the first end token as text, without thoughts, special tokens and surrounding space."""
    return decode_answer(tokenizer, ids).text


def decode_answer(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], prompt_ids: Sequence[int] = ()
) -> DecodedAnswer:
    """Sampled tokens up to the first end token as text. Thoughts that the template marks are returned separately.

    `prompt_ids` are the tokens before the answer, because a generation prompt may open the thought. A thought that is
    never closed leaves an empty answer.
    """
    ends = ends_of(tokenizer).ids
    answer = list(takewhile(lambda token: token not in ends, ids))
    marks = Template.of(tokenizer).marks
    thoughts, words = _split_thoughts(tokenizer, answer, marks, prompt_ids)
    if words is None:
        return DecodedAnswer(trimmed(str(tokenizer.decode(answer, skip_special_tokens=True))), "")
    clean = special_token_remover(tokenizer)
    return DecodedAnswer(trimmed(clean(words)), clean(thoughts).strip())


def _split_thoughts(
    tokenizer: PreTrainedTokenizerBase, answer: list[int], marks: Marks, prompt_ids: Sequence[int]
) -> tuple[str, str | None]:
    """The thoughts and the answer, special tokens included. The answer is None if there is no thought mark."""
    if not any(marks):
        return "", None
    written = str(tokenizer.decode(answer, skip_special_tokens=False)).strip()
    is_open = bool(marks.opening) and str(tokenizer.decode(list(prompt_ids[-16:]))).rstrip().endswith(marks.opening)
    is_thought = bool(marks.opening) and (is_open or written.startswith(marks.opening))
    first = re.match(r"<[^<>]+>", marks.closing) if is_thought else None  # what follows it may be a call
    for closing in (marks.closing, first.group() if first else ""):
        if closing and closing in written:
            thoughts, _, words = written.partition(closing)
            return thoughts.strip().removeprefix(marks.opening), words
    if is_thought:
        return written.removeprefix(marks.opening), ""
    if marks.lead and written.startswith(marks.lead):
        return "", written.removeprefix(marks.lead)
    return "", None


@contextmanager
def _with_source(source: str) -> Iterator[None]:
    """Prefixes a `UserError` with the source of the row, if it has one."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source}: {error}" if source else str(error)) from None


def _warn_removed(tokenizer: PreTrainedTokenizerBase, writer: Writer) -> None:
    """Warns once for each special token that was removed from contents."""
    warned: set[str] = vars(tokenizer).setdefault("_align_removed", set())
    if new := {token: count for token, count in writer.taken_out.items() if token not in warned}:
        warned.update(new)
        counted = ", ".join(f"{token} ({count} texts)" for token, count in new.items())
        _LOG.warning("special tokens of this tokenizer were found in contents and removed: %s", counted)


def _encoded(tokenizer: PreTrainedTokenizerBase, rows: list[Row], max_tokens: int) -> list[Encoded]:
    encoded = []
    for spans, ids in zip(rows, _span_ids(tokenizer, rows), strict=True):
        tokens = list(chain.from_iterable(ids))
        is_target: list[bool] = []
        for span, own in zip(spans, ids, strict=True):
            is_target += [span.is_target] * len(own)
        encoded.append(Encoded(tokens[:max_tokens], is_target[:max_tokens], len(tokens) > max_tokens))
    return encoded


def _span_ids(tokenizer: PreTrainedTokenizerBase, rows: list[Row], last_only: bool = False) -> list[list[list[int]]]:
    """The tokens of each span of each row, or only of each row's last span.

    The tokenizer gets every distinct text once, all in one call: several times faster than one by one.
    """
    known = _TokenizedSpans(tokenizer, rows, last_only)
    turn = ends_of(tokenizer).turn
    found = []
    for row, texts in zip(rows, known.texts, strict=True):
        spans = row[-len(texts) :]
        ids = [known.ids(*text) for text in texts]
        found.append([[*own, turn] if span.append_end else own for span, own in zip(spans, ids, strict=True)])
    return found


class _TokenizedSpans:
    """Spans with their contexts, and the tokens of all these texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: list[Row], last_only: bool) -> None:
        added = [*tokenizer.added_tokens_decoder.values()]
        contents = sorted({token.content for token in added}, key=len, reverse=True)
        self._until_added = re.compile(f"(?s).*(?={'|'.join(map(re.escape, contents)) or '(?!)'})")
        self._anchor = next((token.content for token in added if not token.rstrip), str(tokenizer.eos_token))
        self.texts = [list(self._with_context(row))[-1 if last_only else 0 :] for row in rows]  # (context, span)
        texts = {context + text for row in self.texts for context, text in row}
        contexts = {context for row in self.texts for context, _ in row if context}
        wanted = [*dict.fromkeys([*texts, *contexts])]
        self._tokenizer = tokenizer
        self._ids = dict(zip(wanted, _tokenise(tokenizer, wanted), strict=True))

    def ids(self, context: str, text: str) -> list[int]:
        """The tokens of a text after this context."""
        if not context:
            return self._ids[text]
        given, both = self._ids[context], self._ids[context + text]
        if both[: len(given)] == given:
            return both[len(given) :]
        for anchor in ("\n", self._anchor):  # after a special token, old SentencePiece tokenizers begin with a space
            begun, both = _tokenise(self._tokenizer, [anchor, anchor + text])
            if both[: len(begun)] == begun:
                break
        return both[len(begun) :]

    def _with_context(self, row: Row) -> Iterator[tuple[str, str]]:
        context = ""
        for span in row:
            yield context, span.text
            context += span.text
            if last := self._until_added.match(context):
                context = context[last.end() :]


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        now = texts[start : start + CHUNK]
        batch = tokenizer(now, add_special_tokens=False, return_attention_mask=False, verbose=False)
        ids.extend(batch["input_ids"])
    return ids


_LOG = logging.getLogger(__name__)
