"""The reward server over real HTTP: batches, limits, refusals, and whoever asks wrongly harms nobody else."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from align.config import build
from align.errors import RewardError, UserError
from align.rewards.client import HttpReward
from align.rewards.scorer import Scored
from align.rewards.server import Batcher, create_app
from align.rewards.settings import Batching, Limits
from align.serve_rm import listening
from align.text.records import Message

pytestmark = pytest.mark.heavy


class Counting:
    """Scores an answer by its length, notes each batch, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, prompts: Any, texts: Any) -> Scored:
        self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        assert self.may_go.wait(120)
        if "too long" in texts:
            raise UserError("the answer 'too long' has 99 tokens")
        if "crash" in texts:
            raise ZeroDivisionError("division by zero")
        return Scored([float(len(text)) for text in texts], [[float(len(text))] for text in texts])


@contextmanager
def served(score: Any, limits: Any = None, batching: Any = None) -> Iterator[str]:
    """A server on a free port, in a thread of its own. Yields its address."""
    limits, batching = build(Limits, limits or {}, "limits"), build(Batching, batching or {}, "batching")
    app = create_app(score, limits, batching, {"model": "runs/rm/model", "max_tokens": 64})
    with listening("127.0.0.1", 0) as place:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def counting() -> Counting:
    return Counting()


def post(url: str, prompts: list[Any], responses: list[Any]) -> httpx.Response:
    return httpx.post(f"{url}/score", json={"prompts": prompts, "responses": responses}, trust_env=False, timeout=60)


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_an_answer_in_two_parts_waits_for_no_acknowledgement():
    with listening("127.0.0.1", 0) as place, socket.create_connection(place.getsockname()):
        accepted, _ = place.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_scores_come_in_the_order_of_the_answers(counting):
    with served(counting) as url:
        turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
        answer = post(url, ["a", turns], ["xxx", ""])
        assert (answer.status_code, answer.json()) == (200, {"scores": [3.0, 0.0]})
        assert post(url, [], []).json() == {"scores": []}
    assert counting.threads == {"scores"}


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TOOL_TURNS = (
    Message("tools", '[{"type": "function", "function": {"name": "weather"}}]'),
    Message("user", "is it warm ?"),
    Message("assistant", "", "I must look.", json.dumps([CALL]), learned=False),
    Message("tool", "-3", name="weather", call_id="c1"),
)


def test_thoughts_and_tools_of_a_prompt_go_whole_from_client_to_model():
    given: list[Any] = []
    with served(lambda prompts, texts: given.extend(prompts) or Scored([0.5], [[0.5]])) as url:
        assert HttpReward(f"{url}/score", 60, 0, 8).score([TOOL_TURNS], ["a"], []) == [0.5]
    assert given == [TOOL_TURNS]


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        (TOOL_TURNS[:3], "must end with a message of the user or of a tool"),
        ((Message("tools", "weather"), TOOL_TURNS[1]), "a list of functions as JSON"),
        ((TOOL_TURNS[1], *TOOL_TURNS[:2]), "must come first"),
        ((TOOL_TURNS[1], Message("tool", "-3", name="\ud800")), "half of a surrogate pair"),
    ],
)
def test_turns_that_no_template_could_write_are_told(counting, turns, told):
    body = {"prompts": [[turn.as_dict() for turn in turns]], "responses": ["a"]}
    with served(counting) as url:
        answer = httpx.post(f"{url}/score", content=json.dumps(body), trust_env=False, timeout=60)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_members_of_an_ensemble_are_told():
    with served(lambda prompts, texts: Scored([1.5] * len(texts), [[1.0, 2.0]] * len(texts))) as url:
        assert post(url, ["a"], ["b"]).json() == {"scores": [1.5], "member_scores": [[1.0, 2.0]]}


def test_health_names_the_model_and_the_limits(counting):
    with served(counting, {"items": 7}) as url:
        told = httpx.get(f"{url}/health", trust_env=False).json()
    assert told["status"] == "ok"
    assert told["model"] == "runs/rm/model"
    assert told["limits"]["items"] == 7
    assert told["n_waiting"] == 0


def test_requests_that_arrive_together_are_scored_together(counting):
    counting.may_go.clear()
    with served(counting, batching={"wait_ms": 0}) as url, ThreadPoolExecutor(20) as pool:
        first = pool.submit(post, url, ["a"], ["first"])
        wait_for(lambda: bool(counting.batches))
        others = [pool.submit(post, url, ["a"], ["x" * number]) for number in range(12)]
        wait_for(lambda: httpx.get(f"{url}/health", trust_env=False).json()["n_waiting"] == 12)
        counting.may_go.set()
        assert first.result().json() == {"scores": [5.0]}
        assert [other.result().json()["scores"] for other in others] == [[float(number)] for number in range(12)]
    assert [len(batch) for batch in counting.batches] == [1, 12]


def test_a_first_request_waits_a_little_for_others(counting):
    with served(counting, batching={"wait_ms": 20_000, "items": 4}) as url, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(post, url, ["a"], ["x"]) for _ in range(4)]
        assert [one.result().status_code for one in asked] == [200] * 4
    assert [len(batch) for batch in counting.batches] == [4]


def test_a_batch_that_is_full_waits_no_longer(counting):
    with served(counting, batching={"wait_ms": 600_000, "items": 3}) as url:
        assert post(url, ["a"] * 3, ["x"] * 3).status_code == 200


def test_the_loop_answers_while_the_model_computes(counting):
    counting.may_go.clear()
    with served(counting) as url, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, url, ["a"], ["x"])
        wait_for(lambda: bool(counting.batches))
        assert httpx.get(f"{url}/health", trust_env=False, timeout=60).status_code == 200
        counting.may_go.set()
        assert asked.result().status_code == 200


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


