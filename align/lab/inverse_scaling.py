"""Inverse scaling: accuracy by model size on misconceptions that the web text repeats, and on controls.

    align inverse-scaling [RECIPE=recipes/inverse_scaling.yaml] [key.sub=value ...]

Pretrains models of several sizes on the same web text, which repeats misconceptions (align/lab/misconceptions.py), and
compares the log-likelihood of the choices of questions in the form of the web text. Larger models learn the web
text better, its false statements too (TruthfulQA, 2109.07958). Controls show that larger models are not worse in
general: questions of the same form with true web text, and held-out questions of the lab.

Writes into `output`: inverse_scaling.json (below), .csv, .svg, .png; and the parts, each made once:
seed-<n>/web.jsonl, <task>.jsonl, tokens/, size-<width>x<layers>/ (run folders with scores.json). After an
interruption the same command continues with the unfinished part.

    tasks.<name>      {n_questions, chance, difference}: of all seeds; the largest model's accuracy minus the smallest's
    sizes[]           {n_embd, n_layer, parameters, loss, seconds, tasks}; loss (validation) and seconds by seed
        tasks.<name>  {accuracy, by_seed}; accuracy is {mean, low, high}, by bootstrap over the subjects of questions

Like align/lab/overoptimization.py this is a command: it may import all of align.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from align.config import Section, build, merged, parse_command, to_yaml
from align.errors import UserError, exit_on_user_error
from align.shipped import own_or_shipped

if TYPE_CHECKING:
    from align import pretrain

RECIPE = "recipes/inverse_scaling.yaml"
TASKS = ("misconceptions", "the same form, no misconception", "held-out questions")
FILES = dict(zip(TASKS, ("misconceptions", "same_form", "heldout"), strict=True))


class Size(Section):
    """One size of model."""

    n_embd: int = Field(gt=0)
    """Width."""
    n_layer: int = Field(gt=0)
    """Transformer blocks."""
    learning_rate: float = Field(gt=0)
    """Learning rate of its pretraining; lower for larger models."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"size-{self.n_embd}x{self.n_layer}"


class Recipe(Section):
    """Accuracy by size."""

    output: str
    """The folder to write. Finished parts of the same recipe are kept."""
    sizes: list[Size] = Field(min_length=2)
    """The models, from the smallest to the largest."""
    seeds: list[int] = Field(default=[1], min_length=1)
    """Random seeds. Each has its own web text, misconceptions, questions and initial weights."""
    documents: int = Field(60_000, gt=0)
    """Documents of web text."""
    share: float = Field(0.6, gt=0, lt=1)
    """Share of documents about word pairs, some of which have misconceptions."""
    believers: float = Field(0.9, ge=0, le=1)
    """Share of texts about a pair with a misconception that state it."""
    heldout: int = Field(600, gt=0)
    """Held-out questions of the lab, with four choices each."""
    pretrain: dict[str, Any] = Field(default_factory=dict)
    """Keys of align.pretrain's recipe for all sizes, as a nested mapping."""
    overwrite: bool = False
    """Remove the output of another recipe."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key, values in (("sizes", [size.name for size in self.sizes]), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key} = {values}: give different ones")
        return self


class Exam(NamedTuple):
    """The questions of one task in one seed's world."""

    task: str
    rows: list[dict[str, Any]]


