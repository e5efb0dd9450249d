"""The lead's figures in a process of their own, at low priority.

They are seconds of arithmetic, in which Python lets other threads run only now and then: everybody who labels would
wait. The process starts with the first question and ends with the server, also when that is killed.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection

from align.errors import UserError
from apps.label.lead import Computed, computed
from apps.store.engine import Store
from apps.store.errors import Refused

POLITE = 10  # added to its niceness


class Apart:
    """`lead.computed`, elsewhere. One question at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._pipe: Connection | None = None

    def __call__(self, store: Store, project_id: int, gold_pass: float) -> Computed:
        """Raises `Refused` where the process failed; the next question starts another."""
        with self._turn:
            if self._pipe is None:
                self._pipe = _started(store.engine.url.render_as_string(hide_password=False))
            try:
                self._pipe.send((project_id, gold_pass))
                answer = self._pipe.recv()
            except (EOFError, OSError):
                self._pipe.close()
                self._pipe = None
                raise Refused("the figures were not computed, their process ended; try again") from None
        if isinstance(answer, UserError):
            raise answer
        found: Computed = answer
        return found


def _started(url: str) -> Connection:
    """A process that answers at the other end."""
    new = get_context("spawn")  # a fork would have the server's locks, as they were at that moment
    ours, theirs = new.Pipe()
    new.Process(target=_answer, args=(theirs, url), daemon=True).start()
    theirs.close()
    return ours


def _answer(pipe: Connection, url: str) -> None:
    """In the process: answers until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    os.nice(POLITE)
    store: Store | None = None
    while True:
        try:
            project_id, gold_pass = pipe.recv()
        except EOFError:
            return
        answer: Computed | UserError
        try:
            store = store or Store.open(url, create=False)
            answer = computed(store, project_id, gold_pass)
        except UserError as error:
            answer = Refused(str(error))
        except Exception:
            traceback.print_exc()
            answer = Refused("the figures could not be computed; the server's log says why")
        try:
            pipe.send(answer)
        except OSError:
            return
