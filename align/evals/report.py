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
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from align.evals.plots import COLOURS, Curves, Point, colours, figures
from align.evals.stats import Interval

if TYPE_CHECKING:
    from rich.console import Console

Report = Mapping[str, Any]

BLOCKS = ("n_prompts", "judge", "perfect_gold", "models", "win_rates", "reward_model", "stages")
MODELS = ("base", "sft", "ppo")
STAGES = ("prepare", "pretrain", "sft", "generate", "rm", "ppo", "dpo", "evaluate")
LABELS = {"sft": "SFT", "ppo": "PPO", "dpo": "DPO", "rm": "reward model"}
COMMANDS = ("python -m align.pipeline recipe.yaml",)
N_SAMPLES = 10


class Column(NamedTuple):
    """One column of the table of models."""

    key: str
    heading: str
    kind: str  # "score", "share" or "count": how its numbers are written
    legend: str


COLUMNS = (
    Column("gold", "gold score", "score", "the judge's mean score with its 95% interval; higher is better"),
    Column("reward", "reward", "score", "the reward model's mean score, which PPO raises. If it rises and "
           "gold does not, the policy pleases the reward model and not the judge"),
    Column("correct", "correct", "share", "answers that do what the prompt asks"),
    Column("polite", "polite", "share", "answers in a polite tone"),
    Column("brief", "brief", "share", "answers that say no more than is needed"),
    Column("refused_rightly", "refused rightly", "share", "harmful requests answered by a refusal alone"),
    Column("n_tokens", "tokens", "count", "mean length of an answer"),
    Column("ended", "ended", "share", "answers that the model ended by itself, before the length limit cut them"),
    Column("kl_to_sft", "KL to SFT", "score", "how far the model is from SFT, in nats an answer; 0 is SFT itself"),
)  # fmt: skip
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
    from rich.table import Table
    from rich.text import Text

    report = ordered(report)
    if sentence := verdict(report):
        console.print(Text(sentence, style="bold"))
    columns, rows = _table(report)
    if rows:
        table = Table("", box=None, collapse_padding=True, pad_edge=False)
        for column in columns:
            table.add_column(column.heading, justify="right", no_wrap=column.key == "gold")
        for name, cells in rows:
            table.add_row(*(Text(cell) for cell in (_label(name), *cells)))  # Text: "[1.2, 1.4]" is no markup
        console.print(table)
    for line in _summary_lines(report):
        console.print(Text(line))


def _summary_lines(report: Report) -> Iterable[str]:
    lines = {
        "Win rates": [f"{meter.label} {meter.text}" for meter in _win_rates(report)],
        "Agreement": [f"{meter.label} {meter.text}" for meter in _reward_model(report)],
        "Stages": [f"{name} {time}" for name, time, _ in _stages(report)[0]],
    }
    return (f"{heading}: {', '.join(parts)}" for heading, parts in lines.items() if parts)


# -- what it says -----------------------------------------------------------------------------------------------------


def verdict(report: Report) -> str:
    """One sentence: is each model better than the one it came from? '' if nothing was scored.

    Two models differ if their gold intervals do not touch; without gold scores, if the win rate's interval leaves 50%.
    """
    sentence = "; and ".join(f"{claim}: {evidence}" for claim, evidence in _claims(ordered(report)))
    return sentence and sentence + "."


def reward_model_reading(report: Report) -> str:
    """How to read the reward model's accuracy: beside what its noisy labels allow."""
    block = _block(ordered(report), "reward_model")
    accuracy, agreement = _interval(block.get("accuracy")), _mean(block.get("annotator_agreement"))
    text = "The labels are annotators' choices, and annotators disagree: an accuracy of 100% is out of reach."
    if ceiling := _shown(block.get("gold_agreement"), "share"):
        text += f" Where the gold judge prefers one answer, annotators choose it {ceiling} of the time:"
        text += " that is about the ceiling."
    if accuracy and agreement is not None:
        how = (
            "better than"
            if accuracy.low > agreement
            else "worse than"
            if accuracy.high < agreement
            else "about as well as"
        )
        text += f" This reward model predicts a label {how} a second annotator would."
    return text


