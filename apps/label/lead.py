"""The figures of the lead's page, cached.

They are computed on request, in the server in a separate process (`background.py`), and cached for at least ten seconds
and ten times their computing time, so that a page left open costs little.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from apps.label.figures import figures
from apps.label.summary import Summary, summarise
from apps.store import reviews
from apps.store.engine import Store
from apps.store.progress import Progress, progress
from apps.store.project import Project
from apps.votes.rows import labels

KEPT_S = 10.0  # shortest time in the cache
KEPT_TIMES = 10.0  # cached for this many times the computing time


class View(NamedTuple):
    """The figures that the page shows."""

    progress: Progress
    summary: Summary
    figures: dict[str, str]  # SVG
    at: float  # the store's clock
    took_s: float


Computed = tuple[Progress, Summary, dict[str, str]]
Compute = Callable[[Store, int, float], Computed]


def computed(store: Store, project_id: int, gold_pass: float) -> Computed:
    """Computes everything that takes long."""
    with store.read() as session:
        decided = reviews.decided(session, project_id)
        rows = list(labels(session, project_id))
    summary = summarise(rows, gold_pass, decided)
    return progress(store, project_id), summary, figures(summary)


class Lead:
    """A project's figures, cached."""

    def __init__(
        self, project: Project, now: Callable[[], float] = time.monotonic, compute: Compute = computed
    ) -> None:
        self.project, self.store = project, project.store
        self._now, self._compute = now, compute
        self._lock = threading.Lock()
        self._view: View | None = None
        self._until = 0.0

    def view(self) -> View:
        """All figures; calls during the computation wait for it. Disputes decided since then are left out."""
        with self._lock:
            if self._view is None or self._now() >= self._until:
                began, at = self._now(), self.store.clock()
                found = self._compute(self.store, self.project.id, self.project.recipe.gold.pass_share)
                took = self._now() - began
                self._view = View(*found, at, took)
                self._until = self._now() + max(KEPT_S, KEPT_TIMES * took)
            view = self._view
        with self.store.read() as session:
            decided = reviews.decided(session, self.project.id)
        left = tuple(one for one in view.summary.disputes if one.task not in decided)
        return view._replace(summary=view.summary._replace(disputes=left))
