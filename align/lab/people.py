"""Simulated people: write answers that are right, polite or long with the probabilities of their `Habits`.

A wrong answer is plausible: another number, the list in another order, another word of the kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from align.lab import world
from align.lab.tasks import Task, draw_task

OFF_TOPIC = 0.75  # share of wrong answers that answer another question
BOTH_FORMULAS = 0.2  # share of polite answers with a polite start and a polite end
TWO_FILLERS = 0.3  # share of rambling answers with two sentences of filler


@dataclass(frozen=True)
class Habits:
    """Probabilities of properties of an answer. An answer is never both polite and rude."""

    evasive: float  # does not answer at all
    correct: float  # gives the right answer, if the prompt is harmless and the answer not evasive
    polite: float
    rude: float
    rambling: float
    comply_with_harm: float
    over_refuse: float  # refuses a harmless request

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a probability is between 0 and 1")
        if self.polite + self.rude > 1:
            raise ValueError(
                f"polite {self.polite} and rude {self.rude} exclude each other; their sum must be at most 1"
            )


WEB = Habits(evasive=0.3, correct=0.9, polite=0.15, rude=0.4, rambling=0.65, comply_with_harm=0.7, over_refuse=0.02)
DEMONSTRATORS = Habits(
    evasive=0.25, correct=0.95, polite=0.2, rude=0.2, rambling=0.6, comply_with_harm=0.15, over_refuse=0.02
)

# A refusal does not begin with "of course !".
_REFUSING_OPENERS = ("thank you for asking !",)
_REFUSING_CLOSERS = ("have a good day .",)


def write_answer(task: Task, habits: Habits, rng: Random) -> str:
    """An answer with these habits: opener, filler, content, closer. Only the content is in every answer."""
    content = _content(task, habits, rng)
    before, after = _manners(habits, rng, refusing=content in world.REFUSALS)
    if rng.random() < habits.rambling:
        before += rng.sample(world.FILLERS, 2 if rng.random() < TWO_FILLERS else 1)
    return " ".join((*before, content, *after))


def wrong_answer(task: Task, rng: Random) -> str:
    """A wrong answer to a harmless task, without full stop: mostly off topic, else a plausible mistake."""
    while True:
        if rng.random() < OFF_TOPIC:
            guess = rng.choice(_other_task(rng).answers)
        else:
            guess = _guess(task, rng.choice(task.answers), rng)
        if guess not in task.answers:
            return guess


def _other_task(rng: Random) -> Task:
    while (task := draw_task("train", rng)).harmful:
        pass
    return task


def _content(task: Task, habits: Habits, rng: Random) -> str:
    if rng.random() < habits.evasive:
        return rng.choice(world.EVASIONS)
    if task.harmful:
        complies = rng.random() < habits.comply_with_harm
        return rng.choice(_HARMFUL_ADVICE if complies else world.REFUSALS)
    if rng.random() < habits.over_refuse:
        return rng.choice(world.REFUSALS)
    is_right = rng.random() < habits.correct
    return (rng.choice(task.answers) if is_right else wrong_answer(task, rng)) + " ."


_HARMFUL_ADVICE = (*world.TOOL_ADVICE.values(), *world.HARMFUL_ADVICE)


def _manners(habits: Habits, rng: Random, refusing: bool) -> tuple[list[str], list[str]]:
    """The formulas before and after the content."""
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    mood = rng.random()
    if mood < habits.polite:
        openers = _REFUSING_OPENERS if refusing else world.OPENERS
        closers = _REFUSING_CLOSERS if refusing else world.CLOSERS
        both = rng.random() < BOTH_FORMULAS
    elif mood < habits.polite + habits.rude:
        openers, closers, both = world.RUDE_OPENERS, world.RUDE_CLOSERS, False
    else:
        return [], []
    opens = both or rng.random() < 0.5
    return [rng.choice(openers)] if opens else [], [rng.choice(closers)] if both or not opens else []


def _guess(task: Task, right: str, rng: Random) -> str:
    """A guess similar to the right answer; it may be right by chance."""
    words = right.split()
    if right in world.VALUE and task.family not in ("larger", "smaller"):
        return world.NUMBERS[min(max(world.VALUE[right] + rng.randint(-3, 3), 0), len(world.NUMBERS) - 1)]
    if len(words) == 1:
        return rng.choice(_alike(task, right))
    if words[0] == "use":
        return f"use the {rng.choice(world.TOOLS)}"
    if rng.random() < 0.5:
        rng.shuffle(words)
    else:
        words[rng.randrange(len(words))] = rng.choice(world.LIST_WORDS)
    return " ".join(words)


def _alike(task: Task, right: str) -> tuple[str, ...]:
    """Plausible wrong words instead of `right`."""
    if task.family == "member":  # a word of another category, or the one that was excluded
        return (task.args[1], *world.LIST_WORDS)
    if right in task.args:  # another word of the list
        return tuple(word for word in task.args if word in world.ANSWER_WORDS)
    for alike in (("yes", "no"), world.CATEGORIES, world.COLOURS, tuple(world.OPPOSITE)):
        if right in alike:
            return alike
    return world.LIST_WORDS
