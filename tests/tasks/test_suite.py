"""One task to several models: what changed from the model that each came from, and who could not be asked."""

from typing import Any

from align.errors import UserError
from align.evals.problems import Problem
from align.tasks import suite
from align.tasks.results import Outcome, Result, Round


def result(*right: float) -> Result:
    outcomes = [Outcome(f"a:{n}", {"raw": one}) for n, one in enumerate(right)]
    return Result("choice", "raw", [Round(0, outcomes, {"shots": 0, "n": len(right), "scores": {}})])


RESULTS = {"base": result(1, 1, 1, 0), "sft": result(1, 0, 0, 0)}


def test_a_model_that_got_worse_has_a_change_below_0(monkeypatch):
    def run(task: Any, text_model: str, seed: int, prepared: Any) -> Result:
        if text_model not in RESULTS:
            raise UserError("it does not load")
        return RESULTS[text_model]

    monkeypatch.setattr(suite, "run_task", run)
    problems: list[Problem] = []
    text_models = {name: name for name in ("base", "sft", "ppo")}
    block = suite.task_block("facts", None, None, text_models, {"sft": "base", "ppo": "sft"}, 1, problems)
    assert block["n"] == 4
    assert list(block["models"]) == ["base", "sft"]
    assert "change" not in block["models"]["base"]
    assert block["models"]["sft"]["came_from"] == "base"
    assert block["models"]["sft"]["change"][0]["mean"] == -0.5
    assert problems == [Problem("tasks.facts.ppo", "it does not load")]