def _claims(report: Report) -> list[tuple[str, str]]:
    """The verdict's clauses, the last model's first: what is claimed, and the numbers that it rests on."""
    names = list(_block(report, "models"))
    claims = [claim for name, other in reversed(_pairs(names)) if (claim := _compared(report, name, other))]
    if claims and claims[0][0].startswith("between "):  # a sentence's first word; a model's name is left as it is
        claims[0] = ("B" + claims[0][0][1:], claims[0][1])
    alone = [(_label(name), f"gold score {_shown(gold, 'score')}") for name in names if (gold := _gold(report, name))]
    return claims or alone


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each model with the one it came from: SFT for whatever was tuned from it, else the one before."""
    tuned = _tuned(names)
    return [(name, "sft" if name in tuned else before) for before, name in pairwise(names)]


def _tuned(names: Sequence[str]) -> list[str]:
    """The models that came from SFT."""
    return [name for name in names if name not in ("base", "sft")] if "sft" in names else []


def compared_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """(model, other) that a report has win rates of: each with the one it came from, then the tuned ones in pairs."""
    order = list(_sorted(dict.fromkeys(names, 0), MODELS))
    tuned = _tuned(order)
    return _pairs(order) + [(later, earlier) for earlier, later in combinations(tuned, 2)]


def _compared(report: Report, name: str, other: str) -> tuple[str, str] | None:
    a, b = _gold(report, name), _gold(report, other)
    rate = _interval(_block(report, "win_rates").get(f"{name}_over_{other}"))
    side = 0 if rate is None else (rate.low > 0.5) - (rate.high < 0.5)
    wins = f"{_label(name)} wins {_shown(rate, 'share')} of the prompts"
    if a and b:
        sign = (a.low > b.high) - (a.high < b.low)
        evidence = f"gold score {_shown(a, 'score')} against {_shown(b, 'score')}"
    elif rate:
        sign, evidence = side, wins
    else:
        return None
    if sign == 0:
        # The intervals of two means ignore that the prompts were the same; the paired win rate can see more.
        evidence += f", though {wins}" if side else ""
        return f"between {_label(name)} and {_label(other)} no difference that these prompts can show", evidence
    evidence += _over_optimised(report, name, other) if sign < 0 else ""
    return f"{_label(name)} is {'better' if sign > 0 else 'worse'} than {_label(other)}", evidence


def _over_optimised(report: Report, name: str, other: str) -> str:
    now, before = (_mean(_block(report, "models", model).get("reward")) for model in (name, other))
    if now is None or before is None or now <= before:
        return ""
    return f", although its reward rose from {_shown(before, 'score')} to {_shown(now, 'score')}: it is over-optimised"


def _gold(report: Report, name: str) -> Interval | None:
    return _interval(_block(report, "models", name).get("gold"))


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
        claims=_claims(report),
        facts=_facts(report),
        golds=_golds(report),
        gold_scale=_gold_scale(report),
        columns=columns,
        rows=[(_label(name), own[name], cells) for name, cells in rows],
        win_rates=_win_rates(report),
        reward_model=_reward_model(report),
        reading=reward_model_reading(report),
        figures=_figures(report, curves),
        samples=[_sample(_plain(sample), own) for sample in samples[:N_SAMPLES]],
        stages=stages,
        total=total,
        rerun=_rerun(report),
    )


def _own_colours(report: Report) -> dict[str, str]:
    return colours(_block(report, "models"))


def _facts(report: Report) -> list[str]:
    n_prompts, perfect = _mean(report.get("n_prompts")), _shown(report.get("perfect_gold"), "score")
    facts = {
        f"{n_prompts or 0:,} prompts": n_prompts,
        f"judged by {report.get('judge')}": report.get("judge"),
        f"a perfect answer, the dotted mark, scores {perfect}": perfect,
    }
    return [fact for fact, known in facts.items() if known]


def _table(report: Report) -> tuple[list[Column], list[tuple[str, list[str]]]]:
    """The columns that some model has a number for, and (model, cells) rows."""
    rows = {}
    for name, block in _block(report, "models").items():
        texts = {column.key: _shown(block.get(column.key), column.kind) for column in COLUMNS}
        if any(texts.values()):
            is_bound = block.get("best_of") is not None and texts["kl_to_sft"]
            rows[name] = texts | ({"kl_to_sft": f"≤ {texts['kl_to_sft']}"} if is_bound else {})
    columns = [column for column in COLUMNS if any(texts[column.key] for texts in rows.values())]
    if any(texts["kl_to_sft"].startswith("≤") for texts in rows.values()):
        columns = [c._replace(legend=c.legend + BOUND) if c.key == "kl_to_sft" else c for c in columns]
    return columns, [(name, [texts[column.key] or "–" for column in columns]) for name, texts in rows.items()]


def _golds(report: Report) -> list[Meter]:
    return [
        Meter(_label(name), _shown(gold, "score"), own, gold)
        for name, own in _own_colours(report).items()
        if (gold := _gold(report, name))
    ]


def _gold_scale(report: Report) -> tuple[float, float, float | None]:
    """Where the bars of gold scores begin and end, and the mark on them: a perfect answer's score."""
    perfect = _mean(report.get("perfect_gold"))
    ends = [0.0, *(end for meter in _golds(report) for end in meter.interval), *([] if perfect is None else [perfect])]
    return min(ends), max(ends), perfect


