"""The fair write lock."""

from __future__ import annotations

import threading
import time

from apps.store.write_lock import FairLock


def test_a_line_is_had_in_the_order_of_asking() -> None:
    line, order = FairLock(), list[int]()
    assert line.acquire(1)

    def ask(n: int) -> None:
        assert line.acquire(10)
        order.append(n)
        line.release()

    threads = []
    for n in range(20):
        threads.append(threading.Thread(target=ask, args=(n,)))
        threads[-1].start()
        while len(line._waiting) <= n:
            time.sleep(0.001)
    line.release()
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_who_waits_too_long_leaves_the_line() -> None:
    line = FairLock()
    assert line.acquire(1)
    assert not line.acquire(0.01)
    line.release()
    assert line.acquire(0.01)
    line.release()
    assert not line._is_taken
