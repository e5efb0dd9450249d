"""Several processes that serve one port: Python runs one thread at a time, so one process uses one core.

Each has its own connections to the database and to browsers; all that they share is the database. They end with the
first process, also when that is killed; one that dies is started again.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from align.serve_rm import listening

END_S = 10.0  # for a worker to answer what it was asked, when all end; then it is killed
AGAIN_S = 1.0  # before one that died is started again

log = logging.getLogger("align.web")


def listening_places(host: str, port: int, n: int) -> list[socket.socket]:
    """A socket for each worker, all at one port. Raises `UserError` as `listening` does.

    With one socket for all, the worker that wakes first would take in whatever has come; here the system deals out.
    """
    alone: socket.socket = listening(host, port)
    if n == 1:
        return [alone]
    with alone:  # so that the port is nobody else's, which sharing would hide
        port = alone.getsockname()[1]
    return [listening(host, port, shared=True) for _ in range(n)]


def supervise(places: Sequence[socket.socket], work: Callable[..., None], *args: Any) -> None:
    """Runs `work(place, *args)` in a process for each place, until SIGINT or SIGTERM.

    They are forks of this one, so that one starts at once and shares what was imported: nothing else may be open here
    that they would share, and no thread may run. The places stay open: who connects while a worker is started again
    has to wait, and is not turned away.
    """
    for package in ("gradio", "uvicorn"):  # seconds, and most of the memory
        import_module(package)
    context = multiprocessing.get_context("fork")
    workers: dict[socket.socket, BaseProcess] = {}

    def start(place: socket.socket) -> None:
        workers[place] = context.Process(target=_work, args=(work, place, *args))
        workers[place].start()

    with _told_to_stop():
        try:
            for place in places:
                start(place)
            while True:
                wait([worker.sentinel for worker in workers.values()])
                for place, worker in [one for one in workers.items() if not one[1].is_alive()]:
                    log.error("worker %s ended with %s; starting another", worker.pid, worker.exitcode)
                    time.sleep(AGAIN_S)
                    start(place)
        except KeyboardInterrupt:
            _end(list(workers.values()))


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """SIGTERM is as Ctrl-C. What was before comes back."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(workers: list[BaseProcess]) -> None:
    deadline = time.monotonic() + END_S
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _work(work: Callable[..., None], *args: Any) -> None:
    """In a worker."""
    for sign in (signal.SIGINT, signal.SIGTERM):  # until the server listens to them
        signal.signal(sign, signal.SIG_DFL)
    first = multiprocessing.parent_process()
    assert first is not None

    def end_with_it() -> None:
        first.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_it, daemon=True).start()
    work(*args)
