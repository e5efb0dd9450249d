"""Whose turn it is to write: among the threads of a process, and among processes that share a SQLite file."""

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


class Line:
    """A lock that is had in the order of asking; `threading.Lock` lets anybody overtake."""

    def __init__(self) -> None:
        self._inside = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()  # each is locked until its turn

    def acquire(self, timeout: float) -> bool:
        """Whether it was had within `timeout` seconds."""
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
        return True  # it came in this very moment

    def release(self) -> None:
        """Hands it on."""
        with self._inside:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False


class Turn:
    """Whose turn it is to write to SQLite, which by itself lets writers poll, and one that never pauses go on for ever.

    Threads stand in a line, so that none waits longer than those before it take. Processes, such as a server and an
    import, pass a turnstile, a locked file beside the database, and hold it only until they may write: who has just
    written finds the next one standing in it. The kernel opens it when a process dies. PostgreSQL's lock is a line.
    """

    def __init__(self, path: Path | None) -> None:
        self._threads = Line()
        self._file = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def of_this_thread(self) -> Iterator[None]:
        """Raises `Unavailable` when it does not come within `WAIT_S`."""
        if not self._threads.acquire(WAIT_S):
            raise Unavailable(BUSY)
        try:
            yield
        finally:
            self._threads.release()

    @contextmanager
    def of_this_process(self) -> Iterator[None]:
        """The same among processes, where the system can lock files."""
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
        """Lets go of the file."""
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
