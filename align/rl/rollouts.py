"""Rollouts: a batch of sampled answers with everything that PPO measures, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from align.generation.sampling import Answer
from align.rl.mismatch import Gap
from align.text.batches import micro_batches, pad_right


@dataclass
class Rollouts:
    """Prompts with their answers, padded on the right.

    Two layouts: (batch, sequence) by position in prompt and answer; (batch, time) by answer token, from column 0.
    """

    ids: Tensor  # (batch, sequence) prompt and answer
    is_answer: Tensor  # (batch, sequence) true at answer tokens
    lengths: list[int]  # tokens of each sequence
    mask: Tensor  # (batch, time) true where an answer has a token
    states: Tensor  # (batch, time) true at states with reward and value: before each token, perhaps after the end
    is_state: Tensor  # (batch, sequence) true where the critic reads these states
    ended: Tensor  # (batch,) whether the answer has EOS
    sampled_logprobs: Tensor  # (batch, time) from the sampler
    # Measured by `Sampler.collect`, before any update:
    logprobs: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch, time) of the policy
    reference_logprobs: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch, time)
    token_kl: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch, time) nats, by the recipe's estimator
    values: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch, time) of the critic; 0 without one
    scores: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch,) score of each answer, after shaping
    gap: Gap | None = None  # between `sampled_logprobs` and those of a training pass
    figures: dict[str, Tensor] = field(default_factory=dict)  # (batch,) columns that are only logged
    texts: list[str] = field(default_factory=list)  # the answers, decoded
    thoughts: list[str] = field(default_factory=list)  # the thoughts before each; "" for none

    @classmethod
    def of(
        cls, prompts: Sequence[list[int]], answers: Sequence[Answer], device: Any, max_tokens: int | None = None
    ) -> Rollouts:
        """Lay out prompts and their sampled answers as tensors.

        With `max_tokens`, the longest possible answer, shorter answers get one more state, after their end.
        """
        rows = [[*prompt, *answer.tokens] for prompt, answer in zip(prompts, answers, strict=True)]
        counts = [len(answer.tokens) for answer in answers]
        more = [int(max_tokens is not None and n < max_tokens) for n in counts]
        flags = [[0] * (len(row) - n) + [1] * n for row, n in zip(rows, counts, strict=True)]
        reads = [
            [*flag[1:], last] for flag, last in zip(flags, more, strict=True)
        ]  # states are read one position earlier
        n_tokens, n_more = torch.tensor(counts, device=device), torch.tensor(more, device=device)
        width = int((n_tokens + n_more).max())
        logprobs = [answer.logprobs + [0.0] * (width - len(answer.logprobs)) for answer in answers]
        columns = torch.arange(width, device=device)
        return cls(
            ids=pad_right(rows).to(device),
            is_answer=pad_right(flags).bool().to(device),
            lengths=[len(row) for row in rows],
            mask=columns < n_tokens[:, None],
            states=columns < (n_tokens + n_more)[:, None],
            is_state=pad_right(reads).bool().to(device),
            ended=torch.tensor([answer.ended for answer in answers], device=device),
            sampled_logprobs=torch.tensor(logprobs, device=device),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def sequences(self) -> list[list[int]]:
        """Tokens of each row, without padding."""
        return [row[:length] for row, length in zip(self.ids.tolist(), self.lengths, strict=True)]

    def part(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`ids` and `is_answer` of these rows, cut to the longest, (len(rows), width) each."""
        return self._cut(rows, self.is_answer)

    def states_part(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`ids` and `is_state` of these rows, cut to the longest."""
        return self._cut(rows, self.is_state)

    def for_each_token(self, function: Callable[[Tensor, Tensor], Tensor], max_tokens: int) -> Tensor:
        """Apply `function(ids, is_answer)`, which returns one number per marked token, in micro-batches.

        Returns (batch, time), 0 where there is no token.
        """
        return self._laid_out(function, self.part, self.mask, max_tokens)

    def for_each_state(self, function: Callable[[Tensor, Tensor], Tensor], max_tokens: int) -> Tensor:
        """The same with `function(ids, is_state)`, such as a critic, for one number per state."""
        return self._laid_out(function, self.states_part, self.states, max_tokens)

    def _cut(self, rows: Sequence[int], marked: Tensor) -> tuple[Tensor, Tensor]:
        width = max(self.lengths[row] for row in rows)
        index = torch.tensor(rows, device=self.ids.device)
        return self.ids[index, :width], marked[index, :width]

    def gaps(self, logprobs: Tensor, rows: Sequence[int]) -> Tensor:
        """Distance of log probabilities from the sampler's, for each answer token of these rows.

        logprobs: (n_tokens,) from a training pass, in the order of `mask[rows]`. Returns (n_tokens,).
        """
        index = torch.tensor(rows, device=self.ids.device)
        return (logprobs - self.sampled_logprobs[index][self.mask[index]]).abs()

    def _laid_out(self, function: Any, part: Any, places: Tensor, max_tokens: int) -> Tensor:
        laid_out = torch.zeros(places.shape, device=self.ids.device)
        for rows in micro_batches(self.lengths, max_tokens):
            index = torch.tensor(rows, device=self.ids.device)
            numbers = laid_out[index]
            numbers[places[index]] = function(*part(rows)).float()
            laid_out[index] = numbers
        return laid_out
