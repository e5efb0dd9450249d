"""Tables and figures as a notebook shows them, from a report with known numbers."""

import json
from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.report import notebook
from align.report.tables import Table

INTERVAL = {"mean": 1.0, "low": 0.9, "high": 1.1}
REPORT: dict[str, Any] = {
    "models": {"sft": {"gold": {"mean": 0.5, "low": 0.4, "high": 0.6}, "correct": 0.25}, "ppo": {"gold": INTERVAL}},
    "win_rates": {"ppo_over_sft": {"mean": 0.8, "low": 0.7, "high": 0.9}},
}


def test_the_table_of_models_has_what_the_report_has() -> None:
    table = notebook.models(REPORT)
    assert table.to_dict() == {
        "gold score": {"SFT": "0.50 [0.40, 0.60]", "PPO": "1.00 [0.90, 1.10]"},
        "correct": {"SFT": "25.0%", "PPO": "–"},
    }


def test_a_table_is_shown_with_its_heading_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(things))
    notebook.show([Table("web: 9 documents", ["SFT", "PPO"], [("bits per byte", ["1.0", "1.2"])], "Lower is better.")])
    heading, table, note = shown
    assert heading.data == "**web: 9 documents**"
    assert table.to_dict() == {"SFT": {"bits per byte": "1.0"}, "PPO": {"bits per byte": "1.2"}}
    assert note.data == "Lower is better."


def test_figures_are_shown_in_a_size_of_their_own_with_their_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda thing, raw=False: shown.append(thing))
    notebook.show(notebook.comparison_figures(REPORT))
    assert len(shown) == 4  # two figures and two notes
    assert shown[0]["text/plain"].startswith("Gold score, gold score: SFT 0.5 [0.4, 0.6]; PPO 1 [0.9, 1.1]")
    assert 'width="508" height="' in shown[0]["image/svg+xml"]  # 4.7 inches of 72 units, magnified
    assert "PPO over SFT 0.8 [0.7, 0.9]" in shown[2]["text/plain"]
    assert shown[1].data.startswith("The judge's mean score")


def test_a_stage_has_its_figures(tmp_path: Path) -> None:
    rows = [{"step": step, "loss/train": 1 / step, "loss/validation": 1 / step} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (panel,) = notebook.figures("sft", str(tmp_path))
    assert "train goes from 1 to 0.333" in panel.svg
    with pytest.raises(UserError, match=r"metrics\.jsonl does not exist; run the stage"):
        notebook.figures("sft", str(tmp_path / "nothing"))


def test_answers_stand_in_one_row_for_each_prompt(tmp_path: Path) -> None:
    said = {"sft": {"text": "a\u2028b", "gold": 0.5}, "ppo": {"text": None, "gold": None, "reward": 2.0}}
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "p", "answers": said}, ensure_ascii=False) + "\n")
    (row,) = notebook.answers(str(tmp_path / "rows.jsonl")).to_dict("records")
    assert row == {"prompt": "p", "sft": "a\u2028b", "sft gold": 0.5, "ppo": None, "ppo gold": None, "ppo reward": 2.0}