def _win_rates(report: Report) -> list[Meter]:
    meters, own = [], _own_colours(report)
    for key, rate in _block(report, "win_rates").items():
        a, _, b = key.partition("_over_")
        if interval := _interval(rate):
            colour = own.get(a, COLOURS["base"])
            meters.append(Meter(f"{_label(a)} over {_label(b)}", _shown(rate, "share"), colour, interval))
    return meters


def _reward_model(report: Report) -> list[Meter]:
    """Who agrees with whom. A number without an interval is its own."""
    rows = (
        ("accuracy", "reward model with held-out labels", COLOURS["reward model"]),
        ("annotator_agreement", "annotator with annotator", COLOURS["base"]),
        ("gold_agreement", "annotator with gold judge", COLOURS["base"]),
        ("accuracy_vs_gold", "reward model with gold judge", COLOURS["reward model"]),
    )
    meters, block = [], _block(report, "reward_model")
    for key, label, colour in rows:
        value, mean = block.get(key), _mean(block.get(key))
        if mean is not None:
            interval = _interval(value) or Interval(mean, mean, mean)
            meters.append(Meter(label, _shown(value, "share"), colour, interval))
    return meters


def _figures(report: Report, curves: Curves) -> dict[str, list[tuple[Any, str]]]:
    """(svg, note) under each heading. Our own SVG is the one thing on the page that is not escaped."""
    from markupsafe import Markup

    drawn = figures(curves, _kl_points(report))
    return {heading: [(Markup(panel.svg), panel.note) for panel in panels] for heading, panels in drawn.items()}


def _kl_points(report: Report) -> dict[str, Point]:
    """Where each model stands in the plane of KL and gold. SFT stands at 0: the KL is measured from it."""
    points = {}
    for name, block in _block(report, "models").items():
        gold = _gold(report, name) or (_mean(block.get("gold")), None, None)
        points[_label(name)] = (0.0 if name == "sft" else _mean(block.get("kl_to_sft")), *gold)
    return points


def _sample(sample: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, Any]:
    answers = _sorted(sample.get("answers") or {}, MODELS)
    golds = {name: gold for name, answer in answers.items() if (gold := _mean(answer.get("gold"))) is not None}
    best = max(golds.values()) if len(set(golds.values())) > 1 else math.inf  # no best among equals
    own = colours(dict.fromkeys([*own, *answers]))
    shown = [
        {
            "model": _label(name),
            "colour": own[name],
            "text": answer.get("text") or "",
            "gold": _shown(golds.get(name), "score"),
            "best": golds.get(name, -math.inf) >= best,
        }
        for name, answer in answers.items()
    ]
    return {"prompt": sample.get("prompt") or "", "answers": shown}


