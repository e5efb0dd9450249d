"""Reward models as a reward: one model (of `align.rm` or from elsewhere), or an ensemble."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from align import sections
from align.errors import RewardError, UserError
from align.rewards.reward import Prompts, Reward
from align.rewards.settings import Ensemble
from align.text.records import Message

if TYPE_CHECKING:
    from align.models.foreign import Reader


def model_reward(
    paths: Sequence[str],
    tokenizer: Any,
    device: Any,
    max_tokens: int,
    how: Ensemble,
    uncertainty: float,
    loaded: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Reward:
    """One reward model, or an ensemble of several."""
    members = [
        ModelReward(path, tokenizer, device, max_tokens, (loaded or {}).get(path), trust_remote_code) for path in paths
    ]
    if sum(member.n_members for member in members) > 1:
        return EnsembleReward(members, how, uncertainty)
    if how != "mean":
        raise UserError(
            f"ensemble = {how} has no effect: {paths[0]} is one reward model with one head; give a list of paths"
        )
    return members[0]


class ModelReward:
    """A reward model. With the policy's tokenizer it scores the sampled tokens, else it re-encodes the text.

    An answer with thoughts is always re-encoded, without the thoughts: rankings are about answers alone. A reward model
    from elsewhere always re-encodes: its chat template may differ (see `align.models.foreign`).
    """

    def __init__(
        self,
        path: str,
        policy_tokenizer: Any,
        device: Any,
        max_tokens: int,
        loaded: Any = None,
        trust_remote_code: bool = False,
    ) -> None:
        """`loaded` is the model, if it shares a base with another role."""
        from align.models.foreign import Reader, load_classifier
        from align.models.load import max_positions
        from align.models.scalar import load_scalar_model
        from align.text.template import share_date
        from align.text.tokenizer import rows_needed, same_words

        section = sections.Model(path=path, trust_remote_code=trust_remote_code)
        self.path, self.device, self.max_tokens = path, device, max_tokens
        self.reader = reader_of(section)
        self.tokenizer = self.reader.tokenizer
        if policy_tokenizer is not None:
            share_date(self.tokenizer, policy_tokenizer)
            self._check_reading()
        self.model: Any = loaded
        if isinstance(self.reader, Reader):
            self.model = load_classifier(section, self.reader).to(device).requires_grad_(False)
            self.n_positions, self.reads_tokens = self.model.n_positions, False
            return
        if loaded is None:
            model = load_scalar_model(section, n_tokens=rows_needed(self.tokenizer))
            self.model = model.to(device).eval().requires_grad_(False)
        self.n_positions = max_positions(self.model.trunk.config)
        self.reads_tokens = policy_tokenizer is not None and same_words(self.tokenizer, policy_tokenizer)

    def _check_reading(self) -> None:
        """Raise `UserError`, before the run starts, if the template refuses answers without thoughts."""
        try:
            self.encode([(Message("user", "x"),)], ["x"])
        except UserError as error:
            raise UserError(
                f"reward model {self.path}: answers are scored without thoughts, which its template refuses: {error}; "
                "these are keys of align.rm, which saves the template with the reward model"
            ) from None

    @property
    def n_members(self) -> int:
        """Number of heads."""
        return self.model.heads

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        return [fmean(members) for members in zip(*self.member_scores(prompts, texts, ids), strict=True)]

    def member_scores(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[list[float]]:
        """Scores by each head, (n_members, n_answers)."""
        rows = list(ids) if self.reads_tokens else [[] for _ in texts]
        to_encode = [index for index, row in enumerate(rows) if not row]
        encoded = self.encode([prompts[i] for i in to_encode], [texts[i] for i in to_encode])
        for index, (prompt, response) in zip(to_encode, encoded, strict=True):
            rows[index] = prompt + response
        return self.score_tokens(rows)

    def score_tokens(self, rows: list[list[int]]) -> list[list[float]]:
        """Scores of rows of this model's own tokens, prompt and answer: (n_members, n_answers)."""
        from align.models.scalar import score_members

        longest = max(map(len, rows), default=0)
        if self.n_positions is not None and longest > self.n_positions:
            raise RewardError(
                f"reward model {self.path}: a prompt and its answer have {longest} of its tokens; it has "
                f"{self.n_positions} positions. Lower data.max_tokens or rollout.max_tokens"
            )
        scores = score_members(self.model, rows, self.max_tokens, self.device)
        if not all(math.isfinite(score) for members in scores for score in members):
            raise RewardError(f"reward model {self.path}: a score is not finite; retrain it, or use another")
        return [list(column) for column in zip(*scores, strict=True)]

    def encode(self, prompts: Prompts, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Prompt and answer as this model's tokens."""
        return self.reader.encode(prompts, texts)


class OwnReader:
    """Encodes prompts and answers for a reward model of `align.rm`."""

    def __init__(self, path: str, trust_remote_code: bool = False) -> None:
        from align.text.tokenizer import load_tokenizer

        self.tokenizer: Any = load_tokenizer(path, trust_remote_code)

    def encode(self, prompts: Prompts, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Tokens of each prompt and of its answer. The answer ends in EOS, where the score is read."""
        from align.text.encode import encode_prompts, encode_responses

        responses = encode_responses(self.tokenizer, list(zip(prompts, texts, strict=True)))
        return list(zip(encode_prompts(self.tokenizer, prompts), responses, strict=True))


def reader_of(model: sections.Model) -> OwnReader | Reader:
    """The encoder of texts for a reward model, which need not be loaded."""
    from align.models.foreign import Reader
    from align.models.load import load_config
    from align.models.purpose import is_classifier

    from_elsewhere = is_classifier(model.path, load_config(model))
    return (Reader if from_elsewhere else OwnReader)(model.path, model.trust_remote_code)


class EnsembleReward:
    """Several reward models, or several heads, with their scores combined."""

    def __init__(self, members: Sequence[ModelReward], how: Ensemble, uncertainty: float) -> None:
        self.members, self.how, self.uncertainty = members, how, uncertainty

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        return self.combined(self.member_scores(prompts, texts, ids))

    def member_scores(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[list[float]]:
        """Scores by each head of each model, (n_members, n_answers)."""
        return [scores for member in self.members for scores in member.member_scores(prompts, texts, ids)]

    def combined(self, members: list[list[float]]) -> list[float]:
        """`combine` with this ensemble's settings."""
        return combine(members, self.how, self.uncertainty)


def combine(members: list[list[float]], how: Ensemble, uncertainty: float) -> list[float]:
    """Combine members' scores, (n_members, n_answers), into one score per answer, (n_answers,).

    min and mean_minus_std resist over-optimisation (Coste et al., 2310.02743). The standard deviation is that of these
    members, not an estimate for others: divided by n, not n - 1.
    """
    by_answer = list(zip(*members, strict=True))
    if how == "min":
        return [min(scores) for scores in by_answer]
    if how == "mean":
        return [fmean(scores) for scores in by_answer]
    return [fmean(scores) - uncertainty * pstdev(scores) for scores in by_answer]
