"""A batch of answers and all that PPO needs to know of them, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from align.rl.sampling import Answer
from align.text.batches import micro_batches, pad_right


@dataclass
class Rollouts:
    """Prompts with their answers. Sequences are padded on the right; answers also stand in a layout of their own.

    (batch, time) tensors of this class are laid out by answer token, from column 0 on; `ids` by position in the whole.
    """

    ids: Tensor  # (batch, sequence) prompt and answer
    is_answer: Tensor  # (batch, sequence) true at the tokens of the answer
    lengths: list[int]  # tokens of each sequence
    mask: Tensor  # (batch, time) true where an answer has a token
    ended: Tensor  # (batch,) the answer says EOS
    sampled_logprobs: Tensor  # (batch, time) as the sampler saw them
    # What `Sampler.collect` measures of them, before any update:
    logprobs: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch, time) of the policy
    reference_logprobs: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch, time)
    token_kl: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch, time) nats, by the recipe's estimator
    values: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch, time) of the critic; 0 without one
    scores: Tensor = field(default_factory=lambda: torch.empty(0))  # (batch,) what each answer is worth
    figures: dict[str, Tensor] = field(default_factory=dict)  # (batch,) columns that are only watched
    texts: list[str] = field(default_factory=list)  # the answers, decoded

    @classmethod
    def of(cls, prompts: Sequence[list[int]], answers: Sequence[Answer], device: Any) -> Rollouts:
        """Lays out prompts and their sampled answers."""
        rows = [[*prompt, *answer.tokens] for prompt, answer in zip(prompts, answers, strict=True)]
        flags = [[0] * len(p) + [1] * len(a.tokens) for p, a in zip(prompts, answers, strict=True)]
        width = max(len(answer.tokens) for answer in answers)
        n_tokens = torch.tensor([len(answer.tokens) for answer in answers], device=device)
        logprobs = [answer.logprobs + [0.0] * (width - len(answer.logprobs)) for answer in answers]
        return cls(
            ids=pad_right(rows).to(device),
            is_answer=pad_right(flags).bool().to(device),
            lengths=[len(row) for row in rows],
            mask=torch.arange(width, device=device) < n_tokens[:, None],
            ended=torch.tensor([answer.ended for answer in answers], device=device),
            sampled_logprobs=torch.tensor(logprobs, device=device),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def sequences(self) -> list[list[int]]:
        """The tokens of each row without padding."""
        return [row[:length] for row, length in zip(self.ids.tolist(), self.lengths, strict=True)]

    def part(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`ids` and `is_answer` of these rows, cut to the longest of them. (len(rows), shorter sequence) each."""
        width = max(self.lengths[row] for row in rows)
        index = torch.tensor(rows, device=self.ids.device)
        return self.ids[index, :width], self.is_answer[index, :width]

    def for_each_token(self, function: Callable[[Tensor, Tensor], Tensor], max_tokens: int) -> Tensor:
        """Calls `function(ids, is_answer)`, which gives a number for each marked token, micro-batch by micro-batch.

        Returns (batch, time), 0 where there is no token.
        """
        laid_out = torch.zeros(self.mask.shape, device=self.ids.device)
        for rows in micro_batches(self.lengths, max_tokens):
            index = torch.tensor(rows, device=self.ids.device)
            mask = self.mask[index]
            numbers = laid_out[index]
            numbers[mask] = function(*self.part(rows)).float()
            laid_out[index] = numbers
        return laid_out


def states_before(is_answer: Tensor) -> Tensor:
    """Where the value of the state before each answer token is read: one position earlier. (batch, sequence) bool."""
    before = torch.zeros_like(is_answer)
    before[:, :-1] = is_answer[:, 1:]
    return before
