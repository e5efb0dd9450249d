"""Over-optimisation: gold and proxy score against sqrt(KL), for best-of-n and PPO, by size of the reward model.

    align overoptimization [RECIPE=recipes/demo/overoptimization.yaml] [key.sub=value ...]

Gao et al. 2022 (2210.10760) in the lab. From a finished demo it takes the SFT model, the rankings and the prompts;
trains reward models on trunks of several depths, the first layers of the SFT model; optimises against each, by PPO with
a weak KL penalty and by best-of-n on one set of samples; measures the gold score throughout; and fits Gao's two forms
(align/stats/overoptimization.py).

Writes into `output`: overoptimization.json (below), .csv, .svg, .png; and the parts, each made once:
trunk-<layers>/, rm-<layers>/, ppo-<layers>/ (run folders), samples.jsonl, scores-<layers>.json. After an
interruption the same command continues with the unfinished part.

    start                  {gold, n_prompts, n_samples}: of the SFT model, on the prompts of best-of-n
    sizes[]                one for each reward model
        layers, parameters, rm_accuracy
        start              {proxy, proxy_std}: of the SFT model's samples by this reward model
        best_of_n, rl      {points, fit}
            points[]       n or step; kl, d = sqrt(KL), gold, proxy; gold_gain = gold - start's, in the judge's points;
                           proxy_gain = proxy - start's, in standard deviations; best_of_n: also gold_low, gold_high
            fit            {a, b, r2, n_points, peak: {d, gain} or null} of gold_gain; null if there are too few points

Like align/lab/inverse_scaling.py this is a command: it may import all of align, and nothing imports it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from align.config import Section, build, merged, parse_command, read_yaml, to_yaml
from align.errors import UserError, exit_on_user_error
from align.shipped import own_or_shipped

if TYPE_CHECKING:
    from align import ppo, rm

RECIPE = "recipes/demo/overoptimization.yaml"


class Stage(Section):
    """A stage's recipe to start from."""

    recipe: str
    """Its file, relative to the folder of this recipe."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Keys of it to change, as a nested mapping."""


class Recipe(Section):
    """The over-optimisation curve."""

    demo: str
    """The folder of a finished demo: SFT model, rankings, prompts."""
    written_for: str = "runs/demo"
    """The folder that the stages' recipes name; their paths are moved to demo."""
    output: str
    """The folder to write. Finished parts of the same recipe are kept."""
    rm: Stage
    """The recipe of the reward models. Its model.path is the SFT model; the trunks are its first layers."""
    ppo: Stage
    """The recipe of PPO. Best-of-n uses its rollout section, data and gold judge too."""
    layers: list[int] = Field(default=[1, 2, 3], min_length=1)
    """Depths of the reward models' trunks."""
    sizes: list[int] = Field(default=[1, 2, 4, 8, 16, 32, 64], min_length=1)
    """The n of best-of-n."""
    samples: int = Field(128, gt=0)
    """Samples per prompt for best-of-n: at least the largest n; more reduce its variance."""
    prompts: int = Field(400, gt=0)
    """Number of prompts for best-of-n: the first of PPO's."""
    least_d: float = Field(0.5, ge=0)
    """PPO steps with sqrt(KL) below this are excluded from its fit: the form has an infinite slope at 0."""
    seed: int = Field(1, ge=0)
    """Seed of all stages and samples."""
    overwrite: bool = False
    """Remove the output of another recipe."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if min(self.layers) < 1 or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers = {self.layers}: give different numbers, each 1 or more")
        if min(self.sizes) < 1 or max(self.sizes) > self.samples:
            raise ValueError(f"sizes = {self.sizes}: best of n needs n from 1 to samples = {self.samples}")
        return self


class Plan(NamedTuple):
    """The recipes for one size of reward model."""

    layers: int
    trunk: Path
    rm: rm.Recipe
    ppo: ppo.Recipe


def main() -> None:
    """Parses the command line and runs."""
    argv = sys.argv[1:]
    if not any("=" not in word and not word.startswith("-") for word in argv):
        argv = [str(own_or_shipped(RECIPE)), *argv]
    recipe, dry_run = parse_command(Recipe, "lab.overoptimization", argv)
    path = next(word for word in argv if not word.startswith("-"))
    run(recipe, Path(path).parent, dry_run)


def run(recipe: Recipe, beside: Path, dry_run: bool = False) -> None:
    """Makes the missing parts of `recipe.output`. `beside`: the folder of the stages' recipes."""
    plans = [plan(recipe, layers, beside) for layers in recipe.layers]
    check(recipe, plans[0])
    if dry_run:
        print(to_yaml(recipe))
        for each in plans:
            print(f"# rm, {each.layers} layers", to_yaml(each.rm), f"# ppo, {each.layers} layers", sep="\n")
            print(to_yaml(each.ppo))
        return
    from align.stats.curve import report, start_of
    from align.train.folder import claim_experiment

    folder = Path(recipe.output)
    claim_experiment(folder, recipe)
    for each in plans:
        make_trunk(recipe, each)
        run_stage("rm", each.rm)
    samples = draw_samples(recipe, plans[0].ppo, folder / "samples.jsonl")
    sizes = []
    for each in plans:
        run_stage("ppo", each.ppo)
        scores = score_samples(each, samples, folder / f"scores-{each.layers}.json")
        sizes.append(measure(recipe, each, samples, scores))
    result = {"start": {**start_of(samples), "n_samples": recipe.samples}, "sizes": sizes}
    report(result, folder)


