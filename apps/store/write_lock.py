"""A fair write lock: between the threads of a process, and between processes that share a SQLite file."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps.store.errors import Unavailable

WAIT_S = 10.0  # for other writers
BUSY = "the database is busy; nothing was saved, try again in a moment"


class FairLock:
    """A first-come, first-served lock; `threading.Lock` lets threads overtake."""

    def __init__(self) -> None:
        self._inside = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()  # each is locked until its turn

    def acquire(self, timeout: float) -> bool:
        """Whether the lock was acquired within `timeout` seconds."""
        with self._inside:
            if not self._is_taken:
                self._is_taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=timeout):
            return True
        with self._inside:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
        return True  # it was handed over at this moment

    def release(self) -> None:
        """Hands the lock to the next in line."""
        with self._inside:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False


class WriteLock:
    """The write lock of a database. SQLite alone lets writers poll, so that one that never pauses can starve the
    others.

    Threads queue up, so that none waits longer than those before it take. Processes, such as a server and an import,
    also lock a file next to the database and hold it only until they may write: a process that has just written finds
    the next one holding it. The kernel releases it when a process dies. PostgreSQL's own lock is a queue.
    """

    def __init__(self, path: Path | None) -> None:
        self._threads = FairLock()
        self._file = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def among_threads(self) -> Iterator[None]:
        """Holds the lock among threads. Raises `Unavailable` after `WAIT_S`."""
        if not self._threads.acquire(WAIT_S):
            raise Unavailable(BUSY)
        try:
            yield
        finally:
            self._threads.release()

    @contextmanager
    def among_processes(self) -> Iterator[None]:
        """Holds the lock among processes, on SQLite. Raises `Unavailable` after `WAIT_S`."""
        if self._file is None:
            yield
            return
        deadline = time.monotonic() + WAIT_S
        while not self._locked(self._file):
            if time.monotonic() > deadline:
                raise Unavailable(BUSY)
            time.sleep(0.003)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Closes the lock file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @staticmethod
    def _locked(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
