"""What an answer is worth: reward models (of `align.rm`, or of others), a Python function `module:function`, a reward
server (`align.rl.remote`), or a weighted sum of these. What PPO then makes of a score is `align.rl.shaping`.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from align import sections
from align.errors import RewardError, UserError
from align.rl.settings import Ensemble, Source, listed
from align.rl.settings import Reward as RewardSettings
from align.text.records import Message, last_question

if TYPE_CHECKING:
    from align.models.foreign import Reader

Prompts = Sequence[Sequence[Message]]


class Reward(Protocol):
    """Scores answers to prompts."""

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        """One finite score for each answer; `ids` are the policy's own tokens of prompt and answer, EOS included.

        What was thought before an answer is no part of it: it is not in `texts`, and `ids` has no tokens of that one.

        Raises `RewardError` that says what is wrong with the reward and how to mend it.
        """
        ...


class Judged(NamedTuple):
    """The scores of some answers, and what else is logged of each answer, by name."""

    scores: list[float]
    columns: dict[str, list[float]]


def build_reward(
    settings: RewardSettings,
    tokenizer: Any,
    device: Any,
    max_tokens: int,
    loaded: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Reward:
    """The reward that a recipe names.

    Args:
        settings: the recipe's `reward` section.
        tokenizer: the policy's.
        device: where reward models compute.
        max_tokens: tokens, padding included, that go through a reward model at once.
        loaded: reward models by path that stand on a base which another role has loaded.
        trust_remote_code: whether code that comes with reward models may run.
    """

    def build(source: Source) -> Reward:
        if source.function is not None:
            return FunctionReward(source.function)
        if source.url is not None:
            from align.rl.remote import HttpReward

            return HttpReward(source.url, settings.timeout_s, settings.retries, settings.url_batch)
        paths, how, c = listed(source.path), settings.ensemble, settings.uncertainty
        return model_reward(paths, tokenizer, device, max_tokens, how, c, loaded, trust_remote_code)

    if settings.sources is None:
        return build(settings.parts[0])
    return SumReward([Weighted(source.label, source.weight, build(source)) for source in settings.sources])


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
            f"ensemble = {how} has no effect: {paths[0]} is one reward model with one head; give a list of them as path"
        )
    return members[0]


def judge(reward: Reward, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> Judged:
    """Scores, with the parts that they were made of: each source's own scores, and how far an ensemble is apart."""
    if isinstance(reward, SumReward):
        return reward.judge(prompts, texts, ids)
    if isinstance(reward, EnsembleReward):
        members = reward.member_scores(prompts, texts, ids)
        return Judged(
            reward.combined(members), {"objective/ensemble_std": [pstdev(m) for m in zip(*members, strict=True)]}
        )
    return Judged(reward.score(prompts, texts, ids), {})


