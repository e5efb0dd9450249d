"""HTTP requests with retries: POST JSON to a server, with retries while it is down, slow or busy.

Callers parse the response and report errors: `align.rewards.client`, `align.judges.llm`.
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from time import monotonic, sleep, time
from typing import Any, NamedTuple

import httpx

FIRST_WAIT_S = 0.5  # before the first retry; doubled each time
LONGEST_WAIT_S = 30.0
MOST_BYTES = 2**24  # of a response
BUSY = 429
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Response(NamedTuple):
    """A server's response."""

    status: int
    content: bytes
    wait_s: float  # from Retry-After; 0 without it


class NoResponse(Exception):
    """No response after all retries. The text says what happened last."""


class RequestRefused(Exception):
    """A response that a retry would not change. The text shows it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Server:
    """A server to send requests to. Threads may share it.

    Args:
        url: takes POST requests. Raises `httpx.InvalidURL` for an invalid address.
        timeout_s: limit for one request, from connecting to the last byte.
        retries: how often a request is repeated.
        headers: sent with each request.
    """

    def __init__(self, url: str, timeout_s: float, retries: int, headers: dict[str, str] | None = None) -> None:
        self.url, self.timeout_s, self.retries = url, timeout_s, retries
        on_this_machine = httpx.URL(url).host in LOOPBACK  # no proxy for this machine
        self.client = httpx.Client(timeout=timeout_s, trust_env=not on_this_machine, headers=headers)

    def post(self, body: dict[str, Any]) -> Response:
        """The response of status 200. Retries on no response, 429 and 5xx.

        Raises `NoResponse` after the last retry, and `RequestRefused` at once for any other status.
        """
        wait_s = FIRST_WAIT_S
        for attempt in range(self.retries + 1):
            asked_for_s = 0.0
            try:
                response = self._posted(body)
            except httpx.TimeoutException:
                reason = f"did not answer within {self.timeout_s:g} s"
            except httpx.HTTPError as error:
                reason = f"cannot be reached ({type(error).__name__}: {error})"
            else:
                if response.status == 200:
                    return response
                reason = f"answered with status {response.status}: {excerpt(response.content)}"
                if response.status != BUSY and response.status < 500:
                    raise RequestRefused(response.status, reason)
                asked_for_s = response.wait_s
            if attempt < self.retries:
                sleep(min(max(wait_s, asked_for_s), LONGEST_WAIT_S))
                wait_s *= 2
        raise NoResponse(f"{reason}; tried {f'{self.retries + 1} times' if self.retries else 'once'}")

    def _posted(self, body: dict[str, Any]) -> Response:
        """One request. The timeout bounds its total time, since a server may send single bytes forever."""
        ends = monotonic() + self.timeout_s
        with self.client.stream("POST", self.url, json=body) as answer:
            content = b""
            for chunk in answer.iter_bytes():
                content += chunk
                if monotonic() > ends:
                    raise httpx.ReadTimeout("the response takes too long")
                if len(content) > MOST_BYTES:
                    raise RequestRefused(answer.status_code, f"sends more than {MOST_BYTES} bytes")
            return Response(answer.status_code, content, _wait_s(answer.headers.get("retry-after", "")))


def excerpt(content: bytes) -> str:
    """A response for an error message: its `detail` or `error`, or else its beginning."""
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
