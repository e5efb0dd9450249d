"""The lead's page: how far the project is, and who does what. For reviewers and admins (`server.py` sees to that).

The page's events go through Gradio's queue. Its functions read the database in threads, take no argument from the
browser, and show names as plain text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.label.project import Project
from apps.store.progress import PersonProgress, Progress, progress

if TYPE_CHECKING:
    import gradio

PEOPLE = ["name", "role", "submitted", "skipped", "reported", "median seconds", "gold agreement"]


def dashboard(project: Project) -> gradio.Blocks:
    """The page as Gradio blocks."""
    import gradio

    def refresh() -> tuple[list[list[Any]], list[list[Any]]]:
        found = progress(project.store, project.id)
        return totals(found), [row(person) for person in found.people]

    with gradio.Blocks(title=project.recipe.name, fill_width=True, analytics_enabled=False) as blocks:
        gradio.Markdown("# Progress")
        whole = gradio.Dataframe(headers=["", ""], datatype="str", interactive=False, show_label=False)
        gradio.Markdown("## People")
        people = gradio.Dataframe(headers=PEOPLE, datatype="str", interactive=False, show_label=False)
        again = gradio.Button("Refresh")
        for event in (blocks.load, again.click):
            event(refresh, None, [whole, people], api_visibility="private", concurrency_limit=4)
    return blocks


def totals(found: Progress) -> list[list[Any]]:
    """The project's figures, as rows of name and value."""
    return [
        ["tasks ranked by enough people", f"{found.n_done} of {found.n_tasks}"],
        ["rankings", f"{found.n_rankings} of {found.n_wanted}"],
        ["skipped", str(found.n_skipped)],
        ["prompts reported", str(found.n_flagged)],
        ["in work now", str(found.n_held)],
        ["median seconds", _rounded(found.median_seconds)],
    ]


def row(person: PersonProgress) -> list[str]:
    """One person's figures."""
    counts = [str(n) for n in (person.n_submitted, person.n_skipped, person.n_flagged)]
    agreement = "" if person.gold_agreement is None else f"{person.gold_agreement:.0%}"
    return [person.name, person.role, *counts, _rounded(person.median_seconds), agreement]


def _rounded(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"
