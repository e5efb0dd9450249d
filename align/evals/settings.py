"""The recipe keys of a model that is evaluated. Nothing heavy is imported: --help is quick."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from align import sections


class ComparedModel(sections.ComparedModel):
    """A model to evaluate."""

    best_of: int | None = Field(None, gt=1)
    """Draws so many answers to each prompt and keeps the one that the recipe's reward model scores highest."""
    seed: int | None = Field(None, ge=0)
    """Of its answers; by default the recipe's. The same model with another seed shows how much is chance."""


class Prompts(sections.Data):
    """Prompts that all models answer: local files or a hub name, in any format of align/text/formats.py."""

    too_long: Literal["truncate", "drop"] = "drop"
    """A prompt is never cut."""
    validation: float | str = 0.0
    """Held out: a fraction of the rows, or a path of its own; 0 for none."""
    part: Literal["train", "validation"] = "train"
    """Which of them are asked: validation for those that a stage with the same fraction and seed did not train on."""

    @model_validator(mode="after")
    def _templates_are_the_models(self) -> Self:
        if self.template or self.template_options:
            raise ValueError("template, template_options: give them beside a model, as models.NAME.template")
        return self

    @model_validator(mode="after")
    def _has_that_part(self) -> Self:
        if self.part == "validation" and self.validation == 0:
            raise ValueError("part: validation needs validation, the fraction that the stages held out")
        return self
