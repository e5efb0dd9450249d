"""The report's HTML page: the values that `report.html.j2` shows, with numbers formatted as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.plots import COLOURS, Curves, Point, colours, figures
from align.report.fields import (
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
    plain_values,
    text_of,
)
from align.report.tables import agreement_table, change_panels, task_tables, texts_table, verdict_tables
from align.report.verdict import claims_of, reward_model_reading, verdict
from align.stats.bootstrap import Interval

COMMANDS = ("align evaluate evaluate.yaml",)
BOUND = "; for best of n an upper bound, log n − (n−1)/n"

Shown = tuple[str, str, Sequence[Mapping[str, Any]]]  # heading, note, and rows of answers to some prompts


class Meter(NamedTuple):
    """A number with its interval, drawn on a bar."""

    label: str
    text: str
    colour: str
    interval: Interval


def page(report: Report, curves: Curves, groups: Sequence[Shown]) -> str:
    """The HTML page. It loads no resources and runs no scripts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # model output is untrusted
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    columns, rows = model_table(report)
    stages, total = stage_rows(report)
    own = _own_colours(report)
    return environment.get_template("report.html.j2").render(
        verdict=verdict(report),
        claims=claims_of(report),
        facts=_facts(report),
        golds=_golds(report),
        gold_scale=_gold_scale(report),
        columns=columns,
        rows=[(label_of(name), own[name], cells) for name, cells in rows],
        win_rates=win_rate_meters(report),
        reward_model=agreement_meters(report),
        reading=reward_model_reading(report),
        verdict_tables=verdict_tables(report),
        agreement=agreement_table(report),
        changes=[table for table in (*task_tables(report), texts_table(report)) if table],
        change_panels=[(Markup(panel.svg), panel.note) for panel in change_panels(report)],
        figures=_figures(report, curves),
        groups=[(heading, note, [_sample(plain_values(row), own) for row in rows]) for heading, note, rows in groups],
        problems=report.get("problems") or [],
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
        "a difference counts if its 95% interval over prompts excludes 0": report.get("differences"),
    }
    return [fact for fact, known in facts.items() if known]


def model_table(report: Report) -> tuple[list[Column], list[tuple[str, list[str]]]]:
    """The columns with any number, and rows of (model, cells)."""
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
    """Range of the bars of gold scores, and their mark: the score of a perfect answer."""
    perfect = mean_of(report.get("perfect_gold"))
    ends = [0.0, *(end for meter in _golds(report) for end in meter.interval), *([] if perfect is None else [perfect])]
    return min(ends), max(ends), perfect


def win_rate_meters(report: Report) -> list[Meter]:
    meters, own = [], _own_colours(report)
    for key, rate in block_at(report, "win_rates").items():
        a, _, b = key.partition("_over_")
        if interval := interval_of(rate):
            colour = own.get(a, COLOURS["base"])
            meters.append(Meter(f"{label_of(a)} over {label_of(b)}", text_of(rate, "share"), colour, interval))
    return meters


def agreement_meters(report: Report) -> list[Meter]:
    """Agreement of reward model, annotators and gold judge. A number without interval is shown as a point."""
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
    """(svg, note) under each heading. Only our own SVG is not escaped."""
    from markupsafe import Markup

    drawn = figures(curves, kl_points(report))
    return {heading: [(Markup(panel.svg), panel.note) for panel in panels] for heading, panels in drawn.items()}


def kl_points(report: Report) -> dict[str, Point]:
    """Each model's KL and gold score. SFT has KL 0, since it is the reference."""
    points = {}
    for name, block in block_at(report, "models").items():
        gold = gold_of(report, name) or (mean_of(block.get("gold")), None, None)
        points[label_of(name)] = (0.0 if name == "sft" else mean_of(block.get("kl_to_sft")), *gold)
    return points


def _sample(sample: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, Any]:
    answers = in_order(sample.get("answers") or {}, MODELS)
    golds = {name: gold for name, answer in answers.items() if (gold := mean_of(answer.get("gold"))) is not None}
    best = max(golds.values()) if len(set(golds.values())) > 1 else math.inf  # no best if all are equal
    own = colours(dict.fromkeys([*own, *answers]))
    shown = [
        {
            "model": label_of(name),
            "colour": own[name],
            "text": answer.get("text"),
            "gold": text_of(golds.get(name), "score"),
            "reward": text_of(answer.get("reward"), "score"),
            "best": golds.get(name, -math.inf) >= best,
        }
        for name, answer in answers.items()
    ]
    return {"prompt": sample.get("prompt") or "", "answers": shown}


def stage_rows(report: Report) -> tuple[list[tuple[str, str, str]], str]:
    """Rows of (name, time, peak memory), and the total time."""
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
        "recipe": report.get("recipe"),
        "facts": {name: str(value) for name, value in facts.items() if value not in (None, "", {})},
        "commands": commands + list(report.get("commands") or COMMANDS),
    }