def main() -> None:
    """Parses the command line and runs."""
    argv = sys.argv[1:]
    if not any("=" not in word and not word.startswith("-") for word in argv):
        argv = [str(own_or_shipped(RECIPE)), *argv]
    recipe, dry_run = parse_command(Recipe, "lab.inverse_scaling", argv)
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Makes the missing parts of `recipe.output`, and the result."""
    plans = {(seed, size.name): stage(recipe, seed, size) for seed in recipe.seeds for size in recipe.sizes}
    if dry_run:
        print(to_yaml(recipe))
        print("# the first of its pretrainings", to_yaml(next(iter(plans.values()))), sep="\n")
        return
    from align.stats.curve import write_whole
    from align.stats.scaling import draw, summary, write_table
    from align.train.folder import claim_experiment

    folder = Path(recipe.output)
    claim_experiment(folder, recipe)
    exams = {seed: make_world(recipe, seed, folder / f"seed-{seed}") for seed in recipe.seeds}
    for (seed, _), each in plans.items():
        make_tokens(each, folder / f"seed-{seed}")
        run_stage(each)
        score(Path(each.output), exams[seed])
    result = measure(recipe, plans, exams)
    write_whole(folder / "inverse_scaling.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    write_table(result, folder / "inverse_scaling.csv")
    paths = draw(result, folder, "inverse_scaling")
    for line in summary(result):
        print(line)
    print(f"figure: {paths[1]}")


def stage(recipe: Recipe, seed: int, size: Size) -> pretrain.Recipe:
    """The checked recipe of one pretraining."""
    from align import pretrain

    world = Path(recipe.output) / f"seed-{seed}"
    own = {
        "data": {"path": str(world / "tokens")},
        "model": {"n_embd": size.n_embd, "n_layer": size.n_layer},
        "optim": {"learning_rate": size.learning_rate},
        "output": str(world / size.name),
        "seed": seed,
    }
    return build(pretrain.Recipe, merged(recipe.pretrain, own), f"pretrain, with the keys of {size.name}")


# -- the parts --------------------------------------------------------------------------------------------------------


def make_world(recipe: Recipe, seed: int, folder: Path) -> list[Exam]:
    """Writes a seed's web text and questions, unless they are there. Returns the questions."""
    from align.lab.exams import choice_rows
    from align.lab.misconceptions import documents, questions

    false_beliefs, others = questions(seed)
    heldout = list(choice_rows("heldout", recipe.heldout, seed))
    exams = [Exam(task, rows) for task, rows in zip(TASKS, (false_beliefs, others, heldout), strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    for exam in exams:
        write_lines(folder / f"{FILES[exam.task]}.jsonl", exam.rows)
    if not (folder / "web.jsonl").is_file():
        texts = documents(recipe.documents, seed, recipe.share, recipe.believers)
        write_lines(folder / "web.jsonl", ({"text": text} for text in texts))
    return exams


def make_tokens(each: pretrain.Recipe, folder: Path) -> None:
    """The web text as token shards, which all sizes read."""
    from align.prepare import is_prepared, write_shards
    from align.text.load import load

    if is_prepared(str(folder / "tokens")):
        return
    documents = load(each.data.model_copy(update={"path": str(folder / "web.jsonl")}), "documents", each.seed)
    write_shards(documents.train, documents.validation, each.tokenizer, folder / "tokens")


def run_stage(each: pretrain.Recipe) -> None:
    """Pretrains unless the run is finished; resumes an interrupted run."""
    from align import pretrain

    if (Path(each.output) / "result.json").is_file():
        print(f"{each.output}: finished already", flush=True)
        return
    print(f"\n== {each.output} ==", flush=True)
    pretrain.run(each.model_copy(update={"resume": True}))


def score(folder: Path, exams: list[Exam]) -> None:
    """scores.json of a finished run: parameters, and for each task and question the probability of each choice."""
    from align.generation.text_model import TextModel
    from align.sections import Model
    from align.stats.curve import write_whole
    from align.tasks.choice import ask_choices
    from align.tasks.questions import Question
    from align.tasks.template import Template

    if (folder / "scores.json").is_file():
        return
    text_model = TextModel(Model(path=str(folder / "model")), max_tokens=sys.maxsize, plain=True)
    as_web_text = Template(example=" {question}\n {answer}")
    found: dict[str, Any] = {}
    for exam in exams:
        questions = [
            Question(row["question"], (), f"{exam.task}:{line}", tuple(row["choices"]), row["answer"])
            for line, row in enumerate(exam.rows, start=1)
        ]
        outcomes = ask_choices(questions, [()] * len(questions), as_web_text, text_model, "raw")
        if reasons := [f"{outcome.place}: {outcome.reason}" for outcome in outcomes if outcome.reason]:
            raise UserError(f"{folder}: {reasons[0]}")
        found[exam.task] = [outcome.probabilities for outcome in outcomes]
    result = {"parameters": text_model.model.num_parameters(), "tasks": found}
    write_whole(folder / "scores.json", json.dumps(result))


def measure(recipe: Recipe, plans: dict[tuple[int, str], Any], exams: dict[int, list[Exam]]) -> dict[str, Any]:
    """The result, from the run folders."""
    from align.stats.scaling import Answer, difference, point, right

    scores = {key: json.loads((Path(each.output) / "scores.json").read_text()) for key, each in plans.items()}
    answers: dict[tuple[str, str], list[Answer]] = {}
    for (seed, size), found in scores.items():
        for task, rows in exams[seed]:
            is_right = right([row["answer"] for row in rows], found["tasks"][task])
            about = [row.get("about", row["question"]) for row in rows]
            answers.setdefault((size, task), []).extend(
                Answer(seed, subject, correct) for subject, correct in zip(about, is_right, strict=True)
            )
    first, last = recipe.sizes[0].name, recipe.sizes[-1].name
    tasks = {}
    for task, rows in exams[recipe.seeds[0]]:
        gap = difference(answers[first, task], answers[last, task])
        chance = 1 / len(rows[0]["choices"])
        tasks[task] = {"n_questions": len(answers[first, task]), "chance": chance, "difference": gap._asdict()}
    sizes = []
    for each_size in recipe.sizes:
        runs = [Path(plans[seed, each_size.name].output) for seed in recipe.seeds]
        results = [json.loads((run / "result.json").read_text(encoding="utf-8")) for run in runs]
        shape = {"n_embd": each_size.n_embd, "n_layer": each_size.n_layer}
        shape["parameters"] = scores[recipe.seeds[0], each_size.name]["parameters"]
        figures = {"loss": "loss/validation", "seconds": "seconds"}
        by_seed = {name: [result[key] for result in results] for name, key in figures.items()}
        sizes.append(shape | by_seed | {"tasks": {task: point(answers[each_size.name, task]) for task in TASKS}})
    return {"tasks": tasks, "sizes": sizes}


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON lines in a file that appears when it is complete."""
    writing = path.with_name(f".{path.name}.writing")
    with writing.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    writing.replace(path)


if __name__ == "__main__":
    exit_on_user_error(main)
