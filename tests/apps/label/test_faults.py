"""What the world does to a server that goes on running: disks fill up, databases go away, clocks jump."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from label_crowd import Notes, reckon
from offices import Clock, assert_counts, new_id, ranking
from processes import Served, more, pool
from served import Member, Place

pytestmark = pytest.mark.slow

TEN_YEARS_S = 10 * 365 * 86400.0
NAMES = [f"person {n}" for n in range(4)]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], Served]]:
    """Serves a database; at the end the log must hold no traceback."""
    begun: list[Served] = []

    def start(database: str) -> Served:
        served = Served(tmp_path, database, NAMES, 500, overlap=2)
        served.start()
        begun.append(served)
        served.wait()
        return served

    yield start
    for served in begun:
        served.stop()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 12 MB that everybody may reach."""
    folder = Path(tempfile.mkdtemp(prefix="disk-", dir="/tmp"))
    folder.chmod(0o755)
    may_mount = os.getuid() == 0 and shutil.which("mount") is not None
    if not may_mount or os.system(f"mount -t tmpfs -o size=12m tmpfs {folder} 2>/dev/null") != 0:
        folder.rmdir()
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    os.system(f"umount {folder}")
    folder.rmdir()


def fill(path: Path) -> None:
    """Writes until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 512):
            pass


async def survives(served: Served, fail: Callable[[], Any], mend: Callable[[], Any], times: int) -> Notes:
    """Lets people work; the fault comes and goes, each time until everybody met it and then got on again."""
    async with pool(served, NAMES) as notes:
        for _ in range(times):
            await more(lambda: len(notes.saved), 6)
            await asyncio.to_thread(fail)
            await more(notes.failures.total, 3 * len(NAMES))
            await asyncio.to_thread(mend)
        await more(lambda: len(notes.saved), 6)
    return notes


def assert_told(notes: Notes, words: str) -> None:
    """Whatever failed was told as 503, in words for people, and nothing else went wrong."""
    assert notes.failures
    assert not notes.refusals
    for failure in notes.failures:
        assert ": 503 " in failure, failure
        assert words in failure


def test_a_server_that_may_write_no_more(serve: Any, tmp_path: Path) -> None:
    """As over a quota: the system refuses whatever goes beyond a size, in the middle of a write too."""
    served: Served = serve(str(tmp_path / "labels.db"))
    chance, log = random.Random(1), tmp_path / "labels.db-wal"

    def fail() -> None:
        end = log.stat().st_size  # about where the next transaction goes, until the log begins anew at 1,000 pages
        served.limit_files(max(0, end + chance.randint(-9000, 9000)) if end < 4_000_000 else chance.randint(0, 400_000))

    notes = asyncio.run(survives(served, fail, lambda: served.limit_files(-1), 4))
    assert reckon(served.database, notes).problems == []
    assert_told(notes, "disk is full or fails")


def test_a_full_disk_under_the_server(small_disk: Path, serve: Any) -> None:
    served: Served = serve(str(small_disk / "labels.db"))
    filler = small_disk / "filler"
    notes = asyncio.run(survives(served, lambda: fill(filler), filler.unlink, 3))
    assert reckon(served.database, notes).problems == []
    assert_told(notes, "disk is full")


def test_a_database_that_goes_away_and_comes_back(serve: Any, cluster: Any) -> None:
    url = cluster.new("served_and_gone")
    served: Served = serve(url)
    alive = served.process.pid
    notes = asyncio.run(survives(served, cluster.stop, cluster.start, 2))
    assert served.process.pid == alive
    assert served.process.exitcode is None
    assert reckon(url, notes).problems == []
    assert_told(notes, "The database cannot be reached.")
    assert not any("postgres" in failure or str(cluster.folder) in failure for failure in notes.failures)
    assert str(cluster.folder) in served.log.read_text()


def test_a_full_disk_of_a_database_server(small_disk: Path, serve: Any, cluster: Any) -> None:
    """PostgreSQL keeps this database's tables on a small disk."""
    if cluster.owner:
        shutil.chown(small_disk, cluster.owner, cluster.owner)
    url = cluster.new_on(small_disk, "served_on_a_small_disk")
    filler = small_disk / "filler"
    try:
        served: Served = serve(url)
        notes = asyncio.run(survives(served, lambda: fill(filler), filler.unlink, 2))
        assert reckon(url, notes).problems == []
        assert_told(notes, "disk is full")
        served.stop()
    finally:
        cluster.drop("served_on_a_small_disk")


def test_a_clock_that_jumps_ahead_and_back(make_place: Callable[..., Place]) -> None:
    """Everybody has to log in again; the draft is there, nobody is locked out, and one ranking counts."""
    place, clock = make_place(overlap=1, session_hours=2), Clock()
    place.project.store.clock = clock
    place.tasks(1)
    ann, bob = place.member("Ann"), place.member("Bob")
    mine = ann.call("POST", "claim", {}).json()["task"]
    ann.call("PUT", "draft", {"task": mine["id"], "rev": 1, "payload": {"comment": "half"}})
    clock.now += TEN_YEARS_S
    assert [one.call("POST", "claim", {}).status_code for one in (ann, bob)] == [401, 401]
    bob = again(place, bob)
    theirs = bob.call("POST", "claim", {}).json()["task"]
    assert theirs["id"] == mine["id"]
    clock.now -= TEN_YEARS_S
    assert bob.call("POST", "claim", {}).status_code == 401
    ann, bob = again(place, ann), again(place, bob)
    told = ann.call("POST", "claim", {}).json()
    assert (told["nothing"], told["retry_at"]) == ("held", clock.now + 900)
    clock.now += 900
    mine = ann.call("POST", "claim", {}).json()["task"]
    assert (mine["id"], mine["draft"]) == (theirs["id"], {"comment": "half"})
    assert submit(ann, mine)["saved"]
    assert submit(bob, theirs)["saved"]  # too late to count, and kept
    assert_counts(place.project)  # type: ignore[arg-type]


def again(place: Place, member: Member) -> Member:
    """The same person, logged in anew."""
    return Member(member.who, place.client(place.token(member.who.name)))


def submit(member: Member, task: Any) -> Any:
    body = {"id": new_id(), "task": task["id"], "lease": task["lease"], "payload": ranking(1, 2, 3, 4), "seconds": 5}
    return member.call("POST", "submit", body).json()