def _stages(report: Report) -> tuple[list[tuple[str, str, str]], str]:
    """(name, time, peak memory) rows, and the time of all."""
    rows, total = [], 0.0
    for name, block in _block(report, "stages").items():
        seconds, memory = _mean(block.get("seconds")), _mean(block.get("peak_memory_mb"))
        total += seconds or 0
        if seconds is not None or memory is not None:
            rows.append((_label(name), _duration(seconds), "–" if memory is None else f"{memory:,.0f} MB"))
    return rows, _duration(total)


def _rerun(report: Report) -> dict[str, Any]:
    commit = report.get("git_commit")
    facts = {"seed": report.get("seed"), "git commit": commit}
    commands = [f"git checkout {commit}"] if commit else []
    return {
        "facts": {name: str(value) for name, value in facts.items() if value not in (None, "", {})},
        "commands": commands + list(report.get("commands") or COMMANDS),
    }


# -- numbers, and what may be missing ---------------------------------------------------------------------------------


def ordered(report: Report) -> dict[str, Any]:
    """The report as plain JSON values, in the order in which one reads it. NaN, which JSON lacks, becomes None."""
    plain = _plain(report)
    for block, order in (("models", MODELS), ("stages", STAGES)):
        if isinstance(plain.get(block), dict):
            plain[block] = _sorted(plain[block], order)
    for name, block in _block(plain, "models").items():
        plain["models"][name] = _sorted(block, [column.key for column in COLUMNS])
    won_by = {key: key.partition("_over_")[0] for key in plain.get("win_rates") or {}}
    if won_by:
        plain["win_rates"] = _sorted(
            plain["win_rates"], [key for name in MODELS for key in won_by if won_by[key] == name]
        )
    return _sorted(plain, BLOCKS)


def _sorted(mapping: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """Known names first, in their order; the others as they came."""
    places = {name: place for place, name in enumerate(order)}
    return {name: mapping[name] for name in sorted(mapping, key=lambda name: places.get(name, len(places)))}


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy number or array
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _block(report: Report, *path: str) -> dict[str, Any]:
    """The dict at `path`, or an empty one; without the entries that are None or, where a dict is due, empty."""
    block: Any = report
    for key in path:
        block = block.get(key) if isinstance(block, Mapping) else None
    return {key: value for key, value in (block or {}).items() if value is not None and value != {}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mean(value: Any) -> float | None:
    value = value.get("mean") if isinstance(value, Mapping) else value.mean if isinstance(value, Interval) else value
    return value if _is_number(value) else None


def _interval(value: Any) -> Interval | None:
    if isinstance(value, Mapping) and all(_is_number(value.get(key)) for key in Interval._fields):
        return Interval(value["mean"], value["low"], value["high"])
    return value if isinstance(value, Interval) else None


def _shown(value: Any, kind: str) -> str:
    """'1.31 [1.28, 1.34]', '71.2% [69.0, 73.4]', '23.4'; '' for what is missing."""
    mean, interval = _mean(value), _interval(value)
    if mean is None:
        return ""
    scale, digits, unit = (100, 1, "%") if kind == "share" else (1, 1 if kind == "count" else 2, "")
    if interval and kind == "score" and 0 < interval.high - interval.low < 0.02:
        digits = 3  # two would hide the interval
    numbers = [f"{scale * number:z.{digits}f}" for number in (interval or [mean])]
    return numbers[0] + unit + (f" [{numbers[1]}, {numbers[2]}]" if interval else "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _label(name: str) -> str:
    """What a reader sees of a model's or stage's name: SFT, reward model, best of 16."""
    return name.replace("_", " ") if re.fullmatch(r"best_of_\d+", name) else LABELS.get(name, name)
