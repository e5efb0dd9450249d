"""The report's tables: judges' win rates and rankings, agreement of judges, tasks, text statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from align.plots import Panel, lengths_panel
from align.report.fields import Report, block_at, interval_of, label_of, mean_of, ordered_names, text_of
from align.report.verdict import came_from

DASH = "–"
MOST_PAIRS = 6  # most pairs in a table; if more, only each model with the one it came from


class Table(NamedTuple):
    """A table of texts."""

    heading: str
    columns: Sequence[str]  # without the column of row names
    rows: Sequence[tuple[str, Sequence[str]]]
    note: str = ""


class Property(NamedTuple):
    """A statistic of a model's answers."""

    key: str
    label: str
    kind: str  # format, for `text_of`


TEXTS = (
    Property("words", "words in an answer", "count"),
    Property("empty", "empty answers", "share"),
    Property("repeating", "answers that repeat four words in a row", "share"),
    Property("refusal_phrases", "answers with a refusal phrase", "share"),
    Property("distinct_2", "distinct pairs of words (distinct-2)", "share"),
    Property("self_bleu", "similarity of the answers (self-BLEU)", "score"),
)
FLAGS = (
    Property("complied", "harmful requests complied with", "share"),
    Property("over_refused", "harmless requests refused", "share"),
)
KINDS = {
    "function": "a function",
    "reward_model": "a reward model",
    "votes": "human votes",
    "llm": "a language model, in both orders",
}
METRICS = {
    "per_token": ("right, by likelihood per token", "share"),
    "raw": ("right, by likelihood", "share"),
    "per_byte": ("right, by likelihood per byte", "share"),
    "exact": ("exact match", "share"),
    "exact_single": ("exact match of one sample", "share"),
    "f1": ("F1", "score"),
    "rouge_l": ("ROUGE-L", "score"),
}
PERPLEXITY = {"per_token": ("perplexity per token", "score"), "bits_per_byte": ("bits per byte", "fine")}


def verdict_tables(report: Report) -> list[Table]:
    """For each judge: win rates of pairs of models, and the ranking of all models."""
    tables, origins = [], came_from(block_at(report, "models"))
    for name, judge in block_at(report, "judges").items():
        pairs = {key: pair for key, pair in (judge.get("pairs") or {}).items() if pair}
        few = len(pairs) <= MOST_PAIRS
        shown = pairs if few else [f"{later}_over_{earlier}" for later, earlier in origins.items()]
        rows = [(_over(key), _shares(pairs[key])) for key in shown if key in pairs]
        if rows:
            columns = ("wins", "ties", "losses", "win rate", "at equal lengths", "p", "prompts")
            note = _note(judge) + ("" if few else f" {len(pairs) - len(rows)} more pairs are in report.json.")
            tables.append(Table(f"{name}: {KINDS.get(judge.get('kind'), '')}", columns, rows, note.strip()))
    return tables


def _over(key: str) -> str:
    first, _, second = key.partition("_over_")
    return f"{label_of(first)} over {label_of(second)}"


def _shares(pair: Mapping[str, Any]) -> list[str]:
    failed = f" of {pair['n'] + pair['n_failed']:,}" if pair.get("n_failed") else ""
    shares = [text_of(mean_of(pair.get(name)), "share") or DASH for name in ("win", "tie", "loss")]
    rates = [text_of(pair.get(name), "share") or DASH for name in ("rate", "controlled")]
    p = mean_of(pair.get("p"))
    return [*shares, *rates, DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}", f"{pair['n']:,}{failed}"]


def _note(judge: Mapping[str, Any]) -> str:
    standings = (judge.get("ranking") or {}).get("standings") or []
    notes = []
    if len(standings) > 2:
        ranked = ", ".join(f"{label_of(one['model'])} {text_of(one['score'], 'score')}" for one in standings)
        notes.append(f"All on one scale (Bradley-Terry, in logits): {ranked}.")
    bias = judge.get("order_bias") or {}
    if bias.get("orders_disagree"):
        notes.append(
            f"Its verdict changed with the order of the answers on "
            f"{text_of(bias['orders_disagree'], 'share')} of the prompts; these count as ties."
        )
    return " ".join(notes)


def agreement_table(report: Report) -> Table | None:
    """Agreement of every two judges."""
    rows = [
        (" with ".join(one["judges"]), [text_of(one["same"], "share") or DASH, text_of(one["kappa"], "score") or DASH])
        for one in report.get("judges_agree") or []
    ]
    note = "Share of prompts with the same verdict (win, tie or loss), and Cohen's κ: 0 is chance, 1 is perfect."
    return Table("Do the judges agree?", ("same", "κ"), rows, note) if rows else None


