"""Run one task on all models: the report's block `tasks.<name>`, and the change from tuning (alignment tax).

tasks.<name>
    kind, metric, n            see align.tasks.results
    models.<model>.rounds      its scores, a round per number of examples
    models.<model>.change      of a tuned model: [{shots, n, mean, low, high, p}], its score minus that of the model it
                               came from, paired by question
    models.<model>.came_from   the model it came from
    models.<model>.calibration choices: {every, top} of align.stats.calibration, of the round with most examples
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from align.errors import UserError
from align.evals.problems import Problem
from align.stats.calibration import calibration
from align.tasks.results import Result, Round, compare
from align.tasks.task import Prepared, Task, run_task


def task_block(
    name: str,
    task: Task,
    prepared: Prepared,
    text_models: Mapping[str, Any],
    came_from: Mapping[str, str],
    seed: int,
    problems: list[Problem],
) -> dict[str, Any]:
    """The block of one task. A model that fails becomes a problem; the others continue.

    Args:
        name: the task's name in the recipe.
        text_models: by name, each a `TextModel` or an `EvalModel`.
        came_from: the model that each was tuned from, if any.
        problems: failures are appended.
    """
    results: dict[str, Result] = {}
    for model, text_model in text_models.items():
        where = f"tasks.{name}.{model}"
        try:
            results[model] = run_task(task, text_model, seed, prepared)
        except UserError as error:
            problems.append(Problem(where, str(error)))
            continue
        problems += results[model].problems(where)
        print(f"{model} did {name}", flush=True)
    models: dict[str, Any] = {}
    for model, result in results.items():
        models[model] = {"rounds": result.block["rounds"]} | _calibrated(result)
        other = came_from.get(model)
        if other in results:
            models[model] |= {"came_from": other, "change": compare(result, results[other])}
    first = next(iter(results.values()), None)
    return {} if first is None else {key: first.block[key] for key in ("kind", "metric", "n")} | {"models": models}


def _calibrated(result: Result) -> dict[str, Any]:
    """Calibration on a choice task, else {}."""
    last: Round = max(result.rounds, key=lambda one: one.shots)
    known = [one for one in last.outcomes if one.probabilities and one.right is not None]
    if not known:
        return {}
    probabilities, answers = [one.probabilities for one in known], [int(one.right or 0) for one in known]
    return {
        "calibration": {"shots": last.shots}
        | {which: calibration(probabilities, answers, which) for which in ("every", "top")}  # type: ignore[arg-type]
    }
