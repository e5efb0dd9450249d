"""A project's progress in the terminal: `align label status project.yaml`."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from apps.store.feedback import failed_practice
from apps.store.progress import PersonProgress, Progress, progress
from apps.store.project import Project


def status(project: Project) -> RenderableType:
    """The renderable: progress, time left, and a row per person."""
    found = progress(project.store, project.id)
    with project.store.read() as session:
        failed = failed_practice(session, project.id)
    return Group(_overview(project, found, failed), "", _people(found))


def _overview(project: Project, p: Progress, failed: list[str]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_row("project", f"{project.recipe.name} ({project.store.where})")
    share = p.n_rankings / p.n_wanted if p.n_wanted else 0.0
    table.add_row("rankings", f"{p.n_rankings:,} of {p.n_wanted:,} ({share:.0%}), {project.recipe.overlap} per task")
    table.add_row("", ProgressBar(total=max(1, p.n_wanted), completed=p.n_rankings, width=40))
    table.add_row("tasks", f"{p.n_done:,} of {p.n_tasks:,} done, {p.n_held:,} being worked on")
    table.add_row("other", f"{p.n_skipped:,} skipped, {p.n_flagged:,} flagged, {p.n_extra:,} beyond the overlap")
    table.add_row("one ranking", "–" if p.median_seconds is None else f"{duration(p.median_seconds)} (median)")
    left = "–" if p.person_seconds_left is None else f"{duration(p.person_seconds_left)} of work"
    pace = (
        "" if p.seconds_left is None else f", {duration(p.seconds_left)} at the pace of the last day ({p.n_last_day:,})"
    )
    table.add_row("time left", left + pace)
    if failed:
        names = ", ".join(map(escape, failed))
        table.add_row("practice", f"failed by {names}; they get no tasks until a lead resets their practice")
    return table


def _people(p: Progress) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("person", "role", "ranked", "skipped", "flagged", "median", "gold", "practice", "last"):
        table.add_column(name, justify="left" if name in ("person", "role", "last") else "right")
    for person in p.people:
        table.add_row(*_row(person))
    return table


def _row(person: PersonProgress) -> list[str]:
    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.0%}"

    median = "–" if person.median_seconds is None else duration(person.median_seconds)
    last = "–" if person.last_at is None else f"{datetime.fromtimestamp(person.last_at, UTC):%Y-%m-%d %H:%M}"
    counts = [f"{n:,}" for n in (person.n_submitted, person.n_skipped, person.n_flagged)]
    known = [share(person.gold_agreement), share(person.practice_agreement)]
    role = person.role if person.active else f"{person.role}, inactive"
    return [escape(person.name), role, *counts, median, *known, last]


def escape(text: str) -> str:
    """Escapes Rich markup in a name."""
    from rich.markup import escape as escaped

    return escaped(text)


def duration(seconds: float) -> str:
    """A readable duration: 45 s, 12 min, 3.5 h, 4 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
