"""The lead's page: progress, agreement, disputes to review, models, people. For reviewers and admins.

Its events go through Gradio's queue. So all that is shown is words in tables and text boxes, which no component reads
as more than text, and figures as images; and every function that an event calls asks `Lead`, which looks up who asks
and what they may do. Nothing is kept in Gradio's state.

No `from __future__ import annotations` here: Gradio tells the request from the other arguments by its type, and would
else take it from the browser.
"""

import base64
import html
import re
import unicodedata
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.text.records import Message
from apps.label import tables
from apps.label.lead import Compute, Lead, Page, View, computed
from apps.store.people import ROLES, Invited
from apps.store.project import Project
from apps.store.reading import Judged

if TYPE_CHECKING:
    import gradio

MOST_ANSWERS = 9
ALT = {
    "pace": "Rankings done, by day",
    "seconds": "How long rankings took",
    "agreement": "Each person's agreement with the others",
    "position": "How answers do at each place of the page",
    "leaderboard": "The models' scores",
    "gold": "Gold tasks passed, by person",
}
CSS = """
.align-figure img { max-width: 34rem; width: 100%; background: white; }
.align-page { max-width: 80rem !important; margin: 0 auto !important; }
.align-head { align-items: center; }
.align-table, .align-table * { font-family: var(--font) !important; font-variant-numeric: tabular-nums; }
"""
LINKS = "[Rank answers](/app/) · [Your account](/account)"
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")  # the labelling page's
EVENT: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 4, "show_progress": "minimal"}

Read = Callable[[Page], Any]
Part = Callable[[Any, Read], Any]


def dashboard(project: Project, compute: Compute = computed) -> "gradio.Blocks":
    """The page as Gradio blocks. `compute`: what computes the figures."""
    import gradio as gr

    lead = Lead(project, compute=compute)
    parts: list[tuple[Any, Read]] = []  # each component that a refresh fills, and with what

    def part(component: Any, read: Read) -> Any:
        parts.append((component, read))
        return component

    def table(columns: dict[str, str], read: Read, label: str | None = None) -> None:
        part(words(columns, label), read)

    def figure(name: str) -> None:
        part(gr.Markdown(elem_classes="align-figure", container=False), lambda page: image(page.view, name))

    def refresh(request: gr.Request) -> list[Any]:
        page = lead.page(request.username)
        return [read(page) for _, read in parts]

    with gr.Blocks(title=f"{project.recipe.name}: lead", analytics_enabled=False) as blocks:
        with gr.Column(elem_classes="align-page"):
            with gr.Row(elem_classes="align-head"):
                gr.Markdown(f"# {literal(project.recipe.name)}\n{LINKS}")
                part(gr.Markdown(), lambda page: as_of(page.view))
                again = gr.Button("Refresh", size="sm", min_width=120, scale=0)
            with gr.Tab("Progress"):
                table(tables.PROGRESS, lambda page: tables.progress(page.view.progress))
                with gr.Row():
                    figure("pace")
                    figure("seconds")
            with gr.Tab("Agreement"):
                table(tables.FIGURES, lambda page: tables.agreement(page.view.summary), "Do people agree?")
                table(tables.QUALITY, lambda page: tables.quality(page.view.summary), "Each person")
                figure("agreement")
                table(tables.COUPLES, lambda page: tables.couples(page.view.summary), "Every two people")
                table(tables.FLAGS, lambda page: tables.flags(page.view.summary), "Flags")
            with gr.Tab("Habits"):
                table(tables.FIGURES, lambda page: tables.habits(page.view.summary), "How people work")
                figure("position")
            with gr.Tab("Gold"):
                figure("gold")
                table(tables.GOLDS, lambda page: tables.golds(page.view.summary), "Gold tasks, the hardest first")
            with gr.Tab("Review"):
                review = _Review(lead, part)
            with gr.Tab("Models"):
                table(tables.MODELS, lambda page: tables.models(page.view.summary))
                figure("leaderboard")
                table(tables.UNRANKED, lambda page: tables.unranked(page.view.summary), "Not ranked")
            with gr.Tab("People"):
                table(tables.PEOPLE, tables.people)
                people = _People(lead, part)
        shown = [component for component, _ in parts]
        for event in (again.click, blocks.load):
            event(told(refresh), None, shown, **EVENT)
        for done in (*review.events(), *people.events()):
            done.then(told(refresh), None, shown, **EVENT)
    return blocks


