"""All judges on all pairs: what each says, whether they agree, and what is left when one fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Reply, Server
from tiny import write_rows

from align.evals.cache import Cache
from align.evals.problems import Problem
from align.judges import panel as panel_module
from align.judges.panel import Panel, PanelResult
from align.judges.settings import Judge
from align.rewards import http
from align.text.records import Message

pytestmark = pytest.mark.heavy

N = 70  # three portions
PROMPTS = [[Message("user", f"question {i}")] for i in range(N)]
ANSWERS: dict[str, list[str | None]] = {
    "long": [f"long words {i}" for i in range(N)],
    "short": [f"word {i}" if i % 7 else f"a very long answer {i}" for i in range(N)],
    "mute": [None if i % 10 == 0 else "." for i in range(N)],
}
PAIRS = [("long", "short"), ("long", "mute"), ("short", "mute")]
NAMES = {name: (name, f"runs/{name}/model") for name in ANSWERS}
LENGTH = {"function": "judge_of_panel:length"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("judge_of_panel.py").write_text("def length(prompt, answer):\n    return len(answer)\n")
    Path("judge.yaml").write_text("user: '{prompt} {answer_a} {answer_b}'")


@pytest.fixture
def by_length() -> Iterator[Server]:
    """A language model that prefers the longer answer."""
    server = Server(longer)
    yield server
    server.stop()


def longer(body: dict[str, Any], number: int) -> Reply:
    text = body["messages"][0]["content"]
    a, b = (text.split(f"[begin answer {x} ")[1].split("]\n")[1].split("\n[end")[0] for x in "ab")
    return completion("[[C]]" if len(a) == len(b) else "[[A]]" if len(a) > len(b) else "[[B]]")


def completion(text: str) -> Reply:
    return 200, {"choices": [{"message": {"content": text}}]}


def llm(server: Server, **keys: Any) -> dict[str, Any]:
    given = {"url": server.url, "model": "m", "template": "judge.yaml", "timeout_s": 5.0, "retries": 0}
    return {"llm": given | keys}


def hear(judges: dict[str, Any], pairs: Any = PAIRS, answers: Any = ANSWERS) -> PanelResult:
    panel = Panel({name: Judge(**keys) for name, keys in judges.items()}, Cache("cache"))
    texts = {name: (lambda said=said: iter(said)) for name, said in answers.items()}
    heard = panel.judge(PROMPTS, texts, NAMES, pairs)
    assert json.loads(json.dumps(heard.block)) == json.loads(json.dumps(heard.block, allow_nan=False))
    return heard


def test_every_judge_says_who_wins_and_two_that_go_by_length_agree(by_length):
    block, problems = hear({"length": LENGTH, "gpt": llm(by_length)})
    judges = block["judges"]
    assert (judges["length"]["kind"], judges["gpt"]["kind"]) == ("function", "llm")
    for found in judges.values():
        assert list(found["pairs"]) == ["long_over_short", "long_over_mute", "short_over_mute"]
        first, second, third = found["pairs"].values()
        assert (first["win"]["mean"], first["loss"]["mean"], first["n"]) == (60 / 70, 10 / 70, 70)
        assert (second["win"]["mean"], second["n"], second["n_failed"]) == (1, 63, 7)
        assert first["controlled"] is not None
        assert "longer to every prompt" in third["controlled_missing"]
    assert judges["gpt"]["order_bias"]["orders_disagree"]["mean"] == 0
    assert judges["length"]["order_bias"] is None
    (agreed,) = block["judges_agree"]
    assert (agreed["judges"], agreed["same"]["mean"], agreed["n"]) == (["length", "gpt"], 1, 70 + 63 + 63)
    assert agreed["kappa"] == 1
    assert problems == []


def test_models_stand_in_an_order(by_length):
    even = {"a": ["xx", "x"] * 35, "b": ["x", "xx"] * 35, "c": [None, "xxx"] * 35}
    ranking = hear({"length": LENGTH}, [("a", "b"), ("a", "c")], even).block["judges"]["length"]["ranking"]
    assert [one["model"] for one in ranking["standings"]] == ["a", "b"]
    assert ranking["unranked"][0]["model"] == "c"  # won all: how far above cannot be told


def test_a_second_hearing_asks_nobody(by_length):
    first = hear({"gpt": llm(by_length)})
    n_asked = len(by_length.asked)
    assert n_asked == 2 * (70 + 63 + 63)
    assert hear({"gpt": llm(by_length)}) == first
    assert len(by_length.asked) == n_asked
    hear({"gpt": llm(by_length, max_tokens=7)})  # which may say something else
    assert len(by_length.asked) == 2 * n_asked


def test_a_judge_that_goes_down_is_told_and_the_next_one_speaks():
    """It goes in the middle of the second portion of 32 prompts: the first one counts."""
    server = Server(lambda body, number: longer(body, number) if number <= 70 else (503, {"error": "gone"}))
    block, problems = hear({"gpt": llm(server, concurrency=1), "length": LENGTH})
    server.stop()
    gpt, length = block["judges"].values()
    assert (gpt["pairs"]["long_over_short"]["n"], gpt["pairs"]["long_over_short"]["n_failed"]) == (32, 38)
    assert gpt["pairs"]["long_over_mute"] is None
    assert length["pairs"]["long_over_mute"]["n"] == 63
    (problem,) = problems
    assert problem.where == "judges.gpt"
    assert "answered with status 503: 'gone'; tried once" in problem.what
    assert problem.what.endswith("its verdicts before this count, the rest is missing")


def test_what_a_judge_could_not_say_in_time_is_asked_for_the_next_time(monkeypatch):
    """And what it refuses, or says nonsense about, is not."""
    slow = {"question 1"}

    def reply(body: dict[str, Any], number: int) -> Reply:
        text = body["messages"][0]["content"]
        if any(f"{word}\n" in text for word in slow):
            return 503, {"error": "busy"}
        if "question 40\n" in text:
            return completion("I like both")
        return longer(body, number)

    server = Server(reply)
    block, problems = hear({"gpt": llm(server)}, PAIRS[:1])
    assert block["judges"]["gpt"]["pairs"]["long_over_short"]["n"] == 68
    told = {problem.what for problem in problems}
    assert told == {"answered with status 503: 'busy'; tried once", "answered nonsense: 'I like both'"}
    assert all(problem.n == 1 for problem in problems)
    n_asked = len(server.asked)
    slow.clear()
    block, problems = hear({"gpt": llm(server)}, PAIRS[:1])
    assert block["judges"]["gpt"]["pairs"]["long_over_short"]["n"] == 69
    assert [problem.what for problem in problems] == ["answered nonsense: 'I like both'"]
    assert len(server.asked) - n_asked == 2 * panel_module.PORTION  # the portion of the prompt that was not answered
    server.stop()


def test_people_are_found_by_the_models_names(tmp_path):
    models = ["runs/long/model", "runs/short/model"]
    rows = [{"prompt": f"question {i}", "responses": ["x", "y"], "ranks": [1, 2], "models": models} for i in range(40)]
    votes = write_rows(tmp_path / "rankings.jsonl", rows)
    block, problems = hear({"people": {"votes": votes}, "length": LENGTH}, PAIRS[:1])
    people = block["judges"]["people"]["pairs"]["long_over_short"]
    assert (people["win"]["mean"], people["n"], people["n_failed"]) == (1, 40, 30)
    assert problems == [Problem("judges.people", "no ranking compares answers of these models to this prompt", 30)]
    assert block["judges_agree"][0]["n"] == 40


def test_a_reward_model_speaks_and_is_kept(world, monkeypatch):
    from align.judges.scoring import RewardModelJudge

    first = hear({"rm": {"reward_model": world.reward}})
    assert first.block["judges"]["rm"]["pairs"]["long_over_short"]["n"] == 70
    monkeypatch.setattr(RewardModelJudge, "score", None)  # nobody may ask it
    assert hear({"rm": {"reward_model": world.reward}}) == first


def test_a_reward_model_that_does_not_load_is_told_in_its_place(world, monkeypatch, tmp_path):
    import shutil

    shutil.copytree(world.reward, tmp_path / "rm")
    (tmp_path / "rm" / "score_head.safetensors").write_bytes(b"cut short")
    block, problems = hear({"rm": {"reward_model": str(tmp_path / "rm")}, "length": LENGTH})
    assert block["judges"]["rm"]["pairs"]["long_over_short"] is None
    assert block["judges"]["length"]["pairs"]["long_over_short"]["n"] == 70
    assert [problem.where for problem in problems] == ["judges.rm"]


def test_one_model_alone_is_compared_with_nobody():
    block = hear({"length": LENGTH}, []).block["judges"]["length"]
    assert block["pairs"] == {}
    assert block["ranking"]["standings"] == []


def test_the_contests_answers_are_read_as_texts():
    from align.evals.answers import Answers
    from align.generation.text_model import Completion

    said = Answers(lambda: iter([[Completion("a", [], [], True), None], [Completion("", [], [], True)]]))
    assert list(panel_module.texts_of(said)()) == ["a", None, ""]
