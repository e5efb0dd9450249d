"""Writers killed with SIGKILL at random moments: what was acknowledged is there, once, and all counts are right.

They rank, draft, undo, revise and report; and as leads they decide, answer reports, edit guidelines, make tokens, and
erase people who have said something. ALIGN_KILLS sets how often (10). Writers are forked, so that a kill costs
milliseconds and not the start of a Python.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest
from offices import Office, new_id, person, ranking
from sqlalchemy import func, select, text

from apps.store import erasing, events, links, projects, reviews, tasks, tokens, work
from apps.store.engine import Store
from apps.store.errors import Stale
from apps.store.people import PersonInfo
from apps.store.revisions import FINAL
from apps.store.tables import Annotation, ApiToken, Event, Guidelines, Person, Project, Revision, Task

N_KILLS = int(os.environ.get("ALIGN_KILLS", "10"))
N_WRITERS = 3
OVERLAP = 2


class Writer:
    """Works as several people in turn; a line is written after each answer of the store, as a page would show it."""

    def __init__(self, url: str, project: int, people: list[PersonInfo], log: Path, seed: int) -> None:
        self.store, self.project, self.people, self.seed = Store.open(url), project, people, seed
        self.lead = people[0].id
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.chance = random.Random(seed)
        self.n_erased = 0

    def work_until_killed(self) -> None:
        while True:
            self.rank(self.chance.choice(self.people).id)
            if self.chance.random() < 0.3:
                self.chance.choice((self.edit, self.decide, self.answer_report, self.make_token, self.erase))()

    def note(self, *words: object) -> None:
        os.write(self.log, (" ".join(map(str, words)) + "\n").encode())

    def said(self, id: str, n: int, payload: dict[str, object]) -> None:
        """What erasing leaves of it is compared: texts may be gone by then."""
        self.note("said", id, n, events.digest(events.without_texts(payload)))

    def rank(self, who: int) -> None:
        given = tasks.claim(self.store, self.project, who)
        ranks = ranking(*(self.chance.randint(1, 2) for _ in range(2))) | {"comment": "a text"}
        if not isinstance(given, tasks.TaskView):
            if past := work.history(self.store, self.project, who, limit=9):
                saved = work.revise(self.store, who, self.chance.choice(past).id, ranks)
                self.said(saved.id, saved.revision, ranks)
            return
        if self.chance.random() < 0.3:
            work.save_draft(self.store, who, given.id, {"comment": "half"}, given.draft_rev + 1)
        id = given.annotation or new_id()
        if self.chance.random() < 0.1:
            flagged = {"reason": "a text", "comment": "a text"}
            saved = work.flag(self.store, who, id, given.id, given.lease, *flagged.values())
            self.said(saved.id, saved.revision, flagged)
            return
        saved = work.submit(self.store, who, id, given.id, given.lease, ranks)
        self.said(saved.id, saved.revision, ranks)
        if self.chance.random() < 0.2:
            undone = work.undo(self.store, self.project, who, saved.id)
            assert undone is not None
            self.said(saved.id, undone.revision, {})

    def edit(self) -> None:
        version = projects.guidelines_of(self.store, self.project).version
        try:
            edited = f"{self.seed} after {version}"
            version = projects.edit_guidelines(self.store, self.project, edited, version, self.lead)
            self.note("guidelines", version, events.digest(edited))
        except Stale:
            pass

    def decide(self) -> None:
        with self.store.read() as session:
            done = select(Task.id).where(Task.status == "done").order_by(func.random()).limit(1)
            task = session.scalar(done)
        if task is not None:
            given = reviews.adjudicate(self.store, self.project, task, self.lead)
            ranks = ranking(*(self.chance.randint(1, 2) for _ in given.answers))
            saved = work.submit(self.store, self.lead, given.annotation or new_id(), given.id, given.lease, ranks)
            self.said(saved.id, saved.revision, ranks)
            self.note("final", saved.id)

    def answer_report(self) -> None:
        waiting = [one for one in reviews.reports(self.store, self.project) if not one.handled]
        if waiting:
            reviews.keep_report(self.store, self.project, waiting[0].annotation, self.lead)
            self.note("kept", waiting[0].annotation)

    def make_token(self) -> None:
        token = tokens.create(self.store, self.people[0].name, "a script", 1).token
        self.note("token", links.hash_token(token))

    def erase(self) -> None:
        """Somebody comes, says something, and is erased."""
        self.n_erased += 1
        somebody = person(self.store, f"guest {self.seed}-{self.n_erased}")
        self.rank(somebody.id)
        self.note("erased", erasing.erase(self.store, somebody.name, self.lead).pseudonym)


def start(url: str, office: Office, people: list[PersonInfo], log: Path, seed: int) -> int:
    """A writer's process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        Writer(url, office.project, people, log, seed).work_until_killed()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # only a bug comes here


