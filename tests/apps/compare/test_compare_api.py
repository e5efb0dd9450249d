"""Questions and answers over HTTP: streams, refusals, stops, and what each model's trouble means to the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import islice
from typing import Any

import httpx
import pytest
from browser import Server
from comparing import BASE, HOW, OWN, Pace, Parrot, Place, of_side, question
from starlette.routing import Mount, Route

from align.errors import RewardError
from align.generation.sampling import Sampling
from align.text.records import Message


def test_every_model_answers_in_a_stream_with_its_figures(place: Place) -> None:
    events = place.member().events("ask", question("say red blue", "base", "sft", "ppo", seed=4))
    assert events[0] == {"ahead": 0}
    turns = (Message("user", "say red blue"),)
    for side, name in enumerate(("base", "sft", "ppo")):
        model = place.loaded.by_name[name]
        (reply,) = model.text_model.answer([turns], Sampling(12), 4)
        assert reply is not None
        (text,), (figures,) = of_side(events, side, "text"), of_side(events, side, "figures")
        assert text == reply.text
        assert len(of_side(events, side, "piece")) == len(reply.ids) == len(figures["logprobs"]) == len(figures["kl"])
        assert figures["reward"] == pytest.approx(place.loaded.score(turns, reply.text))
        assert figures["problems"] == []
    assert max(map(abs, of_side(events, 1, "figures")[0]["kl"])) == 0  # the reference to itself


def test_models_write_a_token_each_in_turn(place: Place) -> None:
    events = place.member().events("ask", question("say red", "sft", "ppo", "base", seed=2))
    sides = [event["side"] for event in events if "piece" in event]
    shortest = min(sides.count(side) for side in range(3))
    assert sides[: 3 * shortest] == [0, 1, 2] * shortest


def test_a_conversation_goes_on(place: Place) -> None:
    member = place.member()
    thread = [{"role": "user", "content": "say red"}, {"role": "assistant", "content": ""}]
    thread += [{"role": "user", "content": "say blue"}]
    events = member.events("ask", question("", "sft", threads=[thread], seed=3))
    turns = [tuple(Message(turn["role"], turn["content"]) for turn in thread)]  # type: ignore[arg-type]
    (reply,) = place.loaded.by_name["sft"].text_model.answer(turns, Sampling(12), 3)
    assert reply is not None
    assert of_side(events, 0, "text") == [reply.text]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"models": ["gpt"]}, "There is no model 'gpt'. The models are base, sft, ppo."),
        ({"models": ["sft", "sft"]}, "2 models and 1 threads. Give one thread per model."),
        ({"models": []}, "models: List should have at least 1 item"),
        ({"threads": [[{"role": "user", "content": "  "}]]}, "The question is empty. Write one."),
        ({"threads": [[{"role": "assistant", "content": "a"}]]}, "A thread must alternate between question and answer"),
        ({"threads": [[{"role": "system", "content": "a"}]]}, "Input should be 'user' or 'assistant'"),
        ({"threads": [[{"role": "user", "content": "a\0"}]]}, "character NUL; remove it"),
        ({"threads": [[{"role": "user", "content": "x" * 20_001}]]}, "at most 20000 characters"),
        ({"sampling": HOW | {"max_tokens": 33}}, "Max tokens = 33: at most 32 (most_tokens)."),
        ({"sampling": HOW | {"temperature": -1}}, "greater than or equal to 0"),
        ({"sampling": HOW | {"top_p": 0}}, "greater than 0"),
        ({"sampling": HOW | {"beams": 4}}, "Extra inputs are not permitted"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"seed": 2**60}, "less than 9007199254740992"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(place: Place, change: dict[str, Any], told: str) -> None:
    answer = place.member().call("POST", "ask", question("say red", "sft") | change)
    assert answer.status_code in (409, 422)
    error = answer.json()["error"]
    assert told in f"{error['message']} {error['remedy']}"


def test_half_a_character_is_refused(place: Place) -> None:
    body = json.dumps(question("X", "sft")).replace('"X"', '"\\ud800"')
    headers = {**OWN, "Content-Type": "application/json"}
    answer = place.client().post("/api/ask", headers=headers, content=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "payload"


def test_a_prompt_that_is_too_long_is_told_in_its_place(place: Place) -> None:
    long = [{"role": "user", "content": "red " * 80}]
    short = [{"role": "user", "content": "say red"}]
    events = place.member().events("ask", question("", "sft", "ppo", threads=[long, short]))
    (problem,) = of_side(events, 0, "problem")
    assert "the limit with the answer is 64. Start a new conversation" in problem
    assert of_side(events, 0, "piece") == []
    assert len(of_side(events, 1, "figures")) == 1


def test_a_model_that_fails_leaves_the_others_alone(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Parrot):
        def answer(self, *_: Any) -> Any:
            yield "so far"
            raise RuntimeError("CUDA error: a secret address")

    place.loaded.by_name["ppo"] = Broken("ppo", "", place.loaded.by_name["ppo"])  # type: ignore[assignment]
    events = place.member().events("ask", question("say red", "ppo", "sft"))
    assert of_side(events, 0, "problem") == ["This model failed; the error is in the server's log."]
    assert len(of_side(events, 1, "figures")) == 1
    assert "a secret address" in caplog.text
    assert "secret" not in json.dumps(events)


def test_a_reward_that_fails_is_told_and_costs_nothing_else(place: Place) -> None:
    class Broken:
        def score(self, *_: Any) -> list[float]:
            raise RewardError("the answer has 99 of its tokens, and it has 64 positions")

    place.loaded.reward = Broken()
    (figures,) = of_side(place.member().events("ask", question("say red", "ppo")), 0, "figures")
    assert figures["reward"] is None
    assert figures["problems"] == ["No reward: the answer has 99 of its tokens, and it has 64 positions."]
    assert figures["kl"]


def test_a_stop_ends_the_answer_with_what_there_is_and_the_next_question_is_answered(
    make_place: Callable[..., Place], pace: Pace
) -> None:
    server = Server(make_place(seed=2).app)
    with httpx.Client(base_url=server.url, headers=OWN, timeout=60) as client:
        with client.stream("POST", "/api/ask", json=question("say red blue", "sft", "ppo", seed=9)) as answer:
            lines = (json.loads(line) for line in answer.iter_lines() if line)
            ticket = next(lines)["id"]
            pace.let(2)
            first = list(islice(lines, 3))
            assert [event.get("side") for event in first] == [None, 0, 1]
            assert client.post("/api/stop", json={"id": ticket}).json() == {"stopped": True}
            pace.let(2)
            rest = list(lines)
        assert [event["end"] for event in rest if "end" in event] in (["stopped"] * 2, ["eos", "stopped"], ["eos"] * 2)
        assert pace.n_drawn <= 4
        pace.free()
        again = client.post("/api/ask", json=question("say red", "sft"))
        assert '"figures"' in again.text
        assert client.post("/api/stop", json={"id": ticket}).json() == {"stopped": False}
    server.stop()


def test_who_closes_the_page_is_answered_no_further(make_place: Callable[..., Place], pace: Pace) -> None:
    server = Server(make_place().app)
    with httpx.Client(base_url=server.url, headers=OWN, timeout=60) as client:
        with client.stream("POST", "/api/ask", json=question("say red blue", "sft", "ppo", "base", seed=9)) as answer:
            next(answer.iter_lines())
            pace.let(1)
        waiting = client.build_request("POST", "/api/ask", json=question("say red", "sft"))
        closed = pace.n_drawn
        pace.let(40)
        assert '"figures"' in client.send(waiting).text
        assert pace.n_drawn <= closed + 12 + 12  # some until it is seen, of 36; and the next question
    server.stop()


def test_a_full_line_is_told(make_place: Callable[..., Place], pace: Pace) -> None:
    place = make_place(queue={"waiting": 1, "per_person": 9})
    server = Server(place.app)
    with httpx.Client(base_url=server.url, headers=OWN, timeout=60) as client:
        begun, url = threading.Barrier(3), f"{server.url}/api/ask"

        def ask() -> None:
            with httpx.stream("POST", url, headers=OWN, json=question("a", "sft"), timeout=60) as answer:
                lines = answer.iter_lines()
                next(lines)
                begun.wait()
                list(lines)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        refused = client.post("/api/ask", json=question("a", "sft"))
        assert refused.status_code == 409
        assert refused.json()["error"]["message"] == "The queue is full: 2 questions ahead of you."
        pace.free()
        for thread in threads:
            thread.join()
        assert client.post("/api/ask", json=question("a", "sft")).status_code == 200
    server.stop()


# ---------------------------------------------------------------------------------------------------- who may ask what


def test_without_accounts_there_is_no_arena_and_nobody_logs_in(place: Place) -> None:
    client = place.client()
    config = client.get("/api/config", headers=OWN).json()
    assert (config["arena"], config["person"]) == (False, None)
    assert [model["name"] for model in config["models"]] == ["base", "sft", "ppo"]
    for path in ("battle", "vote"):
        assert client.post(f"/api/{path}", headers=OWN, json={}).status_code == 404
    assert client.get("/login").status_code == 404
    assert client.get("/app/").status_code == 200
    assert client.get("/health").json() == {"status": "ok"}


def test_without_accounts_it_answers_this_machine_and_its_own_pages_alone(place: Place) -> None:
    body = question("say red", "sft")
    for headers in ({}, {"Origin": "https://evil.example", **OWN}, {"Sec-Fetch-Site": "cross-site", **OWN}):
        assert place.client().post("/api/ask", headers=headers, json=body).status_code == 403, headers
    foreign = place.client().post("http://evil.example/api/ask", headers=OWN, json=body)
    assert foreign.status_code == 421
    assert place.client().get("/api/config", headers={"Origin": BASE}).status_code == 403  # no X-Align
    for path in ("upload", "file=/etc/passwd", "run/predict", "queue/join", "call/x"):
        assert place.client().post(f"/app/gradio_api/{path}", headers=OWN).status_code == 404, path


def routes(place: Place) -> list[Any]:
    found: list[Any] = []
    waiting = list(place.app.app.routes)  # type: ignore[attr-defined]
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is None:
            found.append(route)
        else:
            waiting += inner.routes
    return found


def test_with_an_arena_every_route_asks_who_is_there(arena: Place) -> None:
    api = [route for route in routes(arena) if route.path.startswith("/api/")]
    assert {route.path for route in api} == {
        f"/api/{name}" for name in ("config", "ask", "stop", "battle", "vote", "leaderboard")
    }
    ada = arena.member("ada")
    assert ada.who is not None
    for route in api:
        for method in route.methods:
            for client in (arena.client(), arena.client("a token that nobody has")):
                answer = client.request(method, route.path, headers=OWN, json={})
                assert (answer.status_code, answer.json()["error"]["message"]) == (401, "You are logged out."), route
            headers = {**OWN, "X-Align-Person": str(ada.who.id + 1)}
            assert ada.client.request(method, route.path, headers=headers, json={}).status_code == 401
            assert ada.client.request(method, route.path, headers={"Origin": BASE}, json={}).status_code == 403
    assert arena.client().get("/app/").headers["location"] == "/login?next=/app/"
    assert ada.client.get("/app/").status_code == 200


def test_there_is_nothing_beside_what_is_known(arena: Place) -> None:
    """A new route has to be looked at here."""
    pages = {"/", "/login", "/logout", "/account", "/invitation/{token}", "/health", "/favicon.ico", "/static/math.ttf"}
    assert {one.path for one in routes(arena) if isinstance(one, Route) and not one.path.startswith("/api/")} == pages
    assert {one.path for one in routes(arena) if isinstance(one, Mount)} == {"/static", "/static/compare", "/app"}


def test_one_person_cannot_stop_anothers_answer(arena: Place, pace: Pace) -> None:
    ada, bob = arena.member("ada"), arena.member("bob")
    server = Server(arena.app)
    cookies = {"align_compare": arena.token("ada")}
    with (
        httpx.Client(base_url=server.url, headers=OWN, cookies=cookies, timeout=60) as client,
        client.stream("POST", "/api/ask", json=question("say red", "sft")) as answer,
    ):
        lines = answer.iter_lines()
        ticket = json.loads(next(lines))["id"]
        assert bob.call("POST", "stop", {"id": ticket}).json() == {"stopped": False}
        assert ada.call("POST", "stop", {"id": ticket}).json() == {"stopped": True}
        pace.free()
        list(lines)
    server.stop()
