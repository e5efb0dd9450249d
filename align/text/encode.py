"""Conversations, prompts and answers as tokens, through whatever chat template the tokenizer has.

The rule that everything here keeps: the tokens of a prompt in training are exactly those seen at sampling,

    encode_conversation(prompt + [assistant: answer]).ids == encode_prompt(prompt) + encode_response(prompt, answer)

For this a written conversation is cut before and after each answer (`align.text.spans`). A span is tokenised together
with what stands before it, back to the last added token, and has the tokens that are its own there: those of the whole
text, as `apply_chat_template` gives them. Only where a token would reach over the start of an answer is it cut.
Only the template decides about BOS: none is added on top, whatever the tokenizer does by default. Special tokens that
are written out in a content are removed first, with one warning.
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


CHUNK = 1000  # texts that are given to the tokenizer at once: enough for its threads, little memory


class Encoded(NamedTuple):
    """A conversation as tokens. `is_target[t]` says whether token t belongs to an answer, and is thus learned."""

    ids: list[int]
    is_target: list[bool]
    truncated: bool = False


class Counts(NamedTuple):
    """What became of the conversations given to `encode_conversations`. A conversation may become several rows."""

    kept: int
    truncated: int  # of those kept
    too_long: int  # left out, where too_long="drop"
    without_answer: int  # left out: the prompt alone fills max_tokens, so nothing would be learned
    not_learned: int = 0  # left out: no answer in them is to be learned
    unrolled: int = 0  # conversations that became several rows, since the template rewrites earlier answers
    added_rows: int = 0  # of these
    added_tokens: int = 0

    def lines(self, max_tokens: int) -> list[str]:
        """For the log: one line for each thing that happened to some rows."""
        total = self.kept + self.too_long + self.without_answer
        reasons = [
            (self.truncated, "cut"),
            (self.too_long, "left out as too long"),
            (self.without_answer, "left out, for the prompt alone fills them"),
        ]
        lines = [
            f"{count} of {total} conversations {what} (max_tokens={max_tokens})" for count, what in reasons if count
        ]
        if self.not_learned:
            lines.append(f"{self.not_learned} conversations left out: no answer in them is to be learned")
        if self.unrolled:
            lines.append(
                f"{self.unrolled} conversations became {self.unrolled + self.added_rows} rows, {self.added_tokens:,} "
                "tokens more: the chat template writes an answer otherwise once other turns follow it, so each is "
                "learned after its own history; targets=last learns the last alone"
            )
        return lines


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_tokens: int, last_only: bool = False
) -> Encoded:
    """A demonstration as tokens, its end cut off at `max_tokens`.

    Targets are the answers of every assistant turn that is to be learned, or of the last one only; its end is part of
    an answer. Raises `UserError` when the template cannot write these turns (see `align.text.spans`), or rewrites
    them so that they are several rows.
    """
    writer = Writer(tokenizer)
    rows = writer.conversation(tuple(messages), last_only)
    _warn_removed(tokenizer, writer)
    if len(rows) > 1:
        raise UserError(
            f"this chat template rewrites earlier answers, so that this conversation is {len(rows)} rows; call "
            "encode_conversations, or learn the last answer only"
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
    """`encode_conversation` for many, in order and without those that teach nothing; and what was cut or left out.

    A conversation whose earlier answers the template rewrites is several rows, one after the other.
    Raises `UserError` that names the row which the template refuses, or that says why no row is left.
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
    """Conversations of several rows, the rows that they have besides the last, and the tokens of these."""
    ends = list(accumulate(len(rows) for rows in conversations))
    several = [(end - len(rows), end) for rows, end in zip(conversations, ends, strict=True) if len(rows) > 1]
    added = [row for start, end in several for row in encoded[start : end - 1]]
    return len(several), len(added), sum(len(row.ids) for row in added)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The tokens that a model sees before it answers: the turns, the generation prompt, and nothing after it."""
    return encode_prompts(tokenizer, [messages])[0]


@uncollected()
def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]], sources: Iterable[str] = ()
) -> list[list[int]]:
    """`encode_prompt` for many. Raises `UserError` when the template refuses one of them; `sources` name their rows."""
    writer, rows = Writer(tokenizer), []
    for messages, source in zip(prompts, chain(sources, repeat("")), strict=False):
        with _with_source(source):
            rows.append(writer.prompt(tuple(messages)))
    _warn_removed(tokenizer, writer)
    return [list(chain.from_iterable(ids)) for ids in _span_ids(tokenizer, rows)]


def encode_response(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], response: str) -> list[int]:
    """The tokens of an answer to these turns: they follow `encode_prompt`'s and end in exactly one end."""
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
    """The tokens of each text, ending in EOS, and beginning with BOS if the tokenizer does that by itself.

    Reads `chunk` texts at a time, so that a corpus can be streamed.
    """
    without_special_tokens, bos = special_token_remover(tokenizer), own_bos(tokenizer)
    remaining = iter(texts)
    while now := [without_special_tokens(text) for text in islice(remaining, chunk)]:
        yield from ([*bos, *ids, tokenizer.eos_token_id] for ids in _tokenise(tokenizer, now))