def test_too_many_answers_and_too_many_characters_are_refused_with_the_limit(counting):
    with served(counting, {"items": 2, "characters": 10}) as url:
        assert "3 answers; at most 2 per request (limits.items)" in refused(post(url, ["a"] * 3, ["b"] * 3), 413)
        assert "11 characters; at most 10" in refused(post(url, ["aaaaa"], ["bbbbbb"]), 413)
        assert post(url, ["aaaaa"], ["bbbbb"]).status_code == 200
    assert counting.batches == [["bbbbb"]]


def test_a_body_without_end_is_not_read_to_its_end(counting):
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(2000):
            sent += 100_000
            yield b"x" * 100_000

    with served(counting, {"characters": 1000}) as url:
        try:
            answer = httpx.post(f"{url}/score", content=pieces(), trust_env=False)
            assert "limits.characters is 1000" in refused(answer, 413)
        except httpx.TransportError:
            pass  # the server has hung up while we were still sending
        assert sent < 100_000_000
        assert post(url, ["a"], ["b"]).status_code == 200


def test_a_full_queue_is_told_at_once_and_answered_later(counting):
    counting.may_go.clear()
    with served(counting, {"queue": 4, "items": 4}, {"wait_ms": 0}) as url, ThreadPoolExecutor(4) as pool:
        first = pool.submit(post, url, ["a"], ["x"])
        wait_for(lambda: bool(counting.batches))
        second = pool.submit(post, url, ["a"] * 3, ["x"] * 3)
        wait_for(lambda: httpx.get(f"{url}/health", trust_env=False).json()["n_waiting"] == 3)
        busy = post(url, ["a"] * 2, ["x"] * 2)
        assert "at most 4 answers may wait (limits.queue)" in refused(busy, 429)
        assert busy.headers["retry-after"] == "1"
        reward = pool.submit(HttpReward(f"{url}/score", 5, 5, 64).score, [[Message("user", "a")]] * 2, ["xx"] * 2, [])
        time.sleep(0.1)
        counting.may_go.set()
        assert first.result().status_code == second.result().status_code == 200
        assert reward.result() == [2.0, 2.0]  # asked again until there was room


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", "send {"),
        (b'{"prompts": ["a"]}', "responses: Field required"),
        (b'{"prompts": ["a"], "responses": [5]}', "responses.0: Input should be a valid string"),
        (b'{"prompts": ["a"], "responses": ["b"], "temperature": 1}', "temperature: Extra inputs"),
        (b'{"prompts": ["a", "b"], "responses": ["c"]}', "2 prompts and 1 responses; give one prompt for each"),
        (b'{"prompts": [[]], "responses": ["c"]}', "prompts.0: a prompt must end with a message of the user"),
        (b'{"prompts": [[{"role": "robot", "content": "x"}]], "responses": ["c"]}', "prompts.0"),
        (b'{"prompts": ["\\ud800"], "responses": ["c"]}', "not valid Unicode (half of a surrogate pair)"),
    ],
)
def test_a_body_that_is_not_what_it_should_be_is_told(counting, body, told):
    with served(counting) as url:
        assert told in refused(httpx.post(f"{url}/score", content=body, trust_env=False), 422)
    assert counting.batches == []


def test_one_bad_request_harms_no_other_in_its_batch(counting):
    with served(counting, batching={"wait_ms": 400}) as url, ThreadPoolExecutor(4) as pool:
        texts = ["fine", "too long", "crash", "good"]
        asked = [pool.submit(post, url, ["a"], [text]) for text in texts]
        answers = dict(zip(texts, (one.result() for one in asked), strict=True))
    assert len(counting.batches[0]) == 4
    assert answers["fine"].json() == answers["good"].json() == {"scores": [4.0]}
    assert refused(answers["too long"], 422) == "the answer 'too long' has 99 tokens"
    assert refused(answers["crash"], 500) == "scoring failed: ZeroDivisionError: division by zero"


def test_a_client_is_told_what_the_server_said(counting):
    with served(counting) as url:
        reward = HttpReward(f"{url}/score", 5, 0, 64)
        with pytest.raises(RewardError, match=r"status 422: \"the answer 'too long' has 99 tokens\"\. Lower data"):
            reward.score([[Message("user", "a")]], ["too long"], [])
        with pytest.raises(RewardError, match=r"status 404: 'Not Found'\. reward\.url needs the path too"):
            HttpReward(url, 5, 0, 64).score([[Message("user", "a")]], ["x"], [])


def test_who_still_waits_when_the_server_stops_is_told(counting):
    counting.may_go.clear()
    batcher = Batcher(counting, Batching(wait_ms=0), 100)
    batcher.start()
    first = batcher.submit([(Message("user", "a"),)], ["x"])
    wait_for(lambda: bool(counting.batches))
    second = batcher.submit([(Message("user", "a"),)], ["x"])
    threading.Timer(0.1, counting.may_go.set).start()
    batcher.close()
    assert first.result(1).scores == [1.0]
    assert second.done()  # scored with the last batch, or told that there is none
    with pytest.raises(RuntimeError, match="this server is stopping"):
        batcher.submit([(Message("user", "a"),)], ["x"])


def test_limits_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match=r"limits\.queue = 3 is less than limits\.items = 4"):
        build(Limits, {"queue": 3, "items": 4}, "limits")


def test_json_is_the_whole_protocol(counting):
    """Any program can ask, and any server can answer in its place."""
    with served(counting) as url:
        answer = httpx.post(
            f"{url}/score", content=json.dumps({"prompts": ["ä 💡"], "responses": ["💡"]}), trust_env=False
        )
        assert answer.json() == {"scores": [1.0]}
