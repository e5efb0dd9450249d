"""The keys of project.yaml that the store uses: questions, ranking, queue, practice, gold, limits."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from align.config import Section


class Flag(Section):
    """A yes-or-no flag for a problem of an answer."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    """The name in exports."""
    label: str = Field(min_length=1, max_length=120)
    """The label on the page."""


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
    """Whether to ask for a rating."""
    required: bool = True
    """Whether each answer needs a rating before a ranking can be submitted."""


class Questions(Section):
    """Questions about each answer besides the ranking."""

    rating: Rating = Rating()
    flags: tuple[Flag, ...] = FLAGS
    """Problems that annotators can flag; by default InstructGPT's eleven."""
    comment: bool = True
    """Whether annotators can comment on each answer and on the task."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [flag.name for flag in self.flags]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"flags: the name {twice[0]} is used twice; give each flag its own")
        return self


class Ranking(Section):
    """The ranking."""

    ties: bool = True
    """Whether answers may have the same rank."""
    max_answers: int = Field(9, ge=2, le=9)
    """Most answers in one task; more answers to a prompt become several tasks. InstructGPT ranks 4 to 9."""


class Queue(Section):
    """The order of tasks."""

    order: Literal["priority", "uncertainty"] = "priority"
    """By the imported rows' priority, or by the uncertainty that `prioritise` computes from reward-model scores."""
    random_share: float = Field(0.1, ge=0, le=1)
    """Probability that a place in the queue goes to a task drawn from all remaining ones instead of the first."""


class Practice(Section):
    """Practice tasks: known ranks and feedback, before the first real task."""

    required: int = Field(0, ge=0)
    """Number of practice tasks before the first real one; 0: no practice."""
    pass_share: float = Field(0.7, ge=0, le=1)
    """Share of pairs that must be in the expected order to pass, over all practice tasks done."""


class Gold(Section):
    """Gold tasks: known ranks, hidden among the others."""

    share: float = Field(0.0, ge=0, lt=1)
    """Probability that an annotator's next task is a gold task, while they have any left to do."""
    pass_share: float = Field(0.7, ge=0, le=1)
    """Share of pairs that must be in the expected order to pass. The lead sees who fails."""


class Limits(Section):
    """Limits per person. People can still change their earlier rankings."""

    rankings: int | None = Field(None, ge=1)
    """Most rankings of one person, including practice and gold tasks; the lead can set a person's own limit."""
    minutes: float | None = Field(None, gt=0)
    """Most minutes for one task; then it goes to others, and the draft is kept."""
    hours: float | None = Field(None, gt=0, le=24)
    """Most hours of one person per day (UTC), measured by the time of their rankings."""


class Settings(Section):
    """The settings of a project, kept in its row as JSON."""

    overlap: int = Field(1, ge=1, le=100)
    """Number of people who rank each task."""
    lease_minutes: float = Field(15, gt=0, le=24 * 60)
    """Minutes that a task stays reserved for the person who opened it. Working on it renews the lease."""
    questions: Questions = Questions()
    ranking: Ranking = Ranking()
    queue: Queue = Queue()
    practice: Practice = Practice()
    gold: Gold = Gold()
    limits: Limits = Limits()
    seed: int = Field(1, ge=0)
    """Seed for the order of the queue and of the answers."""
