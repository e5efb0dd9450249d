"""Client of a reward server: sends answers over HTTP and reads their scores.

    POST <url>  {"prompts": ["...", [{"role": "user", "content": "..."}]], "responses": ["...", "..."]}
    200         {"scores": [0.5, -1.2]}

A prompt is a string if it is a single user message, else a list of messages. Thoughts and tools have the keys of data
rows: `reasoning_content`, `tool_calls`, `name`, `tool_call_id`, and a first message of role `tools` with the list of
functions as JSON. `align serve_rm` is such a server; any other server may follow the same protocol. Requests to a
server that is down, slow or busy are retried after a wait that doubles. After the last retry, or for a wrong response,
`RewardError` names the server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx

from align.errors import RewardError, UserError
from align.rewards.http import NoResponse, RequestRefused, Response, Server, excerpt
from align.rewards.reward import Prompts, checked_scores
from align.text.records import plain


class HttpReward:
    """Scores from a reward server.

    Args:
        url: takes POST requests.
        timeout_s: limit for one request, from connecting to the last byte.
        retries: how often a request is repeated.
        batch: answers per request.
    """

    def __init__(self, url: str, timeout_s: float, retries: int, batch: int) -> None:
        self.url, self.batch = url, batch
        self.name = f"reward server {url}"
        try:
            self.server = Server(url, timeout_s, retries)
        except httpx.InvalidURL as error:
            raise UserError(f"reward.url = {url!r} is not a valid address: {error}") from None

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        as_json = [plain(tuple(messages)) for messages in prompts]
        scores: list[float] = []
        for first in range(0, len(texts), self.batch):
            part = slice(first, first + self.batch)
            scores += self._request(as_json[part], list(texts[part]))
        return scores

    def _request(self, prompts: list[Any], texts: list[str]) -> list[float]:
        response = self._response({"prompts": prompts, "responses": texts})
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            raise self._garbage(response) from None
        if not (isinstance(answer, dict) and isinstance(answer.get("scores"), list)):
            raise self._garbage(response)
        return checked_scores(answer["scores"], texts, self.name)

    def _response(self, body: dict[str, Any]) -> Response:
        try:
            return self.server.post(body)
        except RequestRefused as refusal:
            raise RewardError(f"{self.name} {refusal}{_remedy(refusal.status)}") from None
        except NoResponse as error:
            raise RewardError(
                f"{self.name} {error}. Check that it runs and responds; then raise reward.timeout_s (now "
                f"{self.server.timeout_s:g}) or reward.retries (now {self.server.retries}), lower reward.url_batch "
                f"(now {self.batch}), or set another reward.url"
            ) from None

    def _garbage(self, response: Response) -> RewardError:
        return RewardError(
            f'{self.name} answered {excerpt(response.content)}; it must answer {{"scores": [...]}}, a number for each '
            "answer. Check that reward.url is a reward server with its path, such as http://127.0.0.1:8000/score"
        )


def _remedy(status: int) -> str:
    known = {
        200: ". Check that it is a reward server",
        404: ". reward.url needs the path too, such as http://127.0.0.1:8000/score",
        405: ". reward.url must take POST requests, as http://127.0.0.1:8000/score does",
        413: ". Lower reward.url_batch, or raise the server's limits",
        422: ". Lower data.max_tokens or rollout.max_tokens if answers are too long, or fix the server",
    }
    moved = ". The server redirects: set reward.url to the new address" if 300 <= status < 400 else ""
    return known.get(status, moved or ". See the server's own log")
