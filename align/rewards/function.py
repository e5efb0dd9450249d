"""The user's Python function as a reward: `reward.function=module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from align.errors import RewardError, UserError
from align.rewards.reward import Prompts, checked_scores
from align.text.records import last_question


class FunctionReward:
    """A function `(prompts: list[str], responses: list[str]) -> list[float]`; a prompt is its last user message.

    It may return a list, a NumPy array or a tensor on any device.
    """

    def __init__(self, name: str) -> None:
        self.name = f"reward function {name}"
        self.function = find_function(name)

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        questions = [last_question(messages) for messages in prompts]
        try:
            scores = plain_list(self.function(questions, list(texts)))
        except RewardError as error:
            raise RewardError(f"{self.name} {error}") from None
        except Exception as error:  # the function is the user's: it may fail in any way
            raise RewardError(f"{self.name} raised {type(error).__name__}: {error}{_place(error)}") from error
        return checked_scores(scores, texts, self.name)


def plain_list(returned: Any) -> list[Any]:
    """A function's return value as a list: tensors move to the CPU, and a column (n, 1) is flattened.

    Raises `RewardError`, without the function's name, if it is not a list of scores.
    """
    if hasattr(returned, "detach"):
        try:
            returned = returned.detach().cpu()
        except (RuntimeError, NotImplementedError) as error:
            raise RewardError(
                f"returned a tensor on the device {str(returned.device)!r}, which cannot be read ({error}); "
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


def find_function(name: str) -> Callable[..., Any]:
    """Import `module:function`; modules in the current folder are found too."""
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise UserError(f"{name!r} is not of the form module:function, such as align.lab.judge:reward")
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
    """Where the user's code raised an error, since no traceback is shown; "" if we raised it."""
    import traceback

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return f" ({frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