class _Review:
    """Disputes: a list, one of them opened, and what to do about it."""

    def __init__(self, lead: Lead, part: Part) -> None:
        import gradio as gr

        self.lead = lead
        self.choice = part(
            gr.Dropdown(label="Tasks on which people differ, the worst first", choices=[], interactive=True),
            lambda page: gr.Dropdown(
                choices=[(tables.dispute(one), one.task) for one in page.view.summary.disputes], interactive=True
            ),
        )
        self.prompt = gr.Textbox(label="Prompt", interactive=False, lines=2, max_lines=15)
        self.rankings = gr.Dataframe(headers=["person"], datatype="str", interactive=False, label="Ranks, 1 is best")
        self.answers = []
        for _ in range(0, MOST_ANSWERS + 1, 2):
            with gr.Row():
                self.answers += [
                    gr.Textbox(visible=False, interactive=False, lines=4, max_lines=20, min_width=320) for _ in range(2)
                ]
        self.remarks = words(tables.REMARKS, "Remarks")
        with gr.Row():
            self.accept = gr.Button("Accept as it is")
            self.send = gr.Button("Ask one more person")
        self.said = gr.Textbox(label="Done", interactive=False, max_lines=2)

    def events(self) -> list[Any]:
        """Wires it up. Returns what changes what the page shows."""
        import gradio as gr

        lead = self.lead

        def open_task(task: int | None, request: gr.Request) -> list[Any]:
            return self.opened(None if task is None else lead.task(request.username, task))

        def accept(task: int | None, request: gr.Request) -> list[Any]:
            return self.decided("Choose a task first." if task is None else lead.accept(request.username, task))

        def send(task: int | None, request: gr.Request) -> list[Any]:
            return self.decided("Choose a task first." if task is None else lead.send_back(request.username, task))

        shown = [self.prompt, self.rankings, *self.answers, self.remarks]
        self.choice.input(told(open_task), self.choice, shown, **EVENT)
        return [
            self.accept.click(told(accept), self.choice, [self.said, self.choice], **EVENT),
            self.send.click(told(send), self.choice, [self.said, self.choice], **EVENT),
        ]

    def decided(self, said: str) -> list[Any]:
        """The choice is closed until the list is new: an open one that gets shorter fails in the browser."""
        import gradio as gr

        return [said, gr.Dropdown(value=None, interactive=False)]

    def opened(self, task: Judged | None) -> list[Any]:
        """The values of the components that show a task."""
        import gradio as gr

        found = () if task is None else task.answers
        answers = [
            gr.Textbox(value=answer.text, label=f"Answer {n}", visible=True, rtl=is_rtl(answer.text))
            for n, answer in enumerate(found, start=1)
        ]
        answers += [gr.Textbox(value="", visible=False) for _ in range(len(answers), len(self.answers))]
        if task is None:
            return ["", gr.Dataframe(headers=["person"], value=[]), *answers, []]
        headers, rows = tables.rankings(task)
        prompt = "\n\n".join(f"{turn['role']}: {Message.of(turn).text}" for turn in task.messages)
        shown = gr.Textbox(value=prompt, rtl=is_rtl(task.messages[-1]["content"]))
        return [shown, gr.Dataframe(headers=headers, value=rows), *answers, tables.remarks(task)]