# -- the plan ---------------------------------------------------------------------------------------------------------


def plan(recipe: Recipe, layers: int, beside: Path) -> Plan:
    """The recipes for one size, their paths moved into the demo's folder."""
    from align import ppo, rm

    folder = Path(recipe.output)
    trunk = folder / f"trunk-{layers}"
    reward = folder / f"rm-{layers}"
    own_rm = {"model": {"path": str(trunk)}, "output": str(reward), "seed": recipe.seed}
    own_ppo = {"reward": {"path": str(reward / "model")}, "output": str(folder / f"ppo-{layers}"), "seed": recipe.seed}
    return Plan(
        layers,
        trunk,
        stage_recipe(recipe, recipe.rm, rm.Recipe, own_rm, beside),
        stage_recipe(recipe, recipe.ppo, ppo.Recipe, own_ppo | {"train": {"log_every": 1}}, beside),
    )


def stage_recipe(recipe: Recipe, stage: Stage, kind: Any, own: dict[str, Any], beside: Path) -> Any:
    """A stage's checked recipe: its file, what the user sets, and what this command sets."""
    from align.pipeline import moved

    path = beside / stage.recipe
    given = moved(merged(read_yaml(path), stage.set), recipe.written_for, recipe.demo)
    return build(kind, merged(given, own), str(path))


def check(recipe: Recipe, first: Plan) -> None:
    """Raises `UserError` for mistakes that would otherwise show only after minutes."""
    from align import sections
    from align.models.load import load_config

    for file in (first.rm.data.path, first.ppo.data.path):
        if isinstance(file, str) and not Path(file).exists():
            raise UserError(f"demo: there is no {file}; run the demo first, or give the folder of a finished demo")
    config = load_config(sections.Model(path=first.ppo.model.path))
    n_layers = config.get_text_config().num_hidden_layers
    if max(recipe.layers) > n_layers:
        raise UserError(f"layers = {recipe.layers}: {first.ppo.model.path} has {n_layers}; give at most that many")
    if first.ppo.gold is None:
        raise UserError("ppo: its recipe has no gold judge; set gold in it, such as align.lab.judge:reward")


# -- the parts --------------------------------------------------------------------------------------------------------


