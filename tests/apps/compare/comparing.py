"""A served comparison: the real application with tiny models, and the page as its person sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from browser import Window
from offices import person
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from apps.compare.models import StreamedAnswer, StreamingModel, StreamingModels, Thought
from apps.compare.recipe import Recipe
from apps.store import sessions
from apps.store.people import PersonInfo
from apps.store.project import Project

BASE = "http://127.0.0.1:7861"
PASSWORD = "four words or more"  # what `offices.person` gives everybody
OWN = {"X-Align": "1"}
HOW = {"max_tokens": 12, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def recipe_of(named: dict[str, Any], **changes: Any) -> Recipe:
    """A comparison's recipe with short answers."""
    given = {"sampling": {"max_tokens": 12}, "most_tokens": 32, **named, **changes}
    return Recipe.model_validate(given)


class Pace:
    """A model that draws a token only when it is let, and never one that ends its answer."""

    def __init__(self, real: Callable[..., Iterator[int]]) -> None:
        self.real, self.allowed, self.n_drawn = real, threading.Semaphore(0), 0
        self.is_free = False

    def __call__(
        self, model: Any, prompt: Any, how: Any, eos: list[int], forbidden: list[int], generator: Any
    ) -> Iterator[int]:
        for token in self.real(model, prompt, how, eos, [*forbidden, *eos], generator):
            if not self.is_free:
                self.allowed.acquire()
            self.n_drawn += 1
            yield token

    def let(self, n: int) -> None:
        for _ in range(n):
            self.allowed.release()

    def free(self) -> None:
        """From now on everything is drawn at once."""
        self.is_free = True
        self.let(10_000)


class Parrot:
    """A model that always says the same, and perhaps thinks before."""

    def __init__(self, name: str, text: str, like: StreamingModel, thoughts: str = "") -> None:
        self.name, self.text, self.thoughts = name, text, thoughts
        self.text_model, self.tokenizer, self.max_tokens = like.text_model, like.tokenizer, like.max_tokens

    def answer(self, *_: Any) -> Iterator[str | StreamedAnswer]:
        half = len(self.text) // 2
        yield from map(Thought, [self.thoughts] if self.thoughts else [])
        yield from (self.text[:half], self.text[half:])
        ids = self.tokenizer(self.text, add_special_tokens=False)["input_ids"][:2]
        yield StreamedAnswer(self.text, self.thoughts, [self.tokenizer.eos_token_id], ids, "", "length")

    def logits(self, prompt: list[int], ids: list[int]) -> Any:
        return StreamingModel.logits(self, prompt, ids)  # type: ignore[arg-type]

    def prompt_ids(self, asked: Any) -> list[int]:
        return [self.tokenizer.eos_token_id]

    def reads_like(self, other: Any) -> bool:
        return True


class Member(NamedTuple):
    """Somebody with a client that is logged in as them; nobody in particular where there are no accounts."""

    who: PersonInfo | None
    client: TestClient

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self.client.request(method, f"/api/{path}", headers=OWN, json=body)

    def events(self, path: str, body: Any) -> list[dict[str, Any]]:
        """All that a stream says but its id."""
        answer = self.call("POST", path, body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        first, *rest = [json.loads(line) for line in answer.text.splitlines() if line]
        assert list(first) == ["id"]
        return rest

    def fight(self, prompt: str = "say red blue") -> str:
        """A battle to vote on."""
        for n in range(20):  # tiny models often say the same
            last = self.events("battle", {"prompt": f"{prompt} {n}"})[-1]
            if last["open"]:
                return str(last["battle"])
        raise AssertionError("no battle had two different answers")

    def vote(self, battle: str, verdict: str, vote_id: str) -> Any:
        return self.call("POST", "vote", {"id": vote_id, "battle": battle, "verdict": verdict, "seconds": 3})


class Place(NamedTuple):
    """The application, and what it is made of."""

    recipe: Recipe
    loaded: StreamingModels
    project: Project | None
    app: ASGIApp

    def token(self, name: str) -> str:
        assert self.project is not None
        return sessions.login(self.project.store, name, PASSWORD, "10.0.0.1")

    def client(self, token: str | None = None, **more: Any) -> TestClient:
        cookies = {} if token is None else {"align_compare": token}
        return TestClient(self.app, base_url=BASE, cookies=cookies, follow_redirects=False, **more)

    def member(self, name: str = "", role: Any = "annotator") -> Member:
        if self.project is None:
            return Member(None, self.client())
        who = person(self.project.store, name, role)
        return Member(who, self.client(self.token(name)))


def question(text: str, *models: str, **changes: Any) -> dict[str, Any]:
    """The body of /api/ask."""
    threads = [[{"role": "user", "content": text}] for _ in models]
    return {"models": list(models), "threads": threads, "sampling": HOW, "seed": 1} | changes


def of_side(events: list[dict[str, Any]], side: int, key: str) -> list[Any]:
    return [event[key] for event in events if event.get("side") == side and key in event]


class Page(Window):
    """Somebody's window on the comparison."""

    app = "compare"

    def open(self, view: str = "") -> Page:
        self.page.goto(f"{self.url}/app/{view}")
        self.page.wait_for_selector(".views > *")
        return self

    def ask(self, text: str, button: str = "Ask") -> None:
        self.page.get_by_label("Question", exact=True).fill(text)
        self.page.get_by_role("button", name=button).click()

    def done(self, words: str = "Done.") -> None:
        self.page.locator(".status", has_text=words).wait_for()

    def answers(self) -> list[str]:
        return [text.strip() for text in self.page.locator(".answer .tokens").all_inner_texts()]


def project_file(folder: Path, **keys: Any) -> str:
    """A project.yaml for the arena."""
    settings = {
        "name": "arena",
        "database": str(folder / "labels.db"),
        "questions": {"rating": {"ask": False}, "flags": []},
    }
    path = folder / "arena.yaml"
    path.write_text(json.dumps(settings | keys), encoding="utf-8")
    return str(path)
