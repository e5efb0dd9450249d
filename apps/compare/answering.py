"""Several models answer at once: a token of each in turn, so that all columns of the page fill alike.

One after another would take as long, show nothing of the last for most of the time, and tell in the arena which
model is the faster. The price is a key-value cache for each.

    {side, piece}                      the text that a token adds, perhaps ""; with `thought` one of its thoughts
    {side, end, text, n_tokens, ...}   the answer is whole, or was stopped; `thoughts` before it are not in its text
    {side, figures}                    its tokens' log probabilities and KL, the reward
    {side, problem}                    this model cannot; the others go on
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
    from apps.compare.models import Answered, Asked, StreamingModel, StreamingModels

Event = dict[str, Any]
FAILED = "This model failed; the error is in the server's log."

log = logging.getLogger("align.compare")


class Side(NamedTuple):
    """Who answers what in a column of the page."""

    voice: StreamingModel
    asked: Asked


def answers(
    sides: Sequence[Side], how: Sampling, seed: int, is_stopped: Callable[[], bool]
) -> Iterator[tuple[int, str | Answered | UserError]]:
    """Pieces of text, whole answers and problems of all sides, a token of each in turn.

    A stop is heeded between two tokens; all sides then end with what they have.
    """
    writing = {n: side.voice.answer(side.asked, how, seed, is_stopped) for n, side in enumerate(sides)}
    while writing:
        for n, said in list(writing.items()):
            try:
                yield n, next(said)
            except StopIteration:
                del writing[n]
            except UserError as error:
                del writing[n]
                yield n, error
            except Exception:
                del writing[n]
                log.exception("%s failed", sides[n].voice.name)
                yield n, UserError(FAILED)


def conversation(
    voices: StreamingModels, sides: Sequence[Side], how: Sampling, seed: int, is_stopped: Callable[[], bool]
) -> Iterator[Event]:
    """What the page shows of `answers`, with each answer's figures as soon as it is whole."""
    began = time.monotonic()
    for n, said in answers(sides, how, seed, is_stopped):
        if isinstance(said, str):
            yield {"side": n, "piece": said} | ({"thought": True} if isinstance(said, Thought) else {})
        elif isinstance(said, UserError):
            yield {"side": n, "problem": str(said)}
        else:
            yield ended(n, said, time.monotonic() - began)
            yield {"side": n, "figures": figures(voices, sides[n], said)}


def ended(n: int, said: Answered, seconds: float) -> Event:
    """The end of an answer."""
    counts = {"n_tokens": len(said.ids), "n_characters": len(said.text), "seconds": round(seconds, 2)}
    thoughts = {"thoughts": said.thoughts} if said.thoughts else {}
    return {"side": n, "end": said.end, "rest": said.rest, "text": said.text, **thoughts, **counts}


def figures(voices: StreamingModels, side: Side, said: Answered) -> Event:
    """What can be measured of an answer; `problems` tells what cannot."""
    found: Event = {"logprobs": None, "reference": None, "kl": None, "reward": None, "problems": []}
    try:
        measured = voices.measure(side.voice, side.asked, said)
        found |= {name: _finite(values) for name, values in measured._asdict().items()}
        if voices.reference is not None and measured.kl is None:
            found["problems"].append(f"No KL: {voices.reference.name} has other tokens, or no room for this answer.")
    except Exception:
        log.exception("%s: an answer could not be measured", side.voice.name)
        found["problems"].append("No log probabilities: measuring failed, see the server's log.")
    if voices.reward is not None:
        try:
            found["reward"] = voices.score(side.asked, said.text)
        except UserError as error:
            found["problems"].append(f"No reward: {error}.")
        except Exception:
            log.exception("the reward model failed")
            found["problems"].append("No reward: the reward model failed, see the server's log.")
    return found


def _finite(values: list[float] | None) -> list[float | None] | None:
    """JSON has no infinity."""
    return None if values is None else [round(value, 4) if math.isfinite(value) else None for value in values]
