"""Recipe keys of an evaluated model. Imports nothing heavy, so that --help is quick."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from align import sections


class ComparedModel(sections.ComparedModel):
    """A model to evaluate."""

    best_of: int | None = Field(None, gt=1)
    """Samples so many answers per prompt and keeps the one with the highest reward model score."""
    seed: int | None = Field(None, ge=0)
    """Seed of its answers. Default: the recipe's. A second seed for the same model shows how much is chance."""


class Prompts(sections.Data):
    """Prompts that all models answer: local files or a hub name, in any format of align/text/formats.py."""

    too_long: Literal["truncate", "drop"] = "drop"
    """A prompt is never cut."""
    validation: float | str = 0.0
    """Held-out rows: a fraction of the rows, or a path; 0 for none."""
    part: Literal["train", "validation"] = "train"
    """Part to evaluate on. validation: the rows that a stage with the same fraction and seed did not train on."""

    @model_validator(mode="after")
    def _templates_are_the_models(self) -> Self:
        if self.template or self.template_options:
            raise ValueError("template, template_options: set them per model, as models.NAME.template")
        return self

    @model_validator(mode="after")
    def _has_that_part(self) -> Self:
        if self.part == "validation" and self.validation == 0:
            raise ValueError("part: validation needs a validation above 0: the fraction that the stages held out")
        return self
