"""For notebooks: locate the project and its demo; show figures and tables of a report."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.plots import Panel
from align.plots import figures as all_figures
from align.report.charts import forest
from align.report.fields import Report, block_at, gold_of, interval_of, label_of
from align.report.page import model_table
from align.report.tables import Table

if TYPE_CHECKING:
    from pandas import DataFrame

PROJECT = "recipes/demo.yaml"  # in every checkout
DEMO = ("base/model", "sft/model", "rm/model", "ppo/model", "world/heldout_prompts.jsonl", "heldout_rankings.jsonl")
MAGNIFIED = 1.5  # enlarges letters to the size of a notebook's text


def begin() -> None:
    """Change to the checkout's folder, which recipes' paths are relative to."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # stages print progress lines
    warnings.filterwarnings("ignore", message="IProgress not found")  # about widgets for progress bars
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT).is_file():
            os.chdir(folder)
            return
    raise UserError(f"{here}: no {PROJECT} here or in a parent folder; start the notebook in the project's folder")


def demo(path: str) -> str:
    """Return `path` if it is the folder of a finished demo. Raises `UserError` otherwise."""
    if missing := [part for part in DEMO if not (Path(path) / part).exists()]:
        raise UserError(
            f"{path}/{missing[0]} does not exist; run `make demo` in the project's folder first, which takes some "
            "minutes, or set ALIGN_DEMO to the folder of another finished demo"
        )
    return path


def read_report(folder: str) -> dict[str, Any]:
    """The report.json in `folder`; its keys are listed in align/report/write.py."""
    return json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))


def read_rows(path: str, n: int | None = None) -> list[dict[str, Any]]:
    """Rows of a JSONL file, or the first n."""
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; run the stage that writes it first")
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, n)]


# -- figures ----------------------------------------------------------------------------------------------------


def show(shown: Sequence[Panel | Table]) -> None:
    """Display figures and tables of a report, each with its note."""
    from IPython.display import Markdown, display

    for one in shown:
        if isinstance(one, Panel):
            display(_bundle(one.svg), raw=True)  # type: ignore[no-untyped-call]
        else:
            display(Markdown(f"**{one.heading}**"), frame(one))  # type: ignore[no-untyped-call]
        display(Markdown(one.note))  # type: ignore[no-untyped-call]


def _bundle(svg: str) -> dict[str, str]:
    """A figure with explicit size, and its label as plain text."""
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    label = re.search(r'aria-label="([^"]*)"', svg)
    assert size is not None  # every figure of ours has both
    assert label is not None
    width, height = (round(MAGNIFIED * float(side)) for side in size.groups())
    return {
        "image/svg+xml": svg.replace("<svg ", f'<svg width="{width}" height="{height}" ', 1),
        "text/plain": label[1],
    }


def figures(stage: str, folder: str) -> list[Panel]:
    """Figures of a training run's metrics: pretrain, sft, rm, ppo or dpo."""
    return [
        panel for group in all_figures({stage: read_rows(f"{folder}/metrics.jsonl")}, {}).values() for panel in group
    ]


def comparison_figures(report: Report) -> list[Panel]:
    """Gold scores and win rates of a report, with intervals."""
    names = list(block_at(report, "models"))
    golds = forest({label_of(name): gold_of(report, name) for name in names}, "gold score", "Gold score")
    rates = {
        " over ".join(label_of(name) for name in pair.split("_over_")): interval_of(rate)
        for pair, rate in block_at(report, "win_rates").items()
    }
    found = [
        Panel(golds, "The judge's mean score with its 95% interval."),
        Panel(
            forest(rates, "share of prompts won, a tie counts half", "Who wins", reference=0.5),
            "Share of prompts on which the first model's answer is better. Dashed line: 50%, no difference.",
        ),
    ]
    return [panel for panel in found if panel.svg]


# -- tables -----------------------------------------------------------------------------------------------------------


def models(report: Report) -> DataFrame:
    """The report's table of models."""
    from pandas import DataFrame

    columns, rows = model_table(report)
    names, cells = [label_of(name) for name, _ in rows], [row for _, row in rows]
    return DataFrame(cells, index=names, columns=[column.heading for column in columns])


def frame(table: Table) -> DataFrame:
    """A table of the report."""
    from pandas import DataFrame

    return DataFrame([cells for _, cells in table.rows], [name for name, _ in table.rows], table.columns)


def answers(path: str) -> DataFrame:
    """The rows of an evaluation's side_by_side.jsonl: prompt, and for each model `<name>`, `<name> gold`, ..."""
    from pandas import DataFrame

    return DataFrame([{"prompt": row["prompt"], **_flat(row["answers"])} for row in read_rows(path)])


def _flat(by_model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, answer in by_model.items():
        found[name] = answer["text"]
        found |= {f"{name} {key}": value for key, value in answer.items() if key != "text"}
    return found