class DecodedAnswer(NamedTuple):
    """A sampled answer: what is said, and what was thought before it."""

    text: str
    thoughts: str = ""


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of sampled tokens up to the first end, without thoughts, special tokens and the space around it."""
    return decode_answer(tokenizer, ids).text


def decode_answer(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], prompt_ids: Sequence[int] = ()
) -> DecodedAnswer:
    """Sampled tokens up to the first end as text, with the thoughts apart that its template has marks for.

    `prompt_ids` are the tokens before it, since a generation prompt may open the thought. A thought that was never
    closed leaves no answer.
    """
    ends = ends_of(tokenizer).ids
    answer = list(takewhile(lambda token: token not in ends, ids))
    marks = Template.of(tokenizer).marks
    thoughts, said = _split_thoughts(tokenizer, answer, marks, prompt_ids)
    if said is None:
        return DecodedAnswer(trimmed(str(tokenizer.decode(answer, skip_special_tokens=True))), "")
    clean = special_token_remover(tokenizer)
    return DecodedAnswer(trimmed(clean(said)), clean(thoughts).strip())


def _split_thoughts(
    tokenizer: PreTrainedTokenizerBase, answer: list[int], marks: Marks, prompt_ids: Sequence[int]
) -> tuple[str, str | None]:
    """The thoughts and the answer, special tokens included; no answer where no mark stands in it."""
    if not any(marks):
        return "", None
    written = str(tokenizer.decode(answer, skip_special_tokens=False)).strip()
    is_open = bool(marks.opening) and str(tokenizer.decode(list(prompt_ids[-16:]))).rstrip().endswith(marks.opening)
    is_thought = bool(marks.opening) and (is_open or written.startswith(marks.opening))
    first = re.match(r"<[^<>]+>", marks.closing) if is_thought else None  # what follows it may be a call
    for closing in (marks.closing, first.group() if first else ""):
        if closing and closing in written:
            thoughts, _, said = written.partition(closing)
            return thoughts.strip().removeprefix(marks.opening), said
    if is_thought:
        return written.removeprefix(marks.opening), ""
    if marks.lead and written.startswith(marks.lead):
        return "", written.removeprefix(marks.lead)
    return "", None


@contextmanager
def _with_source(source: str) -> Iterator[None]:
    """Refusals begin with the place of the row that is refused, where it has one."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source}: {error}" if source else str(error)) from None


def _warn_removed(tokenizer: PreTrainedTokenizerBase, writer: Writer) -> None:
    """Says once for each token of a tokenizer that it was taken out of contents."""
    warned: set[str] = vars(tokenizer).setdefault("_align_removed", set())
    if new := {token: count for token, count in writer.taken_out.items() if token not in warned}:
        warned.update(new)
        counted = ", ".join(f"{token} ({count} texts)" for token, count in new.items())
        _LOG.warning("special tokens of this tokenizer stand in contents and are taken out: %s", counted)


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
    """The tokens of each span of each row, or of each row's last span alone.

    All go through the tokenizer at once, each text once: several times faster than one by one.
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
    """Pieces with what stands before them, and the tokens of all these texts."""

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
        """The tokens of a text where it stands after this context."""
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
