"""The labelling page as its person sees it."""

from __future__ import annotations

from typing import Any

from browser import Window
from served import Place
from sqlalchemy import select

from apps.store.tables import Annotation, Output, Person, Presentation, Revision, TaskOutput

# Whether the page shows another task than the one whose first answer is given, or that there is none.
GONE_ON = """(before) => {
  const root = document.getElementById("align-label").shadowRoot;
  const first = root.querySelector(".answer .body");
  return root.querySelector(".notice .primary") || (first && first.innerText.trim() !== before);
}"""

# Waits until the page has drawn what it has been told.
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

# Each row's rank, and the slots of the letters that stand in it, all at one moment.
ROWS = """() => [...document.getElementById("align-label").shadowRoot.querySelectorAll(".row")].map((row) =>
  [row.dataset.rank, [...row.querySelectorAll(".chip")].map((chip) => Number(chip.dataset.slot))])"""


class Desk(Window):
    """Somebody's browser window on the labelling page."""

    app = "label"

    def open(self) -> Desk:
        self.page.goto(f"{self.url}/app/")
        self.page.wait_for_selector(".answer")
        return self

    def texts(self) -> list[str]:
        """The answers' texts by slot."""
        return [text.strip() for text in self.page.locator(".answer .body").all_inner_texts()]

    def chip(self, slot: int) -> Any:
        return self.page.locator(f".board .chip[data-slot='{slot}']")

    def row(self, rank: int) -> Any:
        return self.page.locator(f".row[data-rank='{rank}']")

    def drag(self, slot: int, rank: int) -> None:
        """Drags a letter to a row with the mouse."""
        self.drag_to(slot, self.row(rank), 0.5)

    def drag_to(self, slot: int, row: Any, share: float) -> None:
        """Drags a letter to a height of a row: 0 is its upper edge, 1 its lower."""
        start, end, mouse = self._place(self.chip(slot)), self._place(row), self.page.mouse
        mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        mouse.down()
        mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] * share, steps=4)
        mouse.up()

    def _place(self, what: Any) -> Any:
        """Where something stands once it stands still: on a busy machine the page may yet move it."""
        box = what.bounding_box()
        while True:
            self.page.evaluate(DRAWN)
            if (now := what.bounding_box()) == box:
                return box
            box = now

    def rows(self) -> dict[int, list[int]]:
        """Which slots stand in which row; 0 is "not ranked yet"."""
        self.page.evaluate(DRAWN)
        seen = self.page.evaluate(ROWS)
        return {0 if rank == "none" else int(rank): slots for rank, slots in seen if slots}

    def rate(self, slot: int, rating: int) -> None:
        """With the mouse."""
        self.page.locator(f"#answer-{slot} .rating label").nth(rating - 1).click()

    def submit(self) -> None:
        """Clicks, and waits until the page says that it is saved."""
        self.page.get_by_role("button", name="Submit").click()
        self.saved()

    def saved(self) -> None:
        self.page.locator(".toast", has_text="Saved").wait_for()


def said(place: Place, name: str) -> list[tuple[str, dict[str, Any]]]:
    """(status, payload) of a person's annotations, in the order of saying; ranks and ratings by the answers' texts."""
    with place.project.store.read() as session:
        rows = session.execute(
            select(Annotation, Revision, Presentation.places)
            .join(Person, Person.id == Annotation.person_id)
            .join(Revision, (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions))
            .join(Presentation, (Presentation.task_id == Annotation.task_id) & (Presentation.person_id == Person.id))
            .where(Person.name == name)
            .order_by(Annotation.turn)
        ).all()
        found = []
        for annotation, revision, places in rows:
            query = select(Output.text).join(TaskOutput, TaskOutput.output_id == Output.id)
            texts = session.scalars(
                query.where(TaskOutput.task_id == annotation.task_id).order_by(TaskOutput.place)
            ).all()
            slots = {str(slot): texts[place] for slot, place in enumerate(places)}
            payload = dict(revision.payload)
            for key in ("ranks", "answers"):
                if payload.get(key):
                    payload[key] = {slots[slot]: value for slot, value in payload[key].items()}
            found.append((annotation.status, payload))
        return found
