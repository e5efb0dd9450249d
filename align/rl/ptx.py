"""PPO-ptx: batches of pretraining text, whose loss is added to PPO's (InstructGPT, section 3.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from align import sections
from align.errors import UserError

if TYPE_CHECKING:
    from align.rl.settings import Ptx
    from align.text.encode import Encoded


class PtxRows:
    """Rows of tokens. Their order is a pure function of the seed, so resuming has no position to restore."""

    def __init__(self, rows: list[Encoded], settings: Ptx, seed: int) -> None:
        self.rows, self.settings, self.seed = rows, settings, seed

    def of_update(self, number: int) -> list[Encoded]:
        """The rows of optimizer step `number`, counted from 1 over the whole run."""
        from align.text.batches import rows_of_step

        picked = rows_of_step(number, len(self.rows), self.settings.batch_size, self.seed)
        return [self.rows[i] for i in picked]


def load_ptx(settings: Ptx, tokenizer: Any, data: sections.Data, seed: int) -> PtxRows:
    """Read and encode the rows of `ptx.path`; chats as in `data`. Raises `UserError` if no row is left."""
    from align.text.encode import encode_conversations
    from align.text.load import load
    from align.train.parallel import say

    data, max_tokens = data.of_other_rows(settings.path), data.max_tokens
    if settings.kind == "conversations":
        loaded = load(data, "conversations", seed)
        rows, counts = encode_conversations(tokenizer, loaded.train, max_tokens, "truncate")
        say(*counts.lines(max_tokens))
    else:
        texts = load(data, "documents", seed).train
        rows = list(packed((document.text for document in texts), tokenizer, max_tokens))
    if not rows:
        raise UserError(
            f"ptx.path = {settings.path!r}: the text fills less than one row of {max_tokens} tokens; give more text"
        )
    return PtxRows(rows, settings, seed)


def packed(texts: Iterator[str], tokenizer: Any, width: int) -> Iterator[Encoded]:
    """Documents joined, EOS after each, in rows of `width` tokens. The last, shorter row is dropped."""
    from align.text.encode import Encoded, encode_documents

    waiting: list[int] = []
    for ids in encode_documents(tokenizer, texts):
        waiting += ids
        while len(waiting) >= width:
            yield Encoded(waiting[:width], [True] * width)
            waiting = waiting[width:]