def task_tables(report: Report) -> list[Table]:
    """For each task: a row per metric and number of examples, a column per model, and the change from tuning."""
    tables = []
    for name, task in block_at(report, "tasks").items():
        names = ordered_names(task["models"])
        rows = list(_task_rows(task, names))
        if rows:
            heading = f"{name}: {task['n']:,} {'documents' if task['kind'] == 'perplexity' else 'questions'}"
            tables.append(Table(heading, [label_of(one) for one in names], rows, _task_note(task)))
    return tables


def _task_rows(task: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    known = PERPLEXITY if task["kind"] == "perplexity" else METRICS
    n_rounds = max(len(task["models"][name]["rounds"]) for name in names)
    shown = [task["metric"], *(name for name in ("exact_single",) if task["kind"] == "generate")]
    for place in range(n_rounds):
        rounds = {name: task["models"][name]["rounds"][place] for name in names}
        shots = next(iter(rounds.values()))["shots"]
        asked = "" if task["kind"] == "perplexity" else f", {shots} example{'' if shots == 1 else 's'}"
        for metric, (label, kind) in known.items():
            cells = [text_of(one["scores"].get(metric), kind) for one in rounds.values()]
            if any(cells) and (task["kind"] == "perplexity" or metric in shown):
                yield label + asked, [cell or DASH for cell in cells]
        changes = [_change(task["models"][name], place, task["kind"]) for name in names]
        if any(changes):
            yield "change from the model it came from", [change or DASH for change in changes]
        disagreements = [(one.get("contradictions") or {}).get("disagreement") for one in rounds.values()]
        if any(disagreements):
            yield "samples that contradict each other", [text_of(one, "share") or DASH for one in disagreements]
    for which, label in (("every", "ECE, over all choices"), ("top", "ECE, of the likeliest choice")):
        found = [task["models"][name].get("calibration", {}).get(which, {}).get("ece") for name in names]
        if any(found):
            yield label, [text_of(one, "fine") or DASH for one in found]


def _change(model: Mapping[str, Any], place: int, kind: str) -> str:
    change = (model.get("change") or [])[place : place + 1]
    found = interval_of(change[0]) if change else None
    if found is None:
        return ""
    better = (found.low > 0) - (found.high < 0)
    sign = better if kind != "perplexity" else -better
    return (
        f"{'▲ ' if sign > 0 else '▼ ' if sign < 0 else ''}{text_of(found, 'fine' if kind == 'perplexity' else 'share')}"
    )


def _task_note(task: Mapping[str, Any]) -> str:
    if task["kind"] == "perplexity":
        return "Lower is better. The change is in bits per byte of each document; ▼ marks a significantly worse model."
    first = next(iter(task["models"].values()))["rounds"][0]
    guess = f" Guessing gets {text_of(first['chance'], 'share')}." if first.get("chance") is not None else ""
    return f"▲ and ▼ mark changes, paired by question, with an interval that excludes 0.{guess}"


def texts_table(report: Report) -> Table | None:
    """Statistics of the answers' texts."""
    texts, models = block_at(report, "texts"), block_at(report, "models")
    names = ordered_names(texts)
    rows = []
    for row, source in (*((one, texts) for one in TEXTS), *((one, models) for one in FLAGS)):
        values = [(source.get(name) or {}).get(row.key) for name in names]
        values = [value["mean"] if row.key == "words" and isinstance(value, Mapping) else value for value in values]
        if any(value is not None for value in values):
            rows.append((row.label, [text_of(value, row.kind) or DASH for value in values]))
    note = "distinct-2 and self-BLEU depend on the number of answers, which is the same for all models here."
    return Table("The answers", [label_of(name) for name in names], rows, note) if rows else None


def change_panels(report: Report) -> list[Panel]:
    """Reliability diagrams of tasks with choices, and lengths of answers."""
    from align.stats.calibration import reliability_panel

    panels = []
    for name, task in block_at(report, "tasks").items():
        for which, told in (("every", "all choices"), ("top", "the likeliest choice")):
            blocks = {
                label_of(model): task["models"][model]["calibration"][which]
                for model in ordered_names(task["models"])
                if task["models"][model].get("calibration")
            }
            if blocks:
                panels.append(reliability_panel(blocks, f"Reliability on {name}: {told}"))
    texts = block_at(report, "texts")
    words = {label_of(name): texts[name]["words"] for name in ordered_names(texts) if texts[name].get("words")}
    return [*panels, *([lengths_panel(words)] if words else [])]
