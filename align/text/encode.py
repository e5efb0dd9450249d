"""Conversations, prompts and answers as tokens, through whatever chat template the tokenizer has.

The rule that everything here keeps: the tokens of a prompt in training are exactly those seen at sampling,

    encode_conversation(prompt + [assistant: answer]).ids == encode_prompt(prompt) + encode_response(prompt, answer)

For this a written conversation is cut before and after each answer (`align.text.pieces`), and the pieces are tokenised
one by one. Only the template decides about BOS: none is added on top, whatever the tokenizer does by default. Special
tokens that are written out in a content are taken out first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple

from align.errors import UserError
from align.text.chat import own_bos
from align.text.ends import ends_of
from align.text.pieces import Piece, Writer, special_token_remover
from align.text.records import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CHUNK = 1000  # texts that are given to the tokenizer at once: enough for its threads, little memory


class Encoded(NamedTuple):
    """A conversation as tokens. `is_target[t]` says whether token t belongs to an answer, and is thus learned."""

    ids: list[int]
    is_target: list[bool]
    truncated: bool = False


class Counts(NamedTuple):
    """What became of the conversations given to `encode_conversations`."""

    kept: int
    truncated: int  # of those kept
    too_long: int  # left out, where too_long="drop"
    without_answer: int  # left out: the prompt alone fills max_tokens, so nothing would be learned

    def lines(self, max_tokens: int) -> list[str]:
        """For the log: one line for each thing that happened to some rows."""
        total = self.kept + self.too_long + self.without_answer
        told = [
            (self.truncated, "cut"),
            (self.too_long, "left out as too long"),
            (self.without_answer, "left out, for the prompt alone fills them"),
        ]
        return [f"{count} of {total} conversations {what} (max_tokens={max_tokens})" for count, what in told if count]


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_tokens: int, last_only: bool = False
) -> Encoded:
    """A demonstration as tokens, its end cut off at `max_tokens`.

    Targets are the answers of every assistant turn, or of the last one only; its end is part of an answer.
    Raises `UserError` when the template cannot write these turns (see `align.text.pieces`).
    """
    pieces = Writer(tokenizer).conversation(tuple(messages), last_only)
    return _encoded(tokenizer, [pieces], max_tokens, last_only)[0]


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    max_tokens: int,
    too_long: Literal["truncate", "drop"] = "truncate",
    last_only: bool = False,
) -> tuple[list[Encoded], Counts]:
    """`encode_conversation` for many, in order and without those that teach nothing; and what was cut or left out.

    Raises `UserError` that names the row which the template refuses, or that says why no row is left.
    """
    writer = Writer(tokenizer)
    encoded = _encoded(tokenizer, [_written(writer, row, last_only) for row in conversations], max_tokens, last_only)
    fitting = [row for row in encoded if too_long == "truncate" or not row.truncated]
    kept = [row for row in fitting if any(row.is_target)]
    n_truncated = sum(row.truncated for row in kept)
    counts = Counts(len(kept), n_truncated, len(encoded) - len(fitting), len(fitting) - len(kept))
    if encoded and not kept:
        raise UserError("; ".join(["no conversation is left", *counts.lines(max_tokens), "raise data.max_tokens"]))
    return kept, counts


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The tokens that a model sees before it answers: the turns, the generation prompt, and nothing after it."""
    return encode_prompts(tokenizer, [messages])[0]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    """`encode_prompt` for many. Raises `UserError` when the template refuses one of them."""
    writer = Writer(tokenizer)
    return _ids(tokenizer, [writer.prompt(tuple(messages)) for messages in prompts])


def encode_response(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], response: str) -> list[int]:
    """The tokens of an answer to these turns: they follow `encode_prompt`'s and end in exactly one end."""
    return encode_responses(tokenizer, [(messages, response)])[0]


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[tuple[Sequence[Message], str]]
) -> list[list[int]]:
    """`encode_response` for many (prompt, response)."""
    writer = Writer(tokenizer)
    return _ids(tokenizer, [[writer.answer(tuple(messages), response)] for messages, response in pairs])


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


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of sampled tokens up to the first end, without special tokens and the space around it."""
    ends = ends_of(tokenizer).ids
    answer = list(takewhile(lambda token: token not in ends, ids))
    return str(tokenizer.decode(answer, skip_special_tokens=True)).strip()


def _written(writer: Writer, row: Conversation, last_only: bool) -> list[Piece]:
    try:
        return writer.conversation(row.messages, last_only)
    except UserError as error:
        raise UserError(f"{row.source}: {error}" if row.source else str(error)) from None


def _encoded(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[Piece]], max_tokens: int, last_only: bool
) -> list[Encoded]:
    """All pieces of all conversations go through the tokenizer at once: several times faster than one by one."""
    ids = iter(_piece_ids(tokenizer, list(chain.from_iterable(conversations))))
    encoded = []
    for pieces in conversations:
        tokens: list[int] = []
        is_target: list[bool] = []
        for index, piece in enumerate(pieces):
            piece_ids = next(ids)
            learned = piece.is_answer and (not last_only or index == len(pieces) - 1)
            tokens += piece_ids
            is_target += [learned] * len(piece_ids)
        encoded.append(Encoded(tokens[:max_tokens], is_target[:max_tokens], len(tokens) > max_tokens))
    return encoded


def _ids(tokenizer: PreTrainedTokenizerBase, rows: list[list[Piece]]) -> list[list[int]]:
    ids = iter(_piece_ids(tokenizer, list(chain.from_iterable(rows))))
    return [[token for _ in pieces for token in next(ids)] for pieces in rows]


def _piece_ids(tokenizer: PreTrainedTokenizerBase, pieces: list[Piece]) -> list[list[int]]:
    texts = list(dict.fromkeys(piece.text for piece in pieces))  # markers and system prompts recur
    known = dict(zip(texts, _tokenise(tokenizer, texts), strict=True))
    turn = ends_of(tokenizer).turn
    return [[*known[piece.text], turn] if piece.append_end else known[piece.text] for piece in pieces]


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        now = texts[start : start + CHUNK]
        batch = tokenizer(now, add_special_tokens=False, return_attention_mask=False, verbose=False)
        ids.extend(batch["input_ids"])
    return ids
