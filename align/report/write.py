"""Write the report of an evaluation: `report.json`, `report.html`, and a summary for the terminal.

`write_report` and `print_summary` read one dict, the contract between `align.evaluate` and readers of report.json. Any
key may be absent, None or NaN; missing values are left out of the page. Shares are between 0 and 1.

    n_prompts             number of prompts
    judge                 the name of the judge that gives the gold score
    perfect_gold          the score of a perfect answer
    models.<name>         base, sft, ppo, dpo, best_of_16, or any other name
        gold              {mean, low, high}: the judge's mean score, with its 95% interval
        reward            the reward model's mean score
        correct, polite, brief, refused_rightly, ended, empty, and other flags of the judge   shares of the answers
        n_tokens          mean length of an answer
        kl_to_sft         mean of log p_model - log p_sft over the model's own answers, in nats an answer; for a model
                          with best_of that mean over the chosen answers and log n - (n - 1) / n: an upper bound
        best_of           n, where each answer is the best of n by the reward model
    compared_by           gold or reward: the score by which models are compared
    differences.<a>_over_<b>  {mean, low, high, p}: paired difference of scores, a - b; p by permutation
    win_rates.<a>_over_<b>    {mean, low, high}: share of prompts on which a's answer scores higher; a tie counts half
    judges.<name>             {kind, pairs, ranking, order_bias}: align/judges/panel.py and align/stats/preferences.py
    judges_agree              [{judges, same, kappa, n}]
    tasks.<name>              {kind, metric, n, models}: align/tasks/suite.py and results.py
    texts.<model>             length, repetition, diversity, refusals: align/stats/texts.py
    reward_model
        accuracy          {mean, low, high}: on held-out comparisons, against the annotators' labels
        annotator_agreement   how often two annotators prefer the same answer
        gold_agreement    how often an annotator agrees with the gold judge: about the upper limit of any accuracy
        accuracy_vs_gold  how often the reward model agrees with the gold judge
    stages.<name>         {seconds, peak_memory_mb}
    problems              [{where, what, n}]: what could not be measured, and why
    seed, git_commit, recipe    inputs of the run
    commands              the shell commands that repeat the run, as a list
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.plots import Curves
from align.report.fields import Report, block_at, label_of, ordered
from align.report.page import Shown, agreement_meters, model_table, page, stage_rows, win_rate_meters
from align.report.verdict import verdict

if TYPE_CHECKING:
    from rich.console import Console


def write_report(report: Report, curves: Curves, groups: Sequence[Shown], folder: Path) -> Path:
    """Write report.json and report.html into `folder`. Returns the path of the page.

    `curves` maps pretrain, sft, rm, ppo and dpo to the rows of their metrics, each with "step"; `groups` are answers to
    show, (heading, note, rows), each row {"prompt": str, "answers": {model: {"text": str, "gold": float | None}}}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = ordered(report)
    (folder / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    path = folder / "report.html"
    # A model may emit half a surrogate pair, which cannot be encoded: it becomes "?".
    path.write_text(page(report, curves, groups), encoding="utf-8", errors="replace")
    return path


def print_summary(report: Report, console: Console) -> None:
    """Print the verdict, the table of models, and a line per other block."""
    from rich.table import Column as Heading
    from rich.table import Table
    from rich.text import Text

    report = ordered(report)
    if sentence := verdict(report):
        console.print(Text(sentence, style="bold"))
    columns, rows = model_table(report)
    if rows:
        table = Table(Heading("", no_wrap=True, min_width=max(len(label_of(name)) for name, _ in rows)))
        table.box, table.collapse_padding, table.pad_edge = None, True, False
        for column in columns:
            table.add_column(column.heading, justify="right", no_wrap=column.key == "gold")
        for name, cells in rows:
            table.add_row(*(Text(cell) for cell in (label_of(name), *cells)))  # Text: "[1.2, 1.4]" is no markup
        console.print(table)
    for line in _summary_lines(report):
        console.print(Text(line))
    for problem in report.get("problems") or []:
        times = f" ({problem['n']:,} times)" if problem["n"] > 1 else ""
        console.print(Text(f"Not measured: {problem['where']}: {problem['what']}{times}"))


def _summary_lines(report: Report) -> Iterable[str]:
    rates, few = win_rate_meters(report), max(4, len(block_at(report, "models")) - 1)
    lines = {
        "Win rates": [f"{meter.label} {meter.text}" for meter in rates[:few]]
        + ([f"and {len(rates) - few} more in the report"] if len(rates) > few else []),
        "Agreement": [f"{meter.label} {meter.text}" for meter in agreement_meters(report)],
        "Stages": [f"{name} {time}" for name, time, _ in stage_rows(report)[0]],
    }
    return (f"{heading}: {', '.join(parts)}" for heading, parts in lines.items() if parts)
