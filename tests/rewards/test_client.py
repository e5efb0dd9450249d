"""A reward server that is down, slow, busy or wrong: asked again where that helps, always told by its address."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from servers import Reply, Server

from align.errors import RewardError, UserError
from align.rewards import http
from align.rewards.client import HttpReward
from align.text.records import Message

pytestmark = pytest.mark.heavy

PROMPTS = [[Message("user", "say red")], [Message("system", "be kind"), Message("user", "say blue")]]
TEXTS = ["red", "blue"]


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Starts servers, which are stopped at the end. Nobody waits long to ask again."""
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    started: list[Server] = []

    def start(reply: Callable[[dict[str, Any], int], Reply]) -> Server:
        started.append(Server(reply))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def lengths(body: dict[str, Any], number: int) -> Reply:
    return 200, {"scores": [float(len(text)) for text in body["responses"]]}


def ask(url: str, timeout_s: float = 60.0, retries: int = 2, batch: int = 64) -> list[float]:
    return HttpReward(url, timeout_s, retries, batch).score(PROMPTS, TEXTS, [[], []])


def refusal(url: str, **keys: Any) -> str:
    with pytest.raises(RewardError) as refused:
        ask(url, **keys)
    assert url in str(refused.value)
    return str(refused.value)


def test_scores_come_back_and_prompts_go_as_text_or_messages(serve):
    server = serve(lengths)
    assert ask(server.url) == [3.0, 4.0]
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "say blue"}]
    assert server.asked == [{"prompts": ["say red", turns], "responses": TEXTS}]


def test_many_answers_go_in_several_requests_and_keep_their_order(serve):
    server = serve(lengths)
    texts = ["x" * number for number in range(7)]
    scores = HttpReward(server.url, 5.0, 0, 3).score([PROMPTS[0]] * 7, texts, [[]] * 7)
    assert scores == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert [len(body["responses"]) for body in server.asked] == [3, 3, 1]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_stumbles_is_asked_again(serve, status):
    server = serve(lambda body, number: lengths(body, number) if number == 3 else (status, {"detail": "not now"}))
    assert ask(server.url) == [3.0, 4.0]
    assert len(server.asked) == 3


def test_a_server_that_always_fails_is_named_with_what_it_said(serve):
    server = serve(lambda body, number: (500, {"detail": "scoring failed: out of memory"}))
    told = refusal(server.url)
    assert "answered with status 500: 'scoring failed: out of memory'; tried 3 times" in told
    assert "raise reward.timeout_s (now 60) or reward.retries (now 2)" in told
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (None, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
        ("3", [3.0, 3.0, 3.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
        ("9999", [30.0] * 8),
        ("Wed, 21 Oct 2026 07:28:00 GMT", [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
    ],
)
def test_waits_double_and_retry_after_is_heeded(serve, monkeypatch, retry_after, expected):
    waits: list[float] = []
    server = serve(lambda body, number: (503, b""))
    server.retry_after = retry_after
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.5)
    monkeypatch.setattr(http, "sleep", waits.append)
    refusal(server.url, retries=8)
    assert waits == expected


def test_a_server_that_is_down_is_told():
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    told = refusal(f"http://127.0.0.1:{port}/score", retries=0)
    assert "cannot be reached (ConnectError: " in told
    assert "tried once" in told


def test_a_server_that_is_silent_is_told(serve):
    is_told = threading.Event()
    server = serve(lambda body, number: (is_told.wait(60), lengths(body, number))[1])  # who waits is answered
    assert "did not answer within 0.2 s; tried 2 times" in refusal(server.url, timeout_s=0.2, retries=1)
    is_told.set()


def test_a_server_that_drips_is_told(serve):
    """Each piece comes in time, the whole never does."""
    server = serve(lambda body, number: (200, b" " * 64_000))
    server.pause_s = 0.05
    started = time.monotonic()
    assert "did not answer within 0.3 s" in refusal(server.url, timeout_s=0.3, retries=0)
    assert time.monotonic() - started < 25  # half of what the whole takes


def test_a_server_that_never_ends_is_told(serve, monkeypatch):
    monkeypatch.setattr(http, "MOST_BYTES", 1000)
    server = serve(lambda body, number: (200, b"x" * 100_000))
    assert "sends more than 1000 bytes. Check that it is a reward server" in refusal(server.url)


@pytest.mark.parametrize(
    "garbage",
    [b"<html>Welcome</html>", b"", b"\xff\xfe", b"[" * 100_000, [1.0, 2.0], {"score": [1.0, 2.0]}, {"scores": 1}],
)
def test_garbage_is_shown_and_not_asked_for_again(serve, garbage):
    server = serve(lambda body, number: (200, garbage))
    assert 'it must answer {"scores": [...]}' in refusal(server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([1.0], "returned 1 scores for 2 answers"),
        ([1.0, None], "returned no number"),
        ([1.0, "good"], "returned no number"),
        ([1.0, float("nan")], "returned nan for the answer 'blue'; every score must be finite"),
        ([float("inf"), 1.0], "returned inf for the answer 'red'"),
    ],
)
def test_scores_that_cannot_be_used_are_told(serve, scores, told):
    assert told in refusal(serve(lambda body, number: (200, {"scores": scores})).url)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (404, "reward.url needs the path too"),
        (405, "reward.url must take POST"),
        (413, "Lower reward.url_batch"),
        (422, "Lower data.max_tokens"),
        (307, "The server redirects"),
        (401, "See the server's own log"),
    ],
)
def test_a_refusal_is_not_asked_again_and_has_its_remedy(serve, status, remedy):
    server = serve(lambda body, number: (status, {"detail": "no"}))
    told = refusal(server.url)
    assert f"answered with status {status}: 'no'. {remedy}" in told
    assert len(server.asked) == 1


def test_an_address_that_is_none_is_told():
    with pytest.raises(UserError, match="is not a valid address"):
        HttpReward("http://here:score", 1.0, 0, 1)


def test_a_server_may_name_the_time_to_come_back_at(monkeypatch):
    """Retry-After's other form (RFC 9110, 10.2.3)."""
    then = format_datetime(datetime.fromtimestamp(1000, UTC), usegmt=True)
    monkeypatch.setattr(http, "time", lambda: 990.0)
    assert http._wait_s(then) == 10
    monkeypatch.setattr(http, "time", lambda: 1010.0)
    assert http._wait_s(then) == 0
    assert http._wait_s("soon") == 0
