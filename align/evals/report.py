"""The report of an evaluation: `report.json` for programs, `report.html` for people, a table for the terminal.

`write_report` and `print_summary` read one dict, the contract between `align.evaluate` and whoever reads its numbers.
Any key may be absent, None or NaN; what is missing is left out of the page. Shares are between 0 and 1.

    n_prompts             how many prompts every model answered
    judge                 the name of the judge whose score is called gold here
    perfect_gold          the score of an answer that has nothing wrong with it
    models.<name>         base, sft, ppo, dpo, best_of_16, or any other name
        gold              {mean, low, high}: the judge's mean score, with its 95% interval
        reward            the reward model's mean score
        correct, polite, brief, refused_rightly, ended      shares of the answers
        n_tokens          mean length of an answer
        kl_to_sft         mean of log p_model - log p_sft over the model's own answers, in nats an answer; for a model
                          with best_of that mean over the chosen answers and log n - (n - 1) / n: an upper bound
        best_of           n, where each answer is the best of n by the reward model
    win_rates.<a>_over_<b>    {mean, low, high}: share of prompts on which a's answer scores higher; a tie counts half
    reward_model
        accuracy          {mean, low, high}: on held-out comparisons, against the annotators' labels
        annotator_agreement   how often two annotators prefer the same answer
        gold_agreement    how often an annotator prefers what the gold judge prefers: about the ceiling of any accuracy
        accuracy_vs_gold  how often the reward model prefers what the gold judge prefers
    stages.<name>         {seconds, peak_memory_mb}
    seed, git_commit      what the run began from
    commands              the shell commands that make the run again, as a list
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from align.evals.contents import (
    COLUMNS,
    MODELS,
    Column,
    Report,
    block_at,
    duration_text,
    gold_of,
    in_order,
    interval_of,
    label_of,
    mean_of,
    ordered,
    plain_values,
    text_of,
)
from align.evals.plots import COLOURS, Curves, Point, colours, figures
from align.evals.stats import Interval
from align.evals.verdict import claims_of, reward_model_reading, verdict

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = ("python -m align.pipeline recipe.yaml",)
N_SAMPLES = 10
BOUND = "; of best of n it is a bound, log n − (n−1)/n: the true distance is at most that"


# -- what is written --------------------------------------------------------------------------------------------------


def write_report(report: Report, curves: Curves, samples: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Writes report.json and report.html into `folder`, and returns the path of the page.

    `curves` maps pretrain, sft, rm, ppo and dpo to the rows of their metrics, each with "step"; `samples` holds
    {"prompt": str, "answers": {model: {"text": str, "gold": float | None}}}, of which the page shows the first ten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = ordered(report)
    (folder / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    page = folder / "report.html"
    # A model may emit half a surrogate pair, which is no character: it becomes "?".
    page.write_text(_html(report, curves, samples), encoding="utf-8", errors="replace")
    return page


def print_summary(report: Report, console: Console) -> None:
    """The verdict, the table of models, and a line for each of the other blocks."""
    from rich.table import Column as Heading
    from rich.table import Table
    from rich.text import Text

    report = ordered(report)
    if sentence := verdict(report):
        console.print(Text(sentence, style="bold"))
    columns, rows = _table(report)
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


def _summary_lines(report: Report) -> Iterable[str]:
    rates, few = _win_rates(report), max(4, len(block_at(report, "models")) - 1)
    lines = {
        "Win rates": [f"{meter.label} {meter.text}" for meter in rates[:few]]
        + ([f"and {len(rates) - few} more in the report"] if len(rates) > few else []),
        "Agreement": [f"{meter.label} {meter.text}" for meter in _reward_model(report)],
        "Stages": [f"{name} {time}" for name, time, _ in _stages(report)[0]],
    }
    return (f"{heading}: {', '.join(parts)}" for heading, parts in lines.items() if parts)


# -- the page ---------------------------------------------------------------------------------------------------------


class Meter(NamedTuple):
    """A number with its interval, to be drawn on a bar."""

    label: str
    text: str
    colour: str
    interval: Interval


def _html(report: Report, curves: Curves, samples: Sequence[Mapping[str, Any]]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # what models wrote is not to be trusted
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    columns, rows = _table(report)
    stages, total = _stages(report)
    own = _own_colours(report)
    return environment.get_template("report.html.j2").render(
        verdict=verdict(report),
        claims=claims_of(report),
        facts=_facts(report),
        golds=_golds(report),
        gold_scale=_gold_scale(report),
        columns=columns,
        rows=[(label_of(name), own[name], cells) for name, cells in rows],
        win_rates=_win_rates(report),
        reward_model=_reward_model(report),
        reading=reward_model_reading(report),
        figures=_figures(report, curves),
        samples=[_sample(plain_values(sample), own) for sample in samples[:N_SAMPLES]],
        stages=stages,
        total=total,
        rerun=_rerun(report),
    )


def _own_colours(report: Report) -> dict[str, str]:
    return colours(block_at(report, "models"))


def _facts(report: Report) -> list[str]:
    n_prompts, perfect = mean_of(report.get("n_prompts")), text_of(report.get("perfect_gold"), "score")
    facts = {
        f"{n_prompts or 0:,} prompts": n_prompts,
        f"judged by {report.get('judge')}": report.get("judge"),
        f"a perfect answer, the dotted mark, scores {perfect}": perfect,
    }
    return [fact for fact, known in facts.items() if known]


def _table(report: Report) -> tuple[list[Column], list[tuple[str, list[str]]]]:
    """The columns that some model has a number for, and (model, cells) rows."""
    rows = {}
    for name, block in block_at(report, "models").items():
        texts = {column.key: text_of(block.get(column.key), column.kind) for column in COLUMNS}
        if any(texts.values()):
            is_bound = block.get("best_of") is not None and texts["kl_to_sft"]
            rows[name] = texts | ({"kl_to_sft": f"≤ {texts['kl_to_sft']}"} if is_bound else {})
    columns = [column for column in COLUMNS if any(texts[column.key] for texts in rows.values())]
    if any(texts["kl_to_sft"].startswith("≤") for texts in rows.values()):
        columns = [c._replace(legend=c.legend + BOUND) if c.key == "kl_to_sft" else c for c in columns]
    return columns, [(name, [texts[column.key] or "–" for column in columns]) for name, texts in rows.items()]


def _golds(report: Report) -> list[Meter]:
    return [
        Meter(label_of(name), text_of(gold, "score"), own, gold)
        for name, own in _own_colours(report).items()
        if (gold := gold_of(report, name))
    ]


def _gold_scale(report: Report) -> tuple[float, float, float | None]:
    """Where the bars of gold scores begin and end, and the mark on them: a perfect answer's score."""
    perfect = mean_of(report.get("perfect_gold"))
    ends = [0.0, *(end for meter in _golds(report) for end in meter.interval), *([] if perfect is None else [perfect])]
    return min(ends), max(ends), perfect