def acknowledged_in(logs: list[Path]) -> list[list[str]]:
    """The words of each line. A line is one write, so a kill leaves none of it or all."""
    return [line.split() for log in logs if log.exists() for line in log.read_text().splitlines()]


@pytest.mark.filterwarnings("ignore:This process")  # that fork and threads do not mix: no thread runs here
@pytest.mark.slow
def test_what_was_acknowledged_survives_sigkill(url: str, tmp_path: Path) -> None:
    store = Store.open(url)
    office = Office(store, overlap=OVERLAP, lease_minutes=0.002)
    office.tasks(300, k=2)
    crew = [[office.person(f"{writer}-{n}") for n in range(3)] for writer in range(N_WRITERS)]
    store.close()
    logs = [tmp_path / f"log-{writer}" for writer in range(N_WRITERS)]
    chance = random.Random(1)
    running = [start(url, office, crew[writer], logs[writer], writer) for writer in range(N_WRITERS)]
    try:
        for kill in range(N_KILLS):
            writer = chance.randrange(N_WRITERS)
            wait_for_work(logs[writer], chance.randrange(4))
            time.sleep(chance.random() * 0.02)
            os.kill(running[writer], signal.SIGKILL)
            _, status = os.waitpid(running[writer], 0)
            assert os.WIFSIGNALED(status), "a writer ended by itself"
            running[writer] = start(url, office, crew[writer], logs[writer], 100 + kill)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    check(url, acknowledged_in(logs))


def wait_for_work(log: Path, n_lines: int) -> None:
    """Until so many more answers were acknowledged."""
    before = len(acknowledged_in([log]))
    deadline = time.monotonic() + 60
    while len(acknowledged_in([log])) < before + n_lines:
        assert time.monotonic() < deadline, "no writer gets on"
        time.sleep(0.002)


def check(url: str, acknowledged: list[list[str]]) -> None:
    """The database holds what was acknowledged, each once, and its counts are right."""
    assert len(acknowledged) > N_KILLS / 4
    store = Store.open(url)
    with store.read() as session:
        if store.is_sqlite:
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []
        kept = {
            *(("said", one.annotation_id, str(one.n), left_of(one)) for one in session.scalars(select(Revision))),
            *(("final", one.data["annotation"]) for one in session.scalars(select(Event).where(Event.verb == FINAL))),
            *(("token", one.token_hash) for one in session.scalars(select(ApiToken))),
            *(("kept", one.subject) for one in session.scalars(select(Event).where(Event.verb == reviews.KEPT))),
            *(("guidelines", str(one.version), events.digest(one.text)) for one in session.scalars(select(Guidelines))),
            *(("erased", one.name) for one in session.scalars(select(Person).where(Person.erased_at.is_not(None)))),
        }
        assert [line for line in acknowledged if tuple(line) not in kept] == []
        for task in session.scalars(select(Task)):
            said = select(func.count()).where(Annotation.task_id == task.id, Annotation.status == "submitted")
            assert session.scalar(said.where(~Annotation.extra)) == task.n_done <= OVERLAP
        of_erased = select(Revision).join(Annotation, Annotation.id == Revision.annotation_id)
        of_erased = of_erased.join(Person, Person.id == Annotation.person_id).where(Person.erased_at.is_not(None))
        assert [one for one in session.scalars(of_erased) if one.payload != events.without_texts(one.payload)] == []
        versions = session.scalars(select(Guidelines.version).order_by(Guidelines.version)).all()
        assert versions == list(range(1, session.scalars(select(Project.guidelines_version)).one() + 1))
    assert events.verify(store).problems == ()
    store.close()
    print(f"{N_KILLS} kills:", Counter(line[0] for line in acknowledged))


def left_of(revision: Revision) -> str:
    return events.digest(events.without_texts(revision.payload))
