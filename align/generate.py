"""Samples several answers to each prompt, for annotators to rank.

    align generate recipes/generate.yaml

Writes JSONL rows {prompt, responses, model, temperature, seed}. If a model thinks before it answers, the row also has
`response_thoughts`, one for each response.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from align import sections
from align.config import Section, parse_command, to_yaml
from align.errors import UserError, check_place, exit_on_user_error
from align.text.records import plain

if TYPE_CHECKING:
    from align.generation import sampling as generation
    from align.text.records import Prompt


class Sampling(Section):
    """How answers are sampled."""

    n: int = Field(1, gt=0)
    """Answers to each prompt."""
    max_tokens: int = Field(128, gt=0)
    """Longest answer, in tokens."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 is greedy: the likeliest token."""
    top_k: int = Field(0, ge=0)
    """Sample from the k likeliest tokens; 0 is all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""
    batch_tokens: int = Field(65536, gt=0)
    """Tokens in the KV cache at once. Changes memory and speed."""

    def how(self) -> generation.Sampling:
        """These settings for one answer, as the sampler takes them."""
        from align.generation.sampling import Sampling

        return Sampling(self.max_tokens, self.temperature, self.top_k, self.top_p, self.batch_tokens)


class Recipe(Section):
    """Sampling answers."""

    model: sections.Model
    data: sections.Data = sections.Data.defaults(too_long="drop", validation=0.0)
    sampling: Sampling = Sampling()
    output: str
    """The .jsonl file to write."""
    seed: int = Field(1, ge=0)
    """Seed of the sampling."""
    overwrite: bool = False
    """Replace an existing file at output."""


def main() -> None:
    """Parses the command line and samples."""
    recipe, dry_run = parse_command(Recipe, "generate")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Writes `recipe.output`. The file appears only when it is complete."""
    from align.models.load import load_config
    from align.text.files import write_lines
    from align.text.load import load
    from align.train.plan import fitted

    path = Path(recipe.output)
    check_place(path, is_file=True)
    if path.exists() and not recipe.overwrite:
        raise UserError(f"output: {path} exists; choose another output, or replace it with overwrite=true")
    recipe = fitted(recipe, load_config(recipe.model, to="generate"))
    loaded = load(recipe.data, "prompts", recipe.seed)
    print("\n".join(loaded.report.lines()))
    if dry_run:
        print(
            to_yaml(recipe),
            f"prompts: {len(loaded.train):,}, answers: {len(loaded.train) * recipe.sampling.n:,}",
            sep="\n",
        )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, answer_rows(recipe, loaded.train))
    print(f"wrote {path}: {recipe.sampling.n} answers to each of {len(loaded.train):,} prompts")


def answer_rows(recipe: Recipe, prompts: list[Prompt], n_at_once: int = 512) -> Iterator[dict[str, Any]]:
    """Yields one row for each prompt, in order. Prints progress every 10 seconds."""
    from align.generation.text_model import TextModel
    from align.text.encode import encode_prompts
    from align.text.template import fix_date

    data = recipe.data
    text_model = TextModel(recipe.model, data.max_tokens, template=data.template, options=data.template_options)
    fix_date(text_model.tokenizer, date.today())  # some templates write the date: the same for all prompts
    encode_prompts(
        text_model.tokenizer, [row.messages for row in prompts], [row.source for row in prompts]
    )  # raises `UserError` for a bad prompt before any sampling
    rng = text_model.rng(recipe.seed)
    started = shown = time.monotonic()
    for first in range(0, len(prompts), n_at_once):
        chunk = prompts[first : first + n_at_once]
        repeated = [prompt.messages for prompt in chunk for _ in range(recipe.sampling.n)]
        answers = iter(text_model.sample(repeated, recipe.sampling.how(), rng))
        for prompt in chunk:
            completions = [next(answers) for _ in range(recipe.sampling.n)]
            thoughts = [completion.thoughts for completion in completions]
            yield {
                "prompt": plain(prompt.messages),
                "responses": [completion.text for completion in completions],
                **({"response_thoughts": thoughts} if any(thoughts) else {}),
                "model": recipe.model.path,
                "temperature": recipe.sampling.temperature,
                "seed": recipe.seed,
            }
        done = first + len(chunk)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            left_s = (shown - started) / done * (len(prompts) - done)
            print(f"generate {done}/{len(prompts)} prompts  {left_s:.0f} s left", flush=True)


if __name__ == "__main__":
    exit_on_user_error(main)
