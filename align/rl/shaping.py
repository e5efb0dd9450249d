"""Reward shaping: raw scores become those that PPO maximises. In this order:

1. answers are cut after `truncate_token` before they are scored (lm-human-preferences, item 10);
2. scores are divided by their running standard deviation, and centred on request (`normalize`, `normalize_mean`);
3. scores are clipped (`clip`);
4. `length_penalty` is subtracted for each token beyond `length_free`;
5. an answer that has not ended, is too short or lacks `truncate_token` gets the score `missing_eos`
   (items 11 and 12).

Without these keys scores are unchanged.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align.errors import UserError
from align.rewards.settings import Reward
from align.rl.rollouts import Rollouts
from align.text.ends import ends_of
from align.train.parallel import total
from align.train.state import Stateful


class Part(NamedTuple):
    """The part of each answer that is scored."""

    sequences: list[list[int]]  # prompt and answer
    n_tokens: Tensor  # (batch,) tokens of the answer, its end included
    ended: Tensor  # (batch,) bool: has an end token, or `truncate_token`


def whole(rollouts: Rollouts, end: int) -> Part:
    """The whole answers. Any end token is replaced by `end`, where our reward models are trained to be read."""
    rows = zip(rollouts.sequences(), rollouts.ended.tolist(), strict=True)
    sequences = [[*sequence[:-1], end] if ended else sequence for sequence, ended in rows]
    return Part(sequences, rollouts.mask.sum(1), rollouts.ended)


def cut_after(rollouts: Rollouts, token: int, first: int, end: int) -> Part:
    """Answers up to the first `token` at position `first` or later, counted from 0; whole if there is none.

    A cut answer gets `end` after the token, where our reward models are trained to be read.
    """
    sequences, counts, ended = [], [], []
    uncut = whole(rollouts, end).sequences
    for sequence, n_tokens, full in zip(rollouts.sequences(), rollouts.mask.sum(1).tolist(), uncut, strict=True):
        start = len(sequence) - n_tokens
        prompt, answer = sequence[:start], sequence[start:]
        ends = [place + 1 for place, found in enumerate(answer) if found == token and place >= first]
        kept = answer[: ends[0]] if ends else full[start:]
        sequences.append([*prompt, *kept, *([end] if ends and token != end else [])])
        counts.append(len(kept))
        ended.append(bool(ends))
    device = rollouts.ids.device
    return Part(sequences, torch.tensor(counts, device=device), torch.tensor(ended, device=device))


class RunningMoments:
    """Running mean and standard deviation of all scores, over all processes.

    Welford's recurrence for whole batches (Chan, Golub and LeVeque 1979), in fp64; the variance is divided by n.
    """

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0.0, 0.0, 0.0  # squares: the sum of (x - mean)^2

    @property
    def std(self) -> float:
        """The standard deviation; 1 if all scores so far are equal."""
        std = math.sqrt(self.squares / self.n) if self.n else 0.0
        return std if std > 1e-8 else 1.0

    def update(self, scores: Tensor, accelerator: Any) -> None:
        """Add a batch of scores, (batch,); each process holds a part."""
        values = scores.double()
        n, batch_sum = total(accelerator, len(values), values.sum())
        batch_mean = batch_sum / n
        batch_squares = total(accelerator, (values - batch_mean).square().sum())[0]
        distance, n_all = batch_mean - self.mean, self.n + n
        self.squares += batch_squares + distance**2 * self.n * n / n_all
        self.mean += distance * n / n_all
        self.n = n_all

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.n, self.mean, self.squares = state_dict["n"], state_dict["mean"], state_dict["squares"]


class Shaping:
    """Applies the recipe's `reward` section; holds the running statistics."""

    def __init__(self, settings: Reward, tokenizer: Any, accelerator: Any) -> None:
        self.settings, self.accelerator = settings, accelerator
        self.token = None if settings.truncate_token is None else token_id(tokenizer, settings.truncate_token)
        self.end = ends_of(tokenizer).turn
        self.moments = RunningMoments() if settings.normalize == "running" else None

    def parts(self) -> dict[str, Stateful]:
        """The state that a checkpoint saves."""
        return {"reward": self.moments} if self.moments is not None else {}

    def scored_part(self, rollouts: Rollouts) -> Part:
        """The part of each answer that is scored."""
        if self.token is None:
            return whole(rollouts, self.end)
        return cut_after(rollouts, self.token, self.settings.truncate_after, self.end)

    def shape(self, scores: Tensor, part: Part, remember: bool = True) -> Tensor:
        """Shaped scores of raw ones, (batch,). With `remember`, running statistics include the batch first."""
        settings = self.settings
        if self.moments is not None:
            if remember:
                self.moments.update(scores, self.accelerator)
            centre = self.moments.mean if settings.normalize_mean else 0.0
            scores = ((scores.double() - centre) / self.moments.std).float()
        if settings.clip is not None:
            scores = scores.clamp(-settings.clip, settings.clip)
        if settings.length_penalty:
            scores = scores - settings.length_penalty * (part.n_tokens - settings.length_free).clamp(min=0)
        if settings.missing_eos is not None:
            finished = part.ended & (part.n_tokens >= settings.min_tokens)
            scores = torch.where(finished, scores, settings.missing_eos)
        return scores


def token_id(tokenizer: Any, token: str | int) -> int:
    """The id of a token given as text or id. Raises `UserError` for a text of several tokens."""
    from align.text.tokenizer import rows_needed

    if isinstance(token, int):
        if not 0 <= token < rows_needed(tokenizer):
            most = rows_needed(tokenizer) - 1
            raise UserError(f"reward.truncate_token = {token}: this tokenizer has ids 0 to {most}; give one of them")
        return token
    ids: list[int] = tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        written = [tokenizer.decode([number]) for number in ids]
        raise UserError(
            f"reward.truncate_token = {token!r}: this tokenizer splits it into {len(ids)} tokens, {written}; give "
            "a single token, as text or id"
        )
    return ids[0]
