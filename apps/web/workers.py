"""Worker processes that serve one port. Python runs one thread at a time, so one process uses one core.

Each worker has its own connections to the database and to browsers; they share only the database. Workers end with the
parent process, even if that is killed; a worker that dies is restarted.
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

END_S = 10.0  # for a worker to finish its requests at shutdown; then it is killed
AGAIN_S = 1.0  # before a dead worker is restarted

log = logging.getLogger("align.web")


def listening_sockets(host: str, port: int, n: int) -> list[socket.socket]:
    """One socket per worker, all on one port. Raises `UserError` like `listening`.

    With one shared socket, the worker that wakes first would accept all waiting connections; here the kernel balances.
    """
    alone: socket.socket = listening(host, port)
    if n == 1:
        return [alone]
    with alone:  # first without sharing, to find out whether another program has the port
        port = alone.getsockname()[1]
    return [listening(host, port, shared=True) for _ in range(n)]


def supervise(places: Sequence[socket.socket], work: Callable[..., None], *args: Any) -> None:
    """Runs `work(place, *args)` in a process per socket, until SIGINT or SIGTERM.

    Workers are forks, so that they start at once and share imported modules: the parent must have no other open
    resources and no threads. The sockets stay open: clients that connect while a worker restarts wait instead of
    failing.
    """
    for package in ("gradio", "uvicorn"):  # takes seconds and most of the memory
        import_module(package)
    context = multiprocessing.get_context("fork")
    workers: dict[socket.socket, BaseProcess] = {}

    def start(place: socket.socket) -> None:
        workers[place] = context.Process(target=_work, args=(work, place, *args))
        workers[place].start()

    with _sigterm_as_interrupt():
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
def _sigterm_as_interrupt() -> Iterator[None]:
    """Handles SIGTERM like Ctrl-C; restores the old handler afterwards."""
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
    """The main function of a worker."""
    for sign in (signal.SIGINT, signal.SIGTERM):  # until the server installs its own handlers
        signal.signal(sign, signal.SIG_DFL)
    first = multiprocessing.parent_process()
    assert first is not None

    def end_with_it() -> None:
        first.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_it, daemon=True).start()
    work(*args)
