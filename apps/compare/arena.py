"""The arena: blind battles of two random models on random sides. Their names are revealed after the vote.

A vote is a ranking of a task with two answers, in a project of the ranking app: the project's exports and lead's page
and the leaderboard here read the same rows. Battles without a vote are only in memory.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import uuid4

from align.errors import UserError
from align.generation.sampling import Sampling
from align.text.records import Message
from apps.compare.answering import Event, Side, answers
from apps.compare.models import Thought
from apps.store import work
from apps.store.adding import NewAnswer, NewPrompt
from apps.store.battles import task_for_battle
from apps.store.errors import Refused
from apps.votes.models import NoPlace, Place, standings
from apps.votes.rows import labels

if TYPE_CHECKING:
    from apps.compare.models import StreamingModels
    from apps.compare.queue import Ticket
    from apps.store.project import Project

Verdict = Literal["a", "b", "tie", "bad"]
RANKS: dict[Verdict, tuple[int, int]] = {"a": (1, 2), "b": (2, 1), "tie": (1, 1), "bad": (1, 1)}
MOST_BATTLES = 1000  # kept in memory; older ones can no longer be voted on
KEPT_S = 5.0  # shortest time that a leaderboard is cached; else ten times its computing time


@dataclass
class Battle:
    """Two answers to a prompt, side A first."""

    person: int
    names: tuple[str, str]
    prompt: str
    seeds: tuple[int, int]  # one each: with a common one, similar models would draw the same tokens
    texts: list[str | None]  # None until the answer is complete
    verdict: Verdict | None = None  # set once the vote is in the database

    @property
    def is_open(self) -> bool:
        """Whether it can be voted on."""
        return self.verdict is None and None not in self.texts and self.texts[0] != self.texts[1]


class Board(NamedTuple):
    """The leaderboard."""

    places: tuple[Place, ...]
    unranked: tuple[NoPlace, ...]
    n_votes: int
    n_people: int


class Arena:
    """The battles of a project."""

    def __init__(
        self, project: Project, models: StreamingModels, how: Sampling, rng: random.Random | None = None
    ) -> None:
        self.project, self.models, self.how = project, models, how
        self._random = rng or random.SystemRandom()
        self._battles: OrderedDict[str, Battle] = OrderedDict()
        self._lock, self._voting, self._computing = threading.Lock(), threading.Lock(), threading.Lock()
        self._board: Board | None = None
        self._until = 0.0

    def begin(self, person: int, prompt: str) -> str:
        """Starts a battle and returns its id. The person's undecided battles end."""
        first, second = self._random.sample(list(self.models.by_name), 2)
        seeds = (self._random.randrange(2**31), self._random.randrange(2**31))
        battle = Battle(person, (first, second), prompt, seeds, [None, None])
        with self._lock:
            for old in [key for key, one in self._battles.items() if one.person == person and one.verdict is None]:
                del self._battles[old]
            while len(self._battles) >= MOST_BATTLES:
                self._battles.popitem(last=False)
            battle_id = uuid4().hex
            self._battles[battle_id] = battle
        return battle_id

    def answer(self, battle_id: str, ticket: Ticket) -> Iterator[Event]:
        """The page's events of a battle: texts only, nothing that identifies the models."""
        battle = self._battles.get(battle_id)
        if battle is None:
            return
        messages = (Message("user", battle.prompt),)
        sides = [
            Side(self.models.by_name[name], messages, seed)
            for name, seed in zip(battle.names, battle.seeds, strict=True)
        ]
        for n, output in answers(sides, self.how, ticket.stopped.is_set):
            if isinstance(output, str):
                yield {
                    "side": n,
                    "piece": "" if isinstance(output, Thought) else output,
                }  # thoughts are hidden: people compare the answers
            elif isinstance(output, UserError):
                yield {"side": n, "problem": "This model could not answer; try another or a shorter question."}
            elif not ticket.stopped.is_set():
                battle.texts[n] = output.text
                yield {"side": n, "end": "whole", "rest": output.rest, "text": output.text}
        yield {"battle": battle_id, "open": battle.is_open, "why": _why_not(battle)}

    def vote(self, person: int, battle_id: str, annotation_id: str, verdict: Verdict, seconds: float) -> Event:
        """Saves a vote and then reveals the models' names. Repeating the same vote changes nothing."""
        with self._voting:
            battle = self._battles.get(battle_id)
            if battle is None or battle.person != person:
                raise Refused("this battle is over because you or the server started again; ask again")
            if battle.verdict is None:
                if not battle.is_open:
                    raise Refused("this battle does not have two answers to choose from; ask again")
                self._save(person, battle, annotation_id, verdict, seconds)
                battle.verdict = verdict
            elif battle.verdict != verdict:
                raise Refused("you already voted on this battle, and the names were revealed; start a new one")
        return {"saved": True, "names": list(battle.names)}

    def board(self) -> Board:
        """The leaderboard of all votes, recomputed at most every few seconds."""
        with self._computing:
            if self._board is None or time.monotonic() >= self._until:
                began = time.monotonic()
                self._board = self._computed()
                took = time.monotonic() - began
                self._until = time.monotonic() + max(KEPT_S, 10 * took)
            return self._board

    def _save(self, person: int, battle: Battle, annotation_id: str, verdict: Verdict, seconds: float) -> None:
        store, project_id = self.project.store, self.project.id
        texts = [str(text) for text in battle.texts]
        made = tuple(
            NewAnswer(text, {"model": name, "temperature": self.how.temperature, "seed": seed})
            for text, name, seed in zip(texts, battle.names, battle.seeds, strict=True)
        )
        prompt = [{"role": "user", "content": battle.prompt}]
        task = task_for_battle(store, project_id, person, NewPrompt(prompt, "arena", made))
        payload = _payload([RANKS[verdict][texts.index(text)] for text in task.answers], verdict == "bad")
        work.submit(store, person, annotation_id, task.id, task.lease, payload, seconds)
        self._until = 0.0

    def _computed(self) -> Board:
        with self.project.store.read() as session:
            rankings = [one for one in labels(session, self.project.id) if one.kind == "rank" and one.ranks is not None]
        places, unranked = standings(rankings)
        return Board(places, unranked, len(rankings), len({one.person for one in rankings}))


def _payload(ranks: Sequence[int], all_bad: bool) -> dict[str, Any]:
    """The store's payload for a ranking; two bad answers are a tie."""
    return {"ranks": {str(slot): rank for slot, rank in enumerate(ranks)}, "all_bad": all_bad}


def _why_not(battle: Battle) -> str:
    """Why a battle cannot be voted on, or ""."""
    if battle.is_open:
        return ""
    if None in battle.texts:
        return "There are not two complete answers to choose from."
    return "Both models gave the same answer, so there is nothing to vote on."
