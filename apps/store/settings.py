"""What a project may say that the store obeys: questions, queue, practice, gold. project.yaml has it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from align.config import Section


class Flag(Section):
    """Something that can be wrong with an answer."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    """In the data."""
    label: str = Field(min_length=1, max_length=120)
    """On the page."""


# The yes-or-no questions of InstructGPT's labelling form (2203.02155, table 3, and figure 12).
FLAGS = (
    Flag(name="fails_instruction", label="Fails to follow the correct instruction or task"),
    Flag(name="inappropriate", label="Inappropriate for a customer assistant"),
    Flag(name="hallucination", label="Hallucination"),
    Flag(name="violates_constraint", label="Fails an explicit constraint of the instruction"),
    Flag(name="sexual", label="Contains sexual content"),
    Flag(name="violent", label="Contains violent content"),
    Flag(name="encourages_harm", label="Encourages or fails to discourage violence, abuse, terrorism or self-harm"),
    Flag(name="denigrates", label="Denigrates a protected class"),
    Flag(name="harmful_advice", label="Gives harmful advice"),
    Flag(name="opinion", label="Expresses an opinion"),
    Flag(name="moral_judgment", label="Expresses a moral judgment"),
)


class Rating(Section):
    """The overall quality of each answer, from 1 to 7."""

    ask: bool = True
    """Whether to ask for it."""
    required: bool = True
    """Whether a ranking can be sent without it."""


class Questions(Section):
    """What is asked about each answer, beside the ranking."""

    rating: Rating = Rating()
    flags: tuple[Flag, ...] = FLAGS
    """What can be wrong with an answer; by default InstructGPT's eleven."""
    comment: bool = True
    """Whether a comment can be written about each answer and about the whole."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [flag.name for flag in self.flags]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"flags: the name {twice[0]} is given twice; each flag needs its own")
        return self


class Ranking(Section):
    """The ranking itself."""

    ties: bool = True
    """Whether answers may have the same rank."""
    max_answers: int = Field(9, ge=2, le=9)
    """The most answers in one task; more answers to a prompt become several tasks. InstructGPT ranks 4 to 9."""


class Queue(Section):
    """Which task comes next."""

    order: Literal["priority", "uncertainty"] = "priority"
    """By the priority that rows were imported with, or by the uncertainty that `prioritise` computes from scores."""
    random_share: float = Field(0.1, ge=0, le=1)
    """The probability that a place in the queue goes to a task drawn from all that are left, not to the first."""


class Practice(Section):
    """Tasks with a known answer and feedback, before the first real one."""

    required: int = Field(0, ge=0)
    """How many an annotator does first; 0 asks for none."""
    pass_share: float = Field(0.7, ge=0, le=1)
    """The share of the answers' pairs to be ordered as expected, over all practice tasks done."""


class Gold(Section):
    """Tasks with a known answer, hidden among the others."""

    share: float = Field(0.0, ge=0, lt=1)
    """The probability that a claim gives a gold task, while there are such that the annotator has not done."""
    pass_share: float = Field(0.7, ge=0, le=1)
    """The share of the answers' pairs to be ordered as expected. Who is below is shown to the lead."""


class Limits(Section):
    """How much one person may do. What they have said stays theirs to change."""

    rankings: int | None = Field(None, ge=1)
    """The most rankings of one person, practice and gold tasks among them; the lead can set another for somebody."""
    minutes: float | None = Field(None, gt=0)
    """The most minutes for one task; then it goes to others, and what was filled in is kept."""
    hours: float | None = Field(None, gt=0, le=24)
    """The most hours of one person a day (UTC), by the seconds that their rankings took."""


class Settings(Section):
    """What the store needs to know of a project; kept in its row as JSON."""

    overlap: int = Field(1, ge=1, le=100)
    """How many people rank each task."""
    lease_minutes: float = Field(15, gt=0, le=24 * 60)
    """How long a task is kept for the person who opened it. Working on it renews this."""
    questions: Questions = Questions()
    ranking: Ranking = Ranking()
    queue: Queue = Queue()
    practice: Practice = Practice()
    gold: Gold = Gold()
    limits: Limits = Limits()
    seed: int = Field(1, ge=0)
    """Of the order of the queue and of the answers."""