def _win_rates(report: Report) -> list[Meter]:
    meters, own = [], _own_colours(report)
    for key, rate in block_at(report, "win_rates").items():
        a, _, b = key.partition("_over_")
        if interval := interval_of(rate):
            colour = own.get(a, COLOURS["base"])
            meters.append(Meter(f"{label_of(a)} over {label_of(b)}", text_of(rate, "share"), colour, interval))
    return meters


def _reward_model(report: Report) -> list[Meter]:
    """Who agrees with whom. A number without an interval is its own."""
    rows = (
        ("accuracy", "reward model with held-out labels", COLOURS["reward model"]),
        ("annotator_agreement", "annotator with annotator", COLOURS["base"]),
        ("gold_agreement", "annotator with gold judge", COLOURS["base"]),
        ("accuracy_vs_gold", "reward model with gold judge", COLOURS["reward model"]),
    )
    meters, block = [], block_at(report, "reward_model")
    for key, label, colour in rows:
        value, mean = block.get(key), mean_of(block.get(key))
        if mean is not None:
            interval = interval_of(value) or Interval(mean, mean, mean)
            meters.append(Meter(label, text_of(value, "share"), colour, interval))
    return meters


def _figures(report: Report, curves: Curves) -> dict[str, list[tuple[Any, str]]]:
    """(svg, note) under each heading. Our own SVG is the one thing on the page that is not escaped."""
    from markupsafe import Markup

    drawn = figures(curves, _kl_points(report))
    return {heading: [(Markup(panel.svg), panel.note) for panel in panels] for heading, panels in drawn.items()}


def _kl_points(report: Report) -> dict[str, Point]:
    """Where each model stands in the plane of KL and gold. SFT stands at 0: the KL is measured from it."""
    points = {}
    for name, block in block_at(report, "models").items():
        gold = gold_of(report, name) or (mean_of(block.get("gold")), None, None)
        points[label_of(name)] = (0.0 if name == "sft" else mean_of(block.get("kl_to_sft")), *gold)
    return points


def _sample(sample: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, Any]:
    answers = in_order(sample.get("answers") or {}, MODELS)
    golds = {name: gold for name, answer in answers.items() if (gold := mean_of(answer.get("gold"))) is not None}
    best = max(golds.values()) if len(set(golds.values())) > 1 else math.inf  # no best among equals
    own = colours(dict.fromkeys([*own, *answers]))
    shown = [
        {
            "model": label_of(name),
            "colour": own[name],
            "text": answer.get("text") or "",
            "gold": text_of(golds.get(name), "score"),
            "best": golds.get(name, -math.inf) >= best,
        }
        for name, answer in answers.items()
    ]
    return {"prompt": sample.get("prompt") or "", "answers": shown}


def _stages(report: Report) -> tuple[list[tuple[str, str, str]], str]:
    """(name, time, peak memory) rows, and the time of all."""
    rows, total = [], 0.0
    for name, block in block_at(report, "stages").items():
        seconds, memory = mean_of(block.get("seconds")), mean_of(block.get("peak_memory_mb"))
        total += seconds or 0
        if seconds is not None or memory is not None:
            rows.append((label_of(name), duration_text(seconds), "–" if memory is None else f"{memory:,.0f} MB"))
    return rows, duration_text(total)


def _rerun(report: Report) -> dict[str, Any]:
    commit = report.get("git_commit")
    facts = {"seed": report.get("seed"), "git commit": commit}
    commands = [f"git checkout {commit}"] if commit else []
    return {
        "facts": {name: str(value) for name, value in facts.items() if value not in (None, "", {})},
        "commands": commands + list(report.get("commands") or COMMANDS),
    }
