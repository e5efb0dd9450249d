"""A Python function of the user's as a reward: `reward.function=module:function`."""

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
