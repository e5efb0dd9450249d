"""Computing the lead's figures in a separate process at low priority.

They take seconds of arithmetic, during which Python rarely lets other threads run: all annotators would wait. The
process starts with the first call and ends with the server, even if that is killed.
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

NICENESS = 10  # added to its niceness


class BackgroundCompute:
    """Calls `lead.computed` in another process, one call at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: Connection | None = None

    def __call__(self, store: Store, project_id: int, gold_pass: float) -> Computed:
        """The figures of a project. Raises `Refused` if the process failed; the next call starts another."""
        with self._lock:
            if self._pipe is None:
                self._pipe = _started(store.engine.url.render_as_string(hide_password=False))
            try:
                self._pipe.send((project_id, gold_pass))
                answer = self._pipe.recv()
            except (EOFError, OSError):
                self._pipe.close()
                self._pipe = None
                raise Refused("the figures were not computed because their process ended; try again") from None
        if isinstance(answer, UserError):
            raise answer
        found: Computed = answer
        return found


def _started(url: str) -> Connection:
    """Starts the process and returns our end of its pipe."""
    new = get_context("spawn")  # a fork would copy the server's locks in whatever state they are
    ours, theirs = new.Pipe()
    new.Process(target=_answer, args=(theirs, url), daemon=True).start()
    theirs.close()
    return ours


def _answer(pipe: Connection, url: str) -> None:
    """The process's loop: answers calls until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    os.nice(NICENESS)
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
            answer = Refused("the figures could not be computed; see the server's log")
        try:
            pipe.send(answer)
        except OSError:
            return
