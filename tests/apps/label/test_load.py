"""The load benchmark in small: what must hold, however fast the machine is."""

from __future__ import annotations

from pathlib import Path

import pytest
from label_load import Load, measure


@pytest.mark.slow
def test_people_who_work_at_once_lose_nothing(url: str, tmp_path: Path) -> None:
    """More people than there are tasks for, in two processes, so that they meet at the end of the queue."""
    load = Load(annotators=8, seconds=5, pace_s=0.4, tasks=12, overlap=3, workers=2)
    kinds = {"claim", "submit", "draft", "mine", "dashboard"}
    result = measure(tmp_path, load, url, lambda notes: len(notes.saved) > 40 and kinds <= set(notes.times))
    assert result.reckoning.problems == []
    assert not result.notes.failures
    assert not result.notes.refusals
    assert result.reckoning.n_rankings > 20
    assert result.reckoning.n_extra == 0
    assert len(result.notes.times["login"]) == 9
