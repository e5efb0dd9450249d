"""What an answer is worth: a reward model that `align.rm` trained, or a Python function `module:function`."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from align import sections
from align.errors import UserError

if TYPE_CHECKING:
    from align.text.records import Message

Prompts = Sequence[Sequence["Message"]]


class Reward(Protocol):
    """Scores answers to prompts."""

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        """One score for each answer; `ids` are the policy's own tokens of prompt and answer, EOS included if said."""
        ...


class ModelReward:
    """A reward model. With the policy's tokenizer it reads the very tokens that were sampled, else the text anew."""

    def __init__(self, path: str, policy_tokenizer: Any, device: Any, max_tokens: int, loaded: Any = None) -> None:
        """`loaded` is the model itself, where it stands on a base that another role has loaded."""
        from align.models.scalar import load_scalar_model
        from align.text.tokenizer import load_tokenizer

        self.tokenizer = load_tokenizer(path)
        self.model = loaded
        if loaded is None:
            model = load_scalar_model(sections.Model(path=path), n_tokens=len(self.tokenizer))
            self.model = model.to(device).eval().requires_grad_(False)
        self.reads_tokens = self.tokenizer.get_vocab() == policy_tokenizer.get_vocab()
        self.device, self.max_tokens = device, max_tokens

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        from align.models.scalar import score_all

        rows = list(ids) if self.reads_tokens else self._encode(prompts, texts)
        return score_all(self.model, rows, self.max_tokens, self.device)

    def _encode(self, prompts: Prompts, texts: Sequence[str]) -> list[list[int]]:
        from align.text.encode import encode_prompts, encode_responses

        responses = encode_responses(self.tokenizer, list(zip(prompts, texts, strict=True)))
        return [a + b for a, b in zip(encode_prompts(self.tokenizer, prompts), responses, strict=True)]


class FunctionReward:
    """A function `(prompts: list[str], responses: list[str]) -> list[float]`; a prompt is its last user turn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.function = find_function(name)

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        asked = [messages[-1].content for messages in prompts]
        try:
            scores = list(self.function(asked, list(texts)))
        except Exception as error:
            raise UserError(f"reward function {self.name} raised {type(error).__name__}: {error}") from error
        if len(scores) != len(asked):
            raise UserError(f"reward function {self.name} returned {len(scores)} scores for {len(asked)} answers")
        try:
            numbers = [float(score) for score in scores]
        except (TypeError, ValueError) as error:
            raise UserError(f"reward function {self.name} returned what is no number ({error})") from None
        bad = [index for index, number in enumerate(numbers) if not math.isfinite(number)]
        if bad:
            shown = f"{numbers[bad[0]]} for the answer {texts[bad[0]][:80]!r}"
            raise UserError(f"reward function {self.name} returned {shown}; every score must be finite")
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
