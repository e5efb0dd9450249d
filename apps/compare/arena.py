"""Blind battles: two models drawn at random on sides drawn at random, their names told after the vote.

A vote is a ranking of a task with two answers, in a project of the ranking app: its export, its lead's page and the
leaderboard here read the same rows. Battles that nobody has voted on yet are in memory alone.
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
from apps.store.battles import hand
from apps.store.errors import Refused
from apps.votes.models import NoPlace, Place, standings
from apps.votes.rows import labels

if TYPE_CHECKING:
    from apps.compare.models import StreamingModels
    from apps.compare.queue import Ticket
    from apps.store.project import Project

Verdict = Literal["a", "b", "tie", "bad"]
RANKS: dict[Verdict, tuple[int, int]] = {"a": (1, 2), "b": (2, 1), "tie": (1, 1), "bad": (1, 1)}
MOST_BATTLES = 1000  # kept in memory; older ones cannot be voted on any more
KEPT_S = 5.0  # a leaderboard at least, and ten times as long as it took


@dataclass
class Battle:
    """Two answers to a prompt, side A first."""

    person: int
    names: tuple[str, str]
    prompt: str
    seed: int
    texts: list[str | None]  # None until the answer is whole
    said: Verdict | None = None  # once it is in the database

    @property
    def is_open(self) -> bool:
        """Whether it can be voted on."""
        return self.said is None and None not in self.texts and self.texts[0] != self.texts[1]


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
        self._turn, self._voting, self._computing = threading.Lock(), threading.Lock(), threading.Lock()
        self._board: Board | None = None
        self._until = 0.0

    def begin(self, person: int, prompt: str) -> str:
        """A new battle's id. The one that this person left undecided is over."""
        first, second = self._random.sample(list(self.models.by_name), 2)
        battle = Battle(person, (first, second), prompt, self._random.randrange(2**31), [None, None])
        with self._turn:
            for old in [key for key, one in self._battles.items() if one.person == person and one.said is None]:
                del self._battles[old]
            while len(self._battles) >= MOST_BATTLES:
                self._battles.popitem(last=False)
            battle_id = uuid4().hex
            self._battles[battle_id] = battle
        return battle_id

    def answer(self, battle_id: str, ticket: Ticket) -> Iterator[Event]:
        """What the page shows of a battle: texts, and nothing that tells the models apart."""
        battle = self._battles.get(battle_id)
        if battle is None:
            return
        asked = (Message("user", battle.prompt),)
        sides = [Side(self.models.by_name[name], asked) for name in battle.names]
        for n, said in answers(sides, self.how, battle.seed, ticket.stopped.is_set):
            if isinstance(said, str):
                yield {"side": n, "piece": "" if isinstance(said, Thought) else said}  # people judge the answer
            elif isinstance(said, UserError):
                yield {"side": n, "problem": "This model could not answer; ask something else, perhaps shorter."}
            elif not ticket.stopped.is_set():
                battle.texts[n] = said.text
                yield {"side": n, "end": "whole", "rest": said.rest, "text": said.text}
        yield {"battle": battle_id, "open": battle.is_open, "why": _why_not(battle)}

    def vote(self, person: int, battle_id: str, annotation_id: str, verdict: Verdict, seconds: float) -> Event:
        """Saves a vote; once it is in the database, tells who was who. The same again changes nothing."""
        with self._voting:
            battle = self._battles.get(battle_id)
            if battle is None or battle.person != person:
                raise Refused("this battle is over: another was begun, or the server anew; ask again")
            if battle.said is None:
                if not battle.is_open:
                    raise Refused("this battle has no two answers to choose from; ask again")
                self._save(person, battle, annotation_id, verdict, seconds)
                battle.said = verdict
            elif battle.said != verdict:
                raise Refused("this battle is decided, and its models' names were told; begin a new one")
        return {"saved": True, "names": list(battle.names)}

    def board(self) -> Board:
        """The leaderboard of all votes, computed anew every few seconds at most."""
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
        how = {"temperature": self.how.temperature, "seed": battle.seed}
        made = tuple(NewAnswer(text, {"model": name} | how) for text, name in zip(texts, battle.names, strict=True))
        prompt = [{"role": "user", "content": battle.prompt}]
        task = hand(store, project_id, person, NewPrompt(prompt, "arena", made))
        payload = _payload([RANKS[verdict][texts.index(text)] for text in task.answers], verdict == "bad")
        work.submit(store, person, annotation_id, task.id, task.lease, payload, seconds)
        self._until = 0.0

    def _computed(self) -> Board:
        with self.project.store.read() as session:
            said = [one for one in labels(session, self.project.id) if one.kind == "rank" and one.ranks is not None]
        places, unranked = standings(said)
        return Board(places, unranked, len(said), len({one.person for one in said}))


def _payload(ranks: Sequence[int], all_bad: bool) -> dict[str, Any]:
    """A ranking as the store takes it; of two bad answers none is better."""
    return {"ranks": {str(slot): rank for slot, rank in enumerate(ranks)}, "all_bad": all_bad}


def _why_not(battle: Battle) -> str:
    """Why a battle cannot be voted on, or ""."""
    if battle.is_open:
        return ""
    if None in battle.texts:
        return "There are no two whole answers to choose from."
    return "Both gave the same answer: there is nothing to choose."
