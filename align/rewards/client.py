"""A reward server: answers are sent to it over HTTP, their scores come back.

    POST <url>  {"prompts": ["...", [{"role": "user", "content": "..."}]], "responses": ["...", "..."]}
    200         {"scores": [0.5, -1.2]}

A prompt is a string where it is a single turn of the user, else its messages. What these say of thoughts and tools has
the names that rows have for it: `reasoning_content`, `tool_calls`, `name`, `tool_call_id`, and a first turn of the role
`tools` whose content is the list of functions as JSON. `python -m align.serve_rm` answers so, and any other server may.
One that is down, slow or busy is asked again after a wait that doubles; what it then still does not answer, or answers
wrongly, is a `RewardError` that names it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx

from align.errors import RewardError, UserError
from align.rewards.http import Refused, Response, Server, Unanswered, shown
from align.rewards.reward import Prompts, checked_scores
from align.text.records import plain


class HttpReward:
    """Scores that a server gives.

    Args:
        url: where it takes POST requests.
        timeout_s: how long it may take for one, from connecting to the last byte.
        retries: how often it is asked again.
        batch: answers in one request.
    """

    def __init__(self, url: str, timeout_s: float, retries: int, batch: int) -> None:
        self.url, self.batch = url, batch
        self.name = f"reward server {url}"
        try:
            self.server = Server(url, timeout_s, retries)
        except httpx.InvalidURL as error:
            raise UserError(f"reward.url = {url!r} is no address: {error}") from None

    def score(self, prompts: Prompts, texts: Sequence[str], ids: Sequence[list[int]]) -> list[float]:
        asked = [plain(tuple(messages)) for messages in prompts]
        scores: list[float] = []
        for first in range(0, len(texts), self.batch):
            part = slice(first, first + self.batch)
            scores += self._request(asked[part], list(texts[part]))
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
            return self.server.ask(body)
        except Refused as refusal:
            raise RewardError(f"{self.name} {refusal}{_remedy(refusal.status)}") from None
        except Unanswered as silence:
            raise RewardError(
                f"{self.name} {silence}. See that it runs and answers, then raise reward.timeout_s (now "
                f"{self.server.timeout_s:g}) or reward.retries (now {self.server.retries}), lower reward.url_batch "
                f"(now {self.batch}), or name another reward.url"
            ) from None

    def _garbage(self, response: Response) -> RewardError:
        return RewardError(
            f'{self.name} answered {shown(response.content)}; it must answer {{"scores": [...]}}, a number for each '
            "answer. Is this the address of a reward server, with its path, as http://127.0.0.1:8000/score?"
        )


def _remedy(status: int) -> str:
    known = {
        200: "; is it a reward server?",
        404: ". reward.url needs the path too, as http://127.0.0.1:8000/score",
        405: ". reward.url must take POST requests, as http://127.0.0.1:8000/score does",
        413: ". Lower reward.url_batch, or raise the server's limits",
        422: ". Lower data.max_tokens or rollout.max_tokens if answers are too long, or mend the server",
    }
    moved = ". The server sends elsewhere: give that address as reward.url" if 300 <= status < 400 else ""
    return known.get(status, moved or ". See the server's own log")
