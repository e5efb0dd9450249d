"""What the lead's page may ask for. Every function is told who asks, and looks up first what they may do.

It knows nothing of the page. The figures are computed when somebody asks for them, by the server in a process of their
own (`apart.py`), and kept for a while: for ten seconds at least, and for ten times as long as they took, so that a page
which is left open costs little.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from apps.label.figures import figures
from apps.label.summary import Summary, summarise
from apps.store import people, reviews
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.people import LEADS, Invited, Somebody, Waiting
from apps.store.progress import Progress, progress
from apps.store.project import Project
from apps.store.reading import Judged, judged_task
from apps.votes.rows import labels

KEPT_S = 10.0  # at least
KEPT_TIMES = 10.0  # the time that it took


class View(NamedTuple):
    """What the page shows."""

    progress: Progress
    summary: Summary
    figures: dict[str, str]  # SVG
    at: float  # the store's clock
    took_s: float


class Page(NamedTuple):
    """Everything that the page shows, and to whom."""

    asks: Somebody
    view: View
    people: list[Somebody]
    invited: list[Waiting]


class NotAllowed(Refused):
    """Somebody asks who may not."""


Computed = tuple[Progress, Summary, dict[str, str]]
Compute = Callable[[Store, int, float], Computed]


def computed(store: Store, project_id: int, gold_pass: float) -> Computed:
    """Everything that takes long."""
    with store.read() as session:
        decided = reviews.decided(session, project_id)
        rows = list(labels(session, project_id))
    summary = summarise(rows, gold_pass, decided)
    return progress(store, project_id), summary, figures(summary)


class Lead:
    """The lead's questions to a project, and what a lead decides."""

    def __init__(
        self, project: Project, now: Callable[[], float] = time.monotonic, compute: Compute = computed
    ) -> None:
        self.project, self.store = project, project.store
        self._now, self._compute = now, compute
        self._turn = threading.Lock()
        self._view: View | None = None
        self._until = 0.0
        self._decided: set[int] = set()  # since the view was computed

    # -- looking --

    def view(self, asks: str | None) -> View:
        """All figures. Who asks while they are computed waits for them."""
        self.who(asks)
        with self._turn:
            if self._view is None or self._now() >= self._until:
                began = self._now()
                self._decided.clear()  # what was decided until here, the reading below sees
                at = self.store.clock()
                found = self._compute(self.store, self.project.id, self.project.recipe.gold.pass_share)
                took = self._now() - began
                self._view = View(*found, at, took)
                self._until = self._now() + max(KEPT_S, KEPT_TIMES * took)
            view = self._view
        left = tuple(one for one in view.summary.disputes if one.task not in self._decided)
        return view._replace(summary=view.summary._replace(disputes=left))

    def task(self, asks: str | None, task_id: int) -> Judged:
        """A task with its texts and what everybody said. Raises `Refused` if there is none."""
        self.who(asks)
        with self.store.read() as session:
            found = judged_task(session, self.project.id, task_id)
        if found is None:
            raise Refused(f"there is no task {task_id} in this project")
        return found

    def page(self, asks: str | None) -> Page:
        """The whole page, but for the task that is opened."""
        view = self.view(asks)
        return Page(self.who(asks), view, people.listed(self.store), people.waiting(self.store))

    # -- deciding about tasks: reviewers and admins --

    def accept(self, asks: str | None, task_id: int) -> str:
        """People differ on this task, and that is how it is."""
        by = self.who(asks)
        reviews.accept_task(self.store, self.project.id, task_id, by.id)
        self._decided.add(task_id)
        return f"Task {task_id} is accepted as it is."

    def send_back(self, asks: str | None, task_id: int) -> str:
        """One more person is to rank this task."""
        by = self.who(asks)
        required = reviews.send_back(self.store, self.project.id, task_id, by.id)
        self._decided.add(task_id)
        return f"Task {task_id} is in the queue again, for one more person: {required} in all."

    # -- people: admins --

    def invite(self, asks: str | None, role: Any, name: str | None, days: float) -> Invited:
        """An invitation that works once."""
        by = self.who(asks, ("admin",))
        return people.invite(self.store, role, name, days, created_by=by.id)

    def reset(self, asks: str | None, name: str) -> Invited:
        """A link with which somebody sets a new password."""
        by = self.who(asks, ("admin",))
        return people.reset(self.store, name, created_by=by.id)

    def set_active(self, asks: str | None, name: str, active: bool) -> str:
        """Lets somebody in again, or shuts them out at once."""
        by = self.who(asks, ("admin",))
        person = people.set_active(self.store, name, active, by=by.id)
        return f"{person.name} {'can log in' if active else 'is shut out, and logged out'}."

    def revoke(self, asks: str | None, name: str) -> str:
        """Ends somebody's sessions and takes back their open invitations."""
        by = self.who(asks, ("admin",))
        return f"{name}: {people.revoke(self.store, name, by=by.id)} sessions and invitations ended."

    def set_role(self, asks: str | None, name: str, role: Any) -> str:
        """Gives somebody another role."""
        by = self.who(asks, ("admin",))
        person = people.set_role(self.store, name, role, by=by.id)
        return f"{person.name} is {person.role} now."

    def who(self, asks: str | None, roles: tuple[str, ...] = LEADS) -> Somebody:
        """Who asks, as the database knows them now. Raises `NotAllowed` unless their role is one of these."""
        try:
            person = people.by_name(self.store, asks or "")
        except Refused:
            raise NotAllowed("log in first") from None
        if not person.active or person.role not in roles:
            raise NotAllowed(f"this is for {' and '.join(roles)} only")
        return person
