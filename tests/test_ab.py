"""Two templates on the same questions: it stops when it may, and says what it found."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from helpers import nested
from tiny import WORDS, write_rows

from align import ab
from align.config import build
from align.errors import UserError
from align.generation.text_model import Completion


class Asked:
    """Stands for a model that is right with some probability, depending on how it is asked; and counts."""

    tokenizer, plain, max_tokens = None, True, 4096

    def __init__(self, right_a: float, right_b: float, leaves_out: str = "nothing") -> None:
        self.right, self.leaves_out, self.n = {"A": right_a, "B": right_b}, leaves_out, 0

    def answer(self, asked: list[str], how: Any, seed: int, stop: str | None) -> list[Completion | None]:
        self.n += len(asked)
        return [None if one.endswith(f"{self.leaves_out} A:") else self._reply(one) for one in asked]

    def _reply(self, asked: str) -> Completion:
        side = asked[-2]
        is_right = random.Random(asked).random() < self.right[side]
        return Completion("yes" if is_right else "no", [], [], True)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    for side in "AB":
        (tmp_path / f"{side}.yaml").write_text(f'example: "{{question}} {side}: {{answer}}"\n')
    rows = [{"question": f"is it {i}", "answer": "yes"} for i in range(400)]
    return {
        "model.path": "nowhere/at-all",
        "asked": "plain",
        "task.kind": "generate",
        "task.path": write_rows(tmp_path / "rows.jsonl", rows),
        "task.template": str(tmp_path / "A.yaml"),
        "against": str(tmp_path / "B.yaml"),
        "batch": 20,
        "output": str(tmp_path / "ab"),
    }


def recipe_of(keys: dict[str, Any], **changes: Any) -> ab.Recipe:
    return build(ab.Recipe, nested(keys | {key.replace("__", "."): value for key, value in changes.items()}), "ab.yaml")


def report_of(keys: dict[str, Any], text_model: Asked, **changes: Any) -> dict[str, Any]:
    recipe = recipe_of(keys, **changes)
    return ab.compare_templates(recipe, ab.read_sides(recipe), text_model)


def test_a_clear_difference_stops_it_early(keys, capsys):
    text_model = Asked(0.8, 0.4)
    report = report_of(keys, text_model)
    assert report["decision"] == "a"
    assert report["n_asked"] == report["n_compared"] < 100
    assert text_model.n == 2 * report["n_asked"]
    assert report["verdict"].startswith(f"A is better than B: of {report['n_asked']} questions only A is right on")
    assert report["a"]["right"] > report["b"]["right"] + 0.2
    assert [one["n"] for one in report["looks"]] == list(range(20, report["n_asked"] + 1, 20))
    assert [one["decision"] for one in report["looks"]][:-1] == ["undecided"] * (len(report["looks"]) - 1)
    last = report["looks"][-1]
    assert last["bayes_factor"] >= 20
    assert 0.5 < last["share"]["low"] < last["share"]["mean"] <= last["share"]["high"]
    assert f"20 questions: only A right on {report['looks'][0]['n_only_a']}" in capsys.readouterr().out


def test_which_is_better_does_not_depend_on_which_comes_first(keys):
    report = report_of(keys, Asked(0.4, 0.9))
    assert report["decision"] == "b"
    assert report["verdict"].startswith("B is better than A")


def test_no_difference_asks_everything_and_says_so(keys):
    report = report_of(keys, Asked(0.6, 0.6))
    assert (report["decision"], report["n_asked"]) == ("undecided", 400)
    assert report["verdict"].startswith("undecided between A and B: of 400 questions")


def test_the_same_seed_asks_in_the_same_order(keys):
    first, again = (ab.read_sides(recipe_of(keys)).a.questions for _ in range(2))
    other = ab.read_sides(recipe_of(keys, seed=2)).a.questions
    assert first == again != other
    assert sorted(first) == sorted(other)
    sides = ab.read_sides(recipe_of(keys, task__shots=[2], task__limit=50))
    assert sides.a.questions == sides.b.questions
    assert sides.a.examples == sides.b.examples
    assert sides.a.template != sides.b.template


def test_what_one_template_cannot_ask_is_no_comparison(keys):
    report = report_of(keys, Asked(0.6, 0.6, leaves_out="9"))
    assert (report["n_asked"], report["n_compared"]) == (400, 360)
    assert "does not fit" in report["left_out"][0]
    nothing = report_of(keys, Asked(0.6, 0.6, leaves_out=""))
    assert (nothing["n_compared"], nothing["a"]["right"], nothing["decision"]) == (0, None, "undecided")


def test_the_command_asks_a_real_model(keys, world, tmp_path, monkeypatch, capsys):
    chance = random.Random(1)
    offered = [[*chance.sample(WORDS, 3)] for _ in range(30)]
    rows = [{"question": "the", "choices": words, "answer": 0} for words in offered]
    path = write_rows(tmp_path / "choices.jsonl", rows)
    given = keys | {"model.path": world.base, "task.kind": "choice", "task.path": path, "batch": 10}
    words = [f"{key}={value}" for key, value in given.items()]
    recipe = tmp_path / "ab.yaml"
    recipe.write_text("")
    monkeypatch.setattr("sys.argv", ["ab", str(recipe), *words, "--dry-run"])
    ab.main()
    assert "questions: 30" in capsys.readouterr().out
    assert not Path(keys["output"]).exists()
    monkeypatch.setattr("sys.argv", ["ab", str(recipe), *words])
    ab.main()
    report = json.loads((Path(keys["output"]) / "ab.json").read_text())
    assert report["verdict"] in capsys.readouterr().out
    assert report["n_compared"] == report["n_asked"]
    monkeypatch.setattr("align.generation.text_model.TextModel", None)  # a second time no model is loaded
    ab.main()
    assert json.loads((Path(keys["output"]) / "ab.json").read_text()) == report


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task__kind": "perplexity", "task__template": None}, "perplexity is not right or wrong"),
        ({"task__metrics": ["f1"]}, "f1 is not right or wrong"),
        ({"task__shots": [0, 1], "task__limit": 5}, r"task\.shots = \[0, 1\]: give one number"),
        ({"against": "same.yaml", "task__template": "same.yaml"}, "is also task.template; give another"),
        ({"alpha": 1.0}, "alpha = 1.0"),
    ],
)
def test_what_cannot_work_is_told(keys, changes, told):
    with pytest.raises(UserError, match=told):
        recipe_of(keys, **changes)
