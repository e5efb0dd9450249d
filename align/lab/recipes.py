"""Recipes of the lab's two commands, for `align.pipeline`: write the world, and rank answers."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from align.config import Section, to_yaml
from align.errors import UserError


class World(Section):
    """Writes the lab's files, as `align lab` does."""

    output: str
    """The folder to write."""
    seed: int = Field(1, ge=0)
    """Random seed of all files."""
    documents: int = Field(120_000, gt=0)
    """Documents of web text."""
    demonstrations: int = Field(4_000, gt=0)
    """Demonstrations."""
    prompts: int = Field(3_000, gt=0)
    """Prompts whose answers are ranked."""
    ppo_prompts: int = Field(4_000, gt=0)
    """Prompts for PPO."""
    rm_heldout_prompts: int = Field(300, gt=0)
    """Held-out prompts whose answers test the reward model."""
    heldout_prompts: int = Field(800, gt=0)
    """Held-out prompts for the evaluation."""
    heldout_choices: int = Field(600, gt=0)
    """Held-out questions with four choices, for the evaluation."""
    example_choices: int = Field(64, gt=0)
    """Questions of the training split, as few-shot examples."""
    heldout_questions: int = Field(400, gt=0)
    """Held-out questions with their right answers, for the evaluation."""
    heldout_web: int = Field(1_000, gt=0)
    """Documents of held-out web text, for perplexity."""


class Rank(Section):
    """Ranks answers with the lab's annotators, as `align rank` does."""

    answers: str
    """The output of align generate: rows {prompt, responses}."""
    output: str
    """File of rankings to write."""
    seed: int = Field(1, ge=0)
    """Seed of the annotators' noise."""
    agreement: float = Field(0.73, gt=0.5, lt=1)
    """Agreement of two annotators on a pair (InstructGPT: 72.6%)."""
    overlap: int = Field(1, ge=1, le=8)
    """Annotators per prompt."""


def run_world(recipe: World, dry_run: bool = False) -> None:
    """Writes the world and replaces existing files. Raises UserError for impossible sizes and unwritable folders."""
    from align.lab.corpora import Sizes, write_world

    if dry_run:
        print(to_yaml(recipe))
        return
    sizes = Sizes(**recipe.model_dump(exclude={"output", "seed"}))
    try:
        counts = write_world(Path(recipe.output), recipe.seed, sizes)
    except ValueError as error:  # not enough different prompts
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"output: {error}") from None
    for file, n_rows in counts.items():
        print(f"{n_rows:>8,}  {recipe.output}/{file}")


def run_rank(recipe: Rank, dry_run: bool = False) -> None:
    """Writes the rankings. Raises UserError for answers that cannot be ranked."""
    from align.lab.annotators import BrokenLine, rank_file

    if dry_run:
        print(to_yaml(recipe))
        return
    try:
        summary = rank_file(recipe.answers, recipe.output, recipe.seed, recipe.agreement, recipe.overlap)
    except BrokenLine as error:  # names its file and line
        raise UserError(str(error)) from None
    except ValueError as error:
        raise UserError(f"{recipe.answers}: {error}") from None
    except OSError as error:
        raise UserError(f"answers or output: {error}") from None
    print(
        f"wrote {recipe.output}: {summary['n']} rankings; two annotators agree on "
        f"{summary['annotator_agreement']:.1%} of pairs, one with the gold judge on {summary['gold_agreement']:.1%}"
    )
