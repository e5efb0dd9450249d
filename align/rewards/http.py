"""Asking a server over HTTP: JSON goes there by POST, bytes come back; one that is down, slow or busy is asked again.

What an answer means, and how trouble is reported, is up to the caller: `align.rewards.client`, `align.judges.llm`.
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from time import monotonic, sleep, time
from typing import Any, NamedTuple

import httpx

FIRST_WAIT_S = 0.5  # before a server is asked again; doubled each time
LONGEST_WAIT_S = 30.0
MOST_BYTES = 2**24  # of an answer
BUSY = 429
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Response(NamedTuple):
    """What a server answered."""

    status: int
    content: bytes
    wait_s: float  # that it asked for, in Retry-After; 0 if it did not


class Unanswered(Exception):
    """No answer, however often it was asked. Its text says what happened the last time."""


class Refused(Exception):
    """An answer that asking again would not change. Its text shows it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Server:
    """Where requests go. Threads may share it.

    Args:
        url: where it takes POST requests. Raises `httpx.InvalidURL` for what is no address.
        timeout_s: how long it may take for one, from connecting to the last byte.
        retries: how often it is asked again.
        headers: sent with each request.
    """

    def __init__(self, url: str, timeout_s: float, retries: int, headers: dict[str, str] | None = None) -> None:
        self.url, self.timeout_s, self.retries = url, timeout_s, retries
        on_this_machine = httpx.URL(url).host in LOOPBACK  # no proxy on the way to oneself
        self.client = httpx.Client(timeout=timeout_s, trust_env=not on_this_machine, headers=headers)

    def ask(self, body: dict[str, Any]) -> Response:
        """Its answer of status 200; asks again while there is none, or one that says to come back later.

        Raises `Unanswered` after the last retry, and `Refused` at once for any other status.
        """
        wait_s = FIRST_WAIT_S
        for attempt in range(self.retries + 1):
            asked_for_s = 0.0
            try:
                response = self._posted(body)
            except httpx.TimeoutException:
                trouble = f"did not answer within {self.timeout_s:g} s"
            except httpx.HTTPError as error:
                trouble = f"cannot be reached ({type(error).__name__}: {error})"
            else:
                if response.status == 200:
                    return response
                trouble = f"answered with status {response.status}: {shown(response.content)}"
                if response.status != BUSY and response.status < 500:
                    raise Refused(response.status, trouble)
                asked_for_s = response.wait_s
            if attempt < self.retries:
                sleep(min(max(wait_s, asked_for_s), LONGEST_WAIT_S))
                wait_s *= 2
        raise Unanswered(f"{trouble}; it was asked {f'{self.retries + 1} times' if self.retries else 'once'}")

    def _posted(self, body: dict[str, Any]) -> Response:
        """One request. Its time is bounded as a whole: a server may send a byte now and then for ever."""
        ends = monotonic() + self.timeout_s
        with self.client.stream("POST", self.url, json=body) as answer:
            content = b""
            for piece in answer.iter_bytes():
                content += piece
                if monotonic() > ends:
                    raise httpx.ReadTimeout("the answer takes too long")
                if len(content) > MOST_BYTES:
                    raise Refused(answer.status_code, f"sends more than {MOST_BYTES} bytes")
            return Response(answer.status_code, content, _wait_s(answer.headers.get("retry-after", "")))


def shown(content: bytes) -> str:
    """An answer for a message: its `detail` or `error`, as servers put a reason, or its beginning."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        given = json.loads(content)
        detail = given.get("detail", given.get("error", text))
        detail = detail.get("message", detail) if isinstance(detail, dict) else detail
    except (ValueError, AttributeError, RecursionError):
        detail = text
    found = detail if isinstance(detail, str) else json.dumps(detail)
    return repr(found[:300]) if found else "nothing"


def _wait_s(asked_for: str) -> float:
    """Retry-After: seconds, or the time to come back at (RFC 9110, 10.2.3). 0 for anything else."""
    if asked_for.isdigit():
        return float(asked_for)
    try:
        return max(0.0, parsedate_to_datetime(asked_for).timestamp() - time())
    except ValueError:
        return 0.0
