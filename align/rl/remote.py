"""A reward server: answers are sent to it over HTTP, their scores come back.

    POST <url>  {"prompts": ["...", [{"role": "user", "content": "..."}]], "responses": ["...", "..."]}
    200         {"scores": [0.5, -1.2]}

A prompt is a string where it is a single turn of the user, else its messages. `python -m align.serve_rm` answers so,
and any other server may. One that is down, slow or busy is asked again after a wait that doubles; what it then still
does not answer, or answers wrongly, is a `RewardError` that names it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any, NamedTuple

import httpx

from align.errors import RewardError, UserError
from align.rl.rewards import Prompts, checked_scores
from align.text.records import plain

FIRST_WAIT_S = 0.5  # before a server is asked again; doubled each time
LONGEST_WAIT_S = 30.0
MOST_BYTES = 2**24  # of an answer: a server that sends more sends no scores
BUSY = 429
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Response(NamedTuple):
    """What a server answered."""

    status: int
    content: bytes
    wait_s: float  # that it asked for, in Retry-After; 0 if it did not


class HttpReward:
    """Scores that a server gives.

    Args:
        url: where it takes POST requests.
        timeout_s: how long it may take for one, from connecting to the last byte.
        retries: how often it is asked again.
        batch: answers in one request.
    """

    def __init__(self, url: str, timeout_s: float, retries: int, batch: int) -> None:
        self.url, self.timeout_s, self.retries, self.batch = url, timeout_s, retries, batch
        self.name = f"reward server {url}"
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL as error:
            raise UserError(f"reward.url = {url!r} is no address: {error}") from None
        self.client = httpx.Client(timeout=timeout_s, trust_env=host not in LOOPBACK)  # no proxy on the way to oneself

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        asked = [plain(tuple(messages)) for messages in prompts]
        scores: list[float] = []
        for first in range(0, len(texts), self.batch):
            part = slice(first, first + self.batch)
            scores += self._request(asked[part], list(texts[part]))
        return scores

    def _request(self, prompts: list[Any], texts: list[str]) -> list[float]:
        response = self._asked_again({"prompts": prompts, "responses": texts})
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            raise self._garbage(response) from None
        if not (isinstance(answer, dict) and isinstance(answer.get("scores"), list)):
            raise self._garbage(response)
        return checked_scores(answer["scores"], texts, self.name)

    def _asked_again(self, body: dict[str, Any]) -> Response:
        """The server's answer; asks again while there is none, or one that says to come back later."""
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
                trouble = f"answered with status {response.status}: {_shown(response.content)}"
                if response.status != BUSY and response.status < 500:
                    raise RewardError(f"{self.name} {trouble}{_remedy(response.status)}")
                asked_for_s = response.wait_s
            if attempt < self.retries:
                sleep(min(max(wait_s, asked_for_s), LONGEST_WAIT_S))
                wait_s *= 2
        times = f"{self.retries + 1} times" if self.retries else "once"
        raise RewardError(
            f"{self.name} {trouble}; it was asked {times}. See that it runs and answers, then raise reward.timeout_s "
            f"(now {self.timeout_s:g}) or reward.retries (now {self.retries}), lower reward.url_batch (now "
            f"{self.batch}), or name another reward.url"
        )

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
                    raise RewardError(f"{self.name} sends more than {MOST_BYTES} bytes; is it a reward server?")
            asked_for = answer.headers.get("retry-after", "")
            return Response(answer.status_code, content, float(asked_for) if asked_for.isdigit() else 0.0)

    def _garbage(self, response: Response) -> RewardError:
        return RewardError(
            f'{self.name} answered {_shown(response.content)}; it must answer {{"scores": [...]}}, a number for each '
            "answer. Is this the address of a reward server, with its path, as http://127.0.0.1:8000/score?"
        )


def _shown(content: bytes) -> str:
    """An answer for a message: its `detail`, as web frameworks put a reason, or its beginning."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        detail = json.loads(content).get("detail", text)
    except (ValueError, AttributeError, RecursionError):
        detail = text
    shown = detail if isinstance(detail, str) else json.dumps(detail)
    return repr(shown[:300]) if shown else "nothing"


def _remedy(status: int) -> str:
    known = {
        404: ". reward.url needs the path too, as http://127.0.0.1:8000/score",
        405: ". reward.url must take POST requests, as http://127.0.0.1:8000/score does",
        413: ". Lower reward.url_batch, or raise the server's limits",
        422: ". Lower data.max_tokens or rollout.max_tokens if answers are too long, or mend the server",
    }
    moved = ". The server sends elsewhere: give that address as reward.url" if 300 <= status < 400 else ""
    return known.get(status, moved or ". See the server's own log")