class ModelReward:
    """A reward model. With the policy's tokenizer it reads the very tokens that were sampled, else the text anew.

    An answer that was thought about is always read anew, without the thoughts: rankings are about answers alone.
    Somebody else's always reads the text anew: its template may be another one (see `align.models.foreign`).
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
        """`loaded` is the model itself, where it stands on a base that another role has loaded."""
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
        """Raises `UserError` where its template refuses answers without thoughts: before the run, not within it."""
        try:
            self.encode([(Message("user", "x"),)], ["x"])
        except UserError as error:
            raise UserError(
                f"reward model {self.path}: answers are scored without thoughts, and it cannot read such: {error}; "
                "these are keys of align.rm, which saves the template with the reward model"
            ) from None

    @property
    def n_members(self) -> int:
        """How many heads score an answer."""
        return self.model.heads

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        return [fmean(members) for members in zip(*self.member_scores(prompts, texts, ids), strict=True)]

    def member_scores(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[list[float]]:
        """What each head says of each answer, (n_members, n_answers)."""
        rows = list(ids) if self.reads_tokens else [[] for _ in texts]
        anew = [index for index, row in enumerate(rows) if not row]
        encoded = self.encode([prompts[i] for i in anew], [texts[i] for i in anew])
        for index, (prompt, response) in zip(anew, encoded, strict=True):
            rows[index] = prompt + response
        return self.score_tokens(rows)

    def score_tokens(self, rows: list[list[int]]) -> list[list[float]]:
        """The scores of rows of this model's own tokens, prompt and answer, as (n_members, n_answers)."""
        from align.models.scalar import score_members

        longest = max(map(len, rows), default=0)
        if self.n_positions is not None and longest > self.n_positions:
            raise RewardError(
                f"reward model {self.path}: an answer with its prompt has {longest} of its tokens, and it has "
                f"{self.n_positions} positions; lower data.max_tokens or rollout.max_tokens"
            )
        scores = score_members(self.model, rows, self.max_tokens, self.device)
        if not all(math.isfinite(score) for members in scores for score in members):
            raise RewardError(f"reward model {self.path}: a score is not finite; train it anew, or take another")
        return [list(column) for column in zip(*scores, strict=True)]

    def encode(self, prompts: Prompts, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Prompt and answer as this model's tokens."""
        return self.reader.encode(prompts, texts)


class OwnReader:
    """Prompts and answers as the tokens of a reward model of ours."""

    def __init__(self, path: str, trust_remote_code: bool = False) -> None:
        from align.text.tokenizer import load_tokenizer

        self.tokenizer: Any = load_tokenizer(path, trust_remote_code)

    def encode(self, prompts: Prompts, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Each prompt and its answer, which ends in EOS, where its score is read."""
        from align.text.encode import encode_prompts, encode_responses

        responses = encode_responses(self.tokenizer, list(zip(prompts, texts, strict=True)))
        return list(zip(encode_prompts(self.tokenizer, prompts), responses, strict=True))


def reader_of(model: sections.Model) -> OwnReader | Reader:
    """What makes tokens of texts for a reward model, which need not be loaded."""
    from align.models.foreign import Reader
    from align.models.load import load_config
    from align.models.purpose import is_classifier

    of_others = is_classifier(model.path, load_config(model))
    return (Reader if of_others else OwnReader)(model.path, model.trust_remote_code)


class EnsembleReward:
    """Several reward models, or several heads of them, whose scores are made one."""

    def __init__(self, members: Sequence[ModelReward], how: Ensemble, uncertainty: float) -> None:
        self.members, self.how, self.uncertainty = members, how, uncertainty

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        return self.combined(self.member_scores(prompts, texts, ids))

    def member_scores(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[list[float]]:
        """The scores of each head of each model, (n_members, n_answers)."""
        return [scores for member in self.members for scores in member.member_scores(prompts, texts, ids)]

    def combined(self, members: list[list[float]]) -> list[float]:
        """`combine` as this ensemble does it."""
        return combine(members, self.how, self.uncertainty)


def combine(members: list[list[float]], how: Ensemble, uncertainty: float) -> list[float]:
    """The scores of an ensemble from those of its members, (n_members, n_answers) -> (n_answers,).

    The worst case and the mean less what members disagree by are there to resist over-optimisation (Coste et al.,
    2310.02743). The deviation is that of these members, not an estimate for others: divided by n, not n - 1.
    """
    by_answer = list(zip(*members, strict=True))
    if how == "min":
        return [min(scores) for scores in by_answer]
    if how == "mean":
        return [fmean(scores) for scores in by_answer]
    return [fmean(scores) - uncertainty * pstdev(scores) for scores in by_answer]


class FunctionReward:
    """A function `(prompts: list[str], responses: list[str]) -> list[float]`; a prompt is its last user turn.

    A list, a NumPy array or a tensor on any device may come back.
    """

    def __init__(self, name: str) -> None:
        self.name = f"reward function {name}"
        self.function = find_function(name)

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        asked = [last_question(messages) for messages in prompts]
        try:
            scores = plain_list(self.function(asked, list(texts)))
        except RewardError as error:
            raise RewardError(f"{self.name} {error}") from None
        except Exception as error:  # the function is the user's: it may fail in any way
            raise RewardError(f"{self.name} raised {type(error).__name__}: {error}{_place(error)}") from error
        return checked_scores(scores, texts, self.name)


class Weighted(NamedTuple):
    """One of several rewards."""

    name: str
    weight: float
    reward: Reward


class SumReward:
    """The weighted sum of several rewards."""

    def __init__(self, sources: Sequence[Weighted]) -> None:
        self.sources = sources

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        return self.judge(prompts, texts, ids).scores

    def judge(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> Judged:
        """The sums, and each source's scores before they are weighted."""
        sums = [0.0] * len(texts)
        columns: dict[str, list[float]] = {}
        for name, weight, reward in self.sources:
            found = judge(reward, prompts, texts, ids)
            sums = [total + weight * score for total, score in zip(sums, found.scores, strict=True)]
            columns[f"objective/scores/{name}"] = found.scores
            columns |= {f"{column}/{name}": values for column, values in found.columns.items()}
        return Judged(sums, columns)


def plain_list(returned: Any) -> list[Any]:
    """What a function returned as a list: tensors are brought to the CPU, and a column (n, 1) becomes a row.

    Raises `RewardError`, without the function's name, for what is no list of scores.
    """
    if hasattr(returned, "detach"):
        try:
            returned = returned.detach().cpu()
        except (RuntimeError, NotImplementedError) as error:
            raise RewardError(
                f"returned a tensor on the device {str(returned.device)!r}, whose numbers cannot be had ({error}); "
                "return them on the CPU, or as a list"
            ) from None
    if hasattr(returned, "tolist"):
        shape = tuple(returned.shape)
        if len(shape) == 2 and shape[1] == 1:
            returned = returned.reshape(-1)
        elif len(shape) != 1:
            raise RewardError(f"returned an array of shape {shape}; return one score for each answer")
        return list(returned.tolist())
    if not isinstance(returned, Iterable):
        raise RewardError(f"returned a {type(returned).__name__}; return a list with one score for each answer")
    return list(returned)


def checked_scores(scores: Sequence[Any], texts: Sequence[str], name: str) -> list[float]:
    """The scores as numbers. Raises `RewardError` unless there is a finite one for each answer."""
    if len(scores) != len(texts):
        raise RewardError(f"{name} returned {len(scores)} scores for {len(texts)} answers; return one for each")
    try:
        numbers = [float(score) for score in scores]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last two: 10**400, a tensor elsewhere
        raise RewardError(f"{name} returned what is no number ({error}); return a number for each answer") from None
    bad = [index for index, number in enumerate(numbers) if not math.isfinite(number)]
    if bad:
        shown = f"{numbers[bad[0]]} for the answer {texts[bad[0]][:80]!r}"
        raise RewardError(f"{name} returned {shown}; every score must be finite")
    return numbers


def find_function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names; modules beside the place where the command runs are found too."""
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise UserError(f"{name!r}: a function is named module:function, such as align.lab.judge:reward")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as error:  # the module is the user's: it may fail in any way
        raise UserError(f"{name!r}: cannot import {module_name} ({type(error).__name__}: {error})") from None
    if found is None:
        raise UserError(f"{name!r}: {module_name} has no {function_name}")
    if not callable(found):
        raise UserError(f"{name!r} is a {type(found).__name__}, not a function")
    return found


def _place(error: Exception) -> str:
    """Where in the user's file an error was raised, for no traceback is shown; "" where it was raised by us."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return f" ({frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
