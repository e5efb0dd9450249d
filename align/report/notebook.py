"""For notebooks: where the project and its demo stand, and figures and tables as a notebook shows them."""

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

PROJECT = "recipes/demo.yaml"  # stands in every checkout
DEMO = ("base/model", "sft/model", "rm/model", "ppo/model", "world/heldout_prompts.jsonl", "heldout_rankings.jsonl")
MAGNIFIED = 1.5  # letters of a report's figure would be small beside a notebook's text


def begin() -> None:
    """Makes the checkout the working directory, from which recipes name their paths, wherever the kernel started."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # stages tell their progress in lines
    warnings.filterwarnings("ignore", message="IProgress not found")  # which is about widgets for such bars
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT).is_file():
            os.chdir(folder)
            return
    raise UserError(f"{here}: there is no {PROJECT} here or above; start the notebook inside a checkout of the project")


def demo(path: str) -> str:
    """`path` itself, if it is the folder of a finished demo."""
    if missing := [part for part in DEMO if not (Path(path) / part).exists()]:
        raise UserError(
            f"{path}/{missing[0]} does not exist; run `make demo` in the project's folder first, which takes some "
            "minutes, or set ALIGN_DEMO to the folder of another finished demo"
        )
    return path


def read_report(folder: str) -> dict[str, Any]:
    """The report that an evaluation wrote into `folder`; align/report/write.py tells its keys."""
    return json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))


def read_rows(path: str, n: int | None = None) -> list[dict[str, Any]]:
    """The rows of a JSONL file, or the first n."""
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; run the stage that writes it first")
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, n)]


# -- what is shown ----------------------------------------------------------------------------------------------------


def show(shown: Sequence[Panel | Table]) -> None:
    """Displays figures and tables of a report, each with its note below."""
    from IPython.display import Markdown, display

    for one in shown:
        if isinstance(one, Panel):
            display(_bundle(one.svg), raw=True)  # type: ignore[no-untyped-call]
        else:
            display(Markdown(f"**{one.heading}**"), frame(one))  # type: ignore[no-untyped-call]
        display(Markdown(one.note))  # type: ignore[no-untyped-call]


def _bundle(svg: str) -> dict[str, str]:
    """A figure in a size of its own, which on the report's page the page gives it; as text, what it shows."""
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
    """What a training run's metrics show: of pretrain, sft, rm, ppo or dpo."""
    return [
        panel for group in all_figures({stage: read_rows(f"{folder}/metrics.jsonl")}, {}).values() for panel in group
    ]


def comparison_figures(report: Report) -> list[Panel]:
    """A report's gold scores and win rates with their intervals."""
    names = list(block_at(report, "models"))
    golds = forest({label_of(name): gold_of(report, name) for name in names}, "gold score", "Gold score")
    rates = {
        " over ".join(label_of(name) for name in pair.split("_over_")): interval_of(rate)
        for pair, rate in block_at(report, "win_rates").items()
    }
    found = [
        Panel(golds, "The judge's mean score. A bar is the 95% interval of the mean."),
        Panel(
            forest(rates, "share of prompts won, a tie counts half", "Who wins", reference=0.5),
            "How often the first model's answer to a prompt is the better one. At the dashed line they are equal.",
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
    """The rows of an evaluation's side_by_side.jsonl: prompt, and of each model `<name>`, `<name> gold`, ..."""
    from pandas import DataFrame

    return DataFrame([{"prompt": row["prompt"], **_flat(row["answers"])} for row in read_rows(path)])


def _flat(said: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, answer in said.items():
        found[name] = answer["text"]
        found |= {f"{name} {key}": value for key, value in answer.items() if key != "text"}
    return found
