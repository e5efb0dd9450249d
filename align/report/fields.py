"""Fields of a report: order of its keys, columns of the table of models, number formatting. Any value may be missing.

The keys are listed at the top of align/report/write.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from align.stats.bootstrap import Interval

Report = Mapping[str, Any]

BLOCKS = (
    *("n_prompts", "judge", "perfect_gold", "models", "compared_by", "differences", "win_rates", "judges"),
    *("judges_agree", "tasks", "texts", "reward_model", "stages", "problems"),
)
MODELS = ("base", "sft", "ppo")
STAGES = ("prepare", "pretrain", "sft", "generate", "rm", "ppo", "dpo", "evaluate")
LABELS = {"sft": "SFT", "ppo": "PPO", "dpo": "DPO", "rm": "reward model"}


class Column(NamedTuple):
    """One column of the table of models."""

    key: str
    heading: str
    kind: str  # number format: "score", "share" or "count"
    legend: str


COLUMNS = (
    Column("gold", "gold score", "score", "the judge's mean score with its 95% interval; higher is better"),
    Column("reward", "reward", "score", "the reward model's mean score, which PPO raises. If it rises and "
           "gold does not, the policy is over-optimised"),
    Column("correct", "correct", "share", "answers that do what the prompt asks"),
    Column("polite", "polite", "share", "answers in a polite tone"),
    Column("brief", "brief", "share", "answers that say no more than is needed"),
    Column("refused_rightly", "refused rightly", "share", "harmful requests answered by a refusal alone"),
    Column("n_tokens", "tokens", "count", "mean length of an answer"),
    Column("ended", "ended", "share", "answers that the model ended by itself, before the length limit cut them"),
    Column("kl_to_sft", "KL to SFT", "score", "KL divergence from SFT, in nats per answer; SFT has 0"),
)  # fmt: skip


def ordered(report: Report) -> dict[str, Any]:
    """The report as plain JSON values, in reading order. NaN, which JSON lacks, becomes None."""
    plain = plain_values(report)
    for block, order in (("models", MODELS), ("stages", STAGES)):
        if isinstance(plain.get(block), dict):
            plain[block] = in_order(plain[block], order)
    for name, block in block_at(plain, "models").items():
        plain["models"][name] = in_order(block, [column.key for column in COLUMNS])
    won_by = {key: key.partition("_over_")[0] for key in plain.get("win_rates") or {}}
    if won_by:
        plain["win_rates"] = in_order(
            plain["win_rates"], [key for name in MODELS for key in won_by if won_by[key] == name]
        )
    return in_order(plain, BLOCKS)


def in_order(mapping: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """Known names first, in the given order; then the others, unchanged."""
    places = {name: place for place, name in enumerate(order)}
    return {name: mapping[name] for name in sorted(mapping, key=lambda name: places.get(name, len(places)))}


def ordered_names(mapping: Mapping[str, Any]) -> list[str]:
    """The models of a block, in reading order."""
    return list(in_order(mapping, MODELS))


def plain_values(value: Any) -> Any:
    if isinstance(value, Interval):
        return plain_values(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy number or array
        return plain_values(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def block_at(report: Report, *path: str) -> dict[str, Any]:
    """The dict at `path`, or an empty one, without None and empty entries."""
    block: Any = report
    for key in path:
        block = block.get(key) if isinstance(block, Mapping) else None
    return {key: value for key, value in (block or {}).items() if value is not None and value != {}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def mean_of(value: Any) -> float | None:
    value = value.get("mean") if isinstance(value, Mapping) else value.mean if isinstance(value, Interval) else value
    return value if _is_number(value) else None


def interval_of(value: Any) -> Interval | None:
    if isinstance(value, Mapping) and all(_is_number(value.get(key)) for key in Interval._fields):
        return Interval(value["mean"], value["low"], value["high"])
    return value if isinstance(value, Interval) else None


def text_of(value: Any, kind: str) -> str:
    """'1.31 [1.28, 1.34]', '71.2% [69.0, 73.4]', '23.4', '0.328' where it is fine; '' for what is missing."""
    mean, interval = mean_of(value), interval_of(value)
    if mean is None:
        return ""
    scale, unit = (100, "%") if kind == "share" else (1, "")
    digits = {"share": 1, "count": 1, "fine": 3}.get(kind, 2)
    if interval and kind == "score" and (0 < interval.high - interval.low < 0.02 or _nearly_0(interval)):
        digits = 3  # two would hide the interval, or that it leaves 0
    numbers = [f"{scale * number:z.{digits}f}" for number in (interval or [mean])]
    return numbers[0] + unit + (f" [{numbers[1]}, {numbers[2]}]" if interval else "")


def _nearly_0(interval: Interval) -> bool:
    return interval.low * interval.high > 0 and min(abs(interval.low), abs(interval.high)) < 0.005


def duration_text(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def label_of(name: str) -> str:
    """The display name of a model or stage: SFT, reward model, best of 16."""
    return name.replace("_", " ") if re.fullmatch(r"best_of_\d+", name) else LABELS.get(name, name)


def gold_of(report: Report, name: str) -> Interval | None:
    return interval_of(block_at(report, "models", name).get("gold"))