def make_trunk(recipe: Recipe, each: Plan) -> None:
    """The first layers of the SFT model as a model of its own.

    A configuration with fewer layers loads only the weights of the first ones, for any class that numbers its layers
    from the bottom. The embedding and the last normalisation stay those of the SFT model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    from align import sections
    from align.models.load import stored_config
    from align.text.tokenizer import load_tokenizer

    if each.trunk.exists():
        return
    path = each.ppo.model.path
    config = stored_config(sections.Model(path=path))
    text = config.get_text_config()
    text.num_hidden_layers = each.layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: each.layers]
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would list the layers that are left out
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(path, config=config)
    transformers_logging.set_verbosity(before)
    writing = each.trunk.with_name(f".{each.trunk.name}.writing")
    model.save_pretrained(writing)
    load_tokenizer(path).save_pretrained(writing)
    writing.replace(each.trunk)


def run_stage(name: str, recipe: Any) -> None:
    """Trains unless the run is finished; resumes an interrupted run."""
    import importlib

    if (Path(recipe.output) / "result.json").is_file():
        print(f"{recipe.output}: finished already", flush=True)
        return
    print(f"\n== {recipe.output} ==", flush=True)
    importlib.import_module(f"align.{name}").run(recipe.model_copy(update={"resume": True}))


def draw_samples(recipe: Recipe, how: ppo.Recipe, path: Path) -> list[dict[str, Any]]:
    """The SFT model's answers to the prompts, with gold scores, one row per prompt. Reads the file if it exists."""
    from align.generation.sampling import Sampling
    from align.generation.text_model import TextModel
    from align.text.encode import encode_prompts
    from align.text.files import write_lines
    from align.text.load import load

    if not path.is_file():
        rollout = how.rollout
        sampling = Sampling(rollout.max_tokens, rollout.temperature, batch_tokens=rollout.batch_tokens)
        text_model = TextModel(how.model, how.data.max_tokens)
        sample = partial(text_model.sample, how=sampling, rng=text_model.rng(recipe.seed))
        prompts = [prompt.messages for prompt in load(how.data, "prompts", recipe.seed).train]
        ids = encode_prompts(text_model.tokenizer, prompts)
        room = how.data.max_tokens - rollout.max_tokens  # longer prompts are left out, as PPO does
        fitting = [messages for messages, row in zip(prompts, ids, strict=True) if len(row) <= room][: recipe.prompts]
        print(f"\n== {path}: {recipe.samples} answers to each of {len(fitting)} prompts ==", flush=True)
        write_lines(path, sample_rows(sample, str(how.gold), fitting, recipe.samples))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sample_rows(sample: Any, gold: str, prompts: list[Any], n: int, n_at_once: int = 1024) -> Iterator[dict[str, Any]]:
    """Each prompt's samples as columns, in order. Prints progress every 10 seconds."""
    from align.rewards.function import FunctionReward

    judge = FunctionReward(gold)
    shown = time.monotonic()
    width = max(1, n_at_once // n)
    for first in range(0, len(prompts), width):
        chunk = prompts[first : first + width]
        completions = sample([messages for messages in chunk for _ in range(n)])
        for index, messages in enumerate(chunk):
            mine = completions[index * n : (index + 1) * n]
            texts = [completion.text for completion in mine]
            yield {
                "prompt": messages[-1].content,
                "texts": texts,
                "ids": [[*completion.prompt_ids, *completion.ids] for completion in mine],
                "ended": [completion.ended for completion in mine],
                "gold": judge.score([messages] * n, texts, []),
            }
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"samples of {first + len(chunk)}/{len(prompts)} prompts", flush=True)


def score_samples(each: Plan, samples: list[dict[str, Any]], path: Path) -> list[list[float]]:
    """The reward model's score of every sample, (n_prompts, n_samples), by PPO's scoring rules."""
    import torch

    from align import sections
    from align.models.scalar import load_scalar_model, score_all
    from align.stats.curve import write_whole
    from align.text.tokenizer import load_tokenizer, rows_needed
    from align.train.machine import accelerator as make_accelerator

    if path.is_file():
        scores: list[list[float]] = json.loads(path.read_text(encoding="utf-8"))
        return scores
    reward, reads = each.ppo.reward, each.ppo.train.micro_batch_tokens
    n_tokens = rows_needed(load_tokenizer(str(reward.path)))
    device = make_accelerator("fp32").device
    model = load_scalar_model(sections.Model(path=str(reward.path)), n_tokens=n_tokens).to(device)
    found = torch.tensor([score_all(model, row["ids"], reads, device) for row in samples])
    if reward.clip is not None:
        found = found.clamp(-reward.clip, reward.clip)
    if reward.missing_eos is not None:
        found = torch.where(torch.tensor([row["ended"] for row in samples]), found, reward.missing_eos)
    write_whole(path, json.dumps(found.tolist()))
    return found.tolist()


def measure(recipe: Recipe, each: Plan, samples: list[dict[str, Any]], scores: list[list[float]]) -> dict[str, Any]:
    """One reward model's block of the result."""
    from align.models.scalar import load_scalar_model
    from align.sections import Model
    from align.stats.curve import best_of_n_points, fitted, gained, rl_points, start_of, start_of_proxy

    start = start_of_proxy(scores)
    beginning = start | start_of(samples)
    finished = json.loads((Path(each.rm.output) / "result.json").read_text(encoding="utf-8"))
    model = load_scalar_model(Model(path=str(each.ppo.reward.path)))
    best = gained(best_of_n_points(recipe.sizes, samples, scores, recipe.seed), beginning)
    steps = gained(rl_points(Path(each.ppo.output)), beginning)
    return {
        "layers": each.layers,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rm_accuracy": finished.get("accuracy/validation"),
        "start": start,
        "best_of_n": {"points": best, "fit": fitted("best_of_n", best)},
        "rl": {"points": steps, "fit": fitted("rl", steps, recipe.least_d)},
    }


if __name__ == "__main__":
    exit_on_user_error(main)