class _People:
    """Inviting and shutting out: shown to admins, and theirs alone."""

    def __init__(self, lead: Lead, part: Part) -> None:
        import gradio as gr

        self.lead = lead
        with part(gr.Column(visible=False), lambda page: gr.Column(visible=page.asks.role == "admin")):
            with gr.Row():
                self.role = gr.Dropdown(list(ROLES)[::-1], value="annotator", label="Role", interactive=True)
                self.name = gr.Textbox(label="Name; empty lets them choose", max_lines=1)
                self.days = gr.Number(7, label="Days that the link works", minimum=0.01, maximum=365)
            self.invite = gr.Button("Invite", size="sm")
            self.person = part(
                gr.Dropdown([], label="Person", interactive=True),
                lambda page: gr.Dropdown(choices=tables.names(page)),
            )
            with gr.Row():
                self.out, self.back = gr.Button("Shut out", size="sm"), gr.Button("Let in again", size="sm")
                self.end = gr.Button("End sessions and invitations", size="sm")
                self.reset = gr.Button("Link for a new password", size="sm")
                self.give = gr.Button("Give the role above", size="sm")
            self.said = gr.Textbox(label="Done", interactive=False, max_lines=3)

    def events(self) -> list[Any]:
        """Wires it up. Returns what changes what the page shows."""
        import gradio as gr

        lead = self.lead

        def invite(role: str, name: str, days: float, request: gr.Request) -> str:
            return self.link(lead.invite(request.username, role, name.strip() or None, days), request)

        def reset(name: str | None, request: gr.Request) -> str:
            return self.link(lead.reset(request.username, name or ""), request)

        def shut_out(name: str | None, request: gr.Request) -> str:
            return lead.set_active(request.username, name or "", False)

        def let_in(name: str | None, request: gr.Request) -> str:
            return lead.set_active(request.username, name or "", True)

        def revoke(name: str | None, request: gr.Request) -> str:
            return lead.revoke(request.username, name or "")

        def give(name: str | None, role: str, request: gr.Request) -> str:
            return lead.set_role(request.username, name or "", role)

        return [
            button.click(told(function), inputs, self.said, **EVENT)
            for button, function, inputs in (
                (self.invite, invite, [self.role, self.name, self.days]),
                (self.reset, reset, [self.person]),
                (self.out, shut_out, [self.person]),
                (self.back, let_in, [self.person]),
                (self.end, revoke, [self.person]),
                (self.give, give, [self.person, self.role]),
            )
        ]

    def link(self, invited: Invited, request: Any) -> str:
        """The link of an invitation, which is told this once."""
        url = request.request.url
        origin = self.lead.project.recipe.origin or f"{url.scheme}://{url.netloc}"
        who = invited.name or f"a new {invited.role}"
        until = tables.clock(invited.expires_at)
        return f"{origin}/invitation/{invited.token}\nfor {who}, once, until {until} UTC. Whoever has it can use it."


def words(columns: dict[str, str], label: str | None) -> Any:
    """A table of plain text; `columns` have a width each."""
    import gradio as gr

    widths: list[str | int] = list(columns.values())
    return gr.Dataframe(
        headers=list(columns),
        datatype="str",
        interactive=False,
        wrap=True,
        label=label,
        show_label=label is not None,
        column_widths=widths,
        buttons=[],
        elem_classes="align-table",
    )


def theme() -> Any:
    """Gradio's, in the colours and type of the labelling page."""
    from gradio.themes import Default
    from gradio.themes.utils import colors

    return Default(primary_hue=colors.blue, neutral_hue=colors.slate, font=SANS)


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with what it refuses shown as a message."""
    import gradio as gr

    @wraps(function)
    def calling(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except UserError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from None

    return calling


def as_of(view: View) -> str:
    """When the figures were computed."""
    return f"As of {tables.clock(view.at)} UTC, computed in {view.took_s:.1f} s"


def image(view: View, name: str) -> str:
    """A figure as an image in Markdown: as such nothing in it can run, whatever models and people are called."""
    svg = view.figures[name]
    if not svg:
        return ""
    return f"![{ALT[name]}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def literal(text: str) -> str:
    """A line of Markdown that shows the text as it is: all of ASCII's punctuation can be escaped."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def is_rtl(text: str) -> bool:
    """Whether a text's first letter that has a direction is written from right to left, as dir="auto" would find."""
    kinds = (unicodedata.bidirectional(character) for character in text)
    return next((kind in ("R", "AL") for kind in kinds if kind in ("L", "R", "AL")), False)
