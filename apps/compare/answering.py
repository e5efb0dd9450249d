"""Streaming the answers of several models at once: one token of each in turn, so that all columns fill evenly.

One model after another would take as long, show nothing of the last one for most of the time, and reveal in the arena
which model is faster. The price is one key-value cache per model. The events:

    {side, piece}                      the text that a token adds, possibly ""; with `thought` it is part of a thought
    {side, end, text, n_tokens, ...}   the answer is complete or was stopped; its text excludes the `thoughts`
    {side, figures}                    its tokens' log probabilities and KL, and the reward
    {side, problem}                    this model failed; the others go on
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from align.errors import UserError
from apps.compare.models import Thought

if TYPE_CHECKING:
    from align.generation.sampling import Sampling
    from apps.compare.models import Conversation, StreamedAnswer, StreamingModel, StreamingModels

Event = dict[str, Any]
FAILED = "This model failed; the error is in the server's log."

log = logging.getLogger("align.compare")


class Side(NamedTuple):
    """A column of the page: a model, the conversation that it answers and the seed of its sampling."""

    model: StreamingModel
    messages: Conversation
    seed: int


def answers(
    sides: Sequence[Side], how: Sampling, is_stopped: Callable[[], bool]
) -> Iterator[tuple[int, str | StreamedAnswer | UserError]]:
    """Yields (side, piece of text, complete answer or error) of all sides, one token of each in turn.

    A stop takes effect between two tokens; all sides then end with what they have.
    """
    writing = {n: side.model.answer(side.messages, how, side.seed, is_stopped) for n, side in enumerate(sides)}
    while writing:
        for n, output in list(writing.items()):
            try:
                yield n, next(output)
            except StopIteration:
                del writing[n]
            except UserError as error:
                del writing[n]
                yield n, error
            except Exception:
                del writing[n]
                log.exception("%s failed", sides[n].model.name)
                yield n, UserError(FAILED)


def conversation(
    models: StreamingModels, sides: Sequence[Side], how: Sampling, is_stopped: Callable[[], bool]
) -> Iterator[Event]:
    """The page's events for `answers`, with each answer's figures as soon as it is complete."""
    began = time.monotonic()
    for n, output in answers(sides, how, is_stopped):
        if isinstance(output, str):
            yield {"side": n, "piece": output} | ({"thought": True} if isinstance(output, Thought) else {})
        elif isinstance(output, UserError):
            yield {"side": n, "problem": str(output)}
        else:
            yield ended(n, output, time.monotonic() - began)
            yield {"side": n, "figures": figures(models, sides[n], output)}


def ended(n: int, output: StreamedAnswer, seconds: float) -> Event:
    """The event that ends an answer."""
    counts = {"n_tokens": len(output.ids), "n_characters": len(output.text), "seconds": round(seconds, 2)}
    thoughts = {"thoughts": output.thoughts} if output.thoughts else {}
    return {"side": n, "end": output.end, "rest": output.rest, "text": output.text, **thoughts, **counts}


def figures(models: StreamingModels, side: Side, output: StreamedAnswer) -> Event:
    """The figures of an answer; `problems` says what could not be measured."""
    found: Event = {"logprobs": None, "reference": None, "kl": None, "reward": None, "problems": []}
    try:
        measured = models.measure(side.model, side.messages, output)
        found |= {name: _finite(values) for name, values in measured._asdict().items()}
        if models.reference is not None and measured.kl is None:
            found["problems"].append(
                f"No KL: {models.reference.name} has another vocabulary, or no room for this answer."
            )
    except Exception:
        log.exception("%s: an answer could not be measured", side.model.name)
        found["problems"].append("No log probabilities: measuring failed, see the server's log.")
    if models.reward is not None:
        try:
            found["reward"] = models.score(side.messages, output.text)
        except UserError as error:
            found["problems"].append(f"No reward: {error}.")
        except Exception:
            log.exception("the reward model failed")
            found["problems"].append("No reward: the reward model failed, see the server's log.")
    return found


def _finite(values: list[float] | None) -> list[float | None] | None:
    """Rounded values; infinities become None, since JSON has none."""
    return None if values is None else [round(value, 4) if math.isfinite(value) else None for value in values]
