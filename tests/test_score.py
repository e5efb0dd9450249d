"""Scoring a file, and serving the same scores: two commands around one reward model or an ensemble."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import metrics, run
from tiny import tiny_reward_model, write_rows

from align import generate, ppo, rm, score, serve_rm
from align.config import build, parse_command
from align.errors import UserError
from align.models.scalar import score_all
from align.rewards.model import ModelReward
from align.text.encode import encode_conversation
from align.text.records import Message


@pytest.fixture(scope="session")
def second(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another reward model."""
    folder = tmp_path_factory.mktemp("second")
    tiny_reward_model(tokenizer, seed=8).save(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def scored(world: Any, rows: str, path: Path, **keys: Any) -> list[dict[str, Any]]:
    given = {"model": {"path": world.reward, **keys.pop("model", {})}, "output": str(path)}
    given["data"] = {"path": rows, "max_tokens": 48, **keys.pop("data", {})}
    score.run(build(score.Recipe, given | keys, "recipe"))
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_hand(path: str, prompt: str, response: str) -> float:
    reward = ModelReward(path, None, "cpu", 8192)
    turns = [Message("user", prompt), Message("assistant", response)]
    return score_all(reward.model, [encode_conversation(reward.tokenizer, turns, 999).ids], 8192, "cpu")[0]


ANSWERS = {
    "ranking": ({"prompt": "say red", "responses": ["red", "blue", "sun"], "ranks": [2, 1, 3]}, ["red", "blue", "sun"]),
    "answers of generate": ({"prompt": "say red", "responses": ["red", ""], "model": "m"}, ["red", ""]),
    "one answer of generate": ({"prompt": "say red", "responses": ["red"], "temperature": 1.0}, ["red"]),
    "preference": ({"prompt": "say red", "chosen": "red", "rejected": "blue"}, ["red", "blue"]),
    "prompt_completion": ({"prompt": "say red", "completion": "red"}, ["red"]),
    "messages": (
        {"messages": [{"role": "user", "content": "say red"}, {"role": "assistant", "content": "red"}]},
        ["red"],
    ),
    "hh": (
        {"chosen": "\n\nHuman: say red\n\nAssistant: red", "rejected": "\n\nHuman: say red\n\nAssistant: sun"},
        ["red", "sun"],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_format_that_has_answers_is_scored(name, world, tmp_path):
    row, responses = ANSWERS[name]
    (found,) = scored(world, write_rows(tmp_path / "rows.jsonl", [row]), tmp_path / "scores.jsonl")
    assert found["prompt"] == "say red"
    assert found["responses"] == responses
    assert found["scores"] == pytest.approx([by_hand(world.reward, "say red", text) for text in responses], abs=1e-5)
    assert found["model"] == world.reward
    if "ranks" in row:
        assert found["ranks"] == row["ranks"]


def test_rows_keep_their_order_and_a_conversation_its_turns(world, tmp_path):
    rows = [{"prompt": f"say {number}", "completion": "red " * (number % 7 + 1)} for number in range(300)]
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    rows.insert(7, {"prompt": turns, "completion": "red"})
    found = scored(world, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "scores.jsonl")
    assert [row["prompt"] for row in found] == [row["prompt"] for row in rows]
    alone = scored(world, write_rows(tmp_path / "one.jsonl", rows[250:251]), tmp_path / "one_score.jsonl")
    assert alone[0]["scores"] == pytest.approx(found[250]["scores"], abs=1e-5)


@pytest.mark.parametrize("how", ["mean", "min", "mean_minus_std"])
def test_an_ensemble_tells_what_each_member_says(how, world, second, tmp_path):
    model = {"path": [world.reward, second], "ensemble": how}
    (row, *_) = scored(world, world.rankings, tmp_path / "scores.jsonl", model=model)
    one, other = (by_hand(path, row["prompt"], row["responses"][0]) for path in (world.reward, second))
    assert row["member_scores"][0] == pytest.approx([one, other], abs=1e-5)
    mean, std = (one + other) / 2, abs(one - other) / 2
    assert row["scores"][0] == pytest.approx(
        {"mean": mean, "min": min(one, other), "mean_minus_std": mean - std}[how], abs=1e-5
    )
    assert row["model"] == [world.reward, second]


ROWS = [
    {"prompt": "say red", "responses": ["red", "red " * 60]},
    {"prompt": "say blue", "responses": ["blue", "sun"]},
    {"prompt": "red " * 60, "responses": ["blue", "sun"]},
]


def test_rows_that_are_too_long_are_left_out_named_and_counted(world, tmp_path, capsys):
    data = write_rows(tmp_path / "rows.jsonl", ROWS)
    assert [row["prompt"] for row in scored(world, data, tmp_path / "scores.jsonl")] == ["say blue"]
    told = capsys.readouterr().out
    assert f"2 of 3 rows left out, longer than data.max_tokens=48:\n  {data}:1\n  {data}:3\n" in told
    assert "2 answers scored: mean " in told


def test_answers_that_are_too_long_are_cut_if_asked_for_and_say_so(world, tmp_path, capsys):
    data = write_rows(tmp_path / "rows.jsonl", ROWS)
    rows = scored(world, data, tmp_path / "scores.jsonl", data={"too_long": "truncate"})
    assert [row.get("truncated") for row in rows] == [[False, True], None]
    told = capsys.readouterr().out
    assert "1 of 3 rows left out, longer than data.max_tokens=48" in told  # the prompt alone fills it
    assert "1 answers cut before their EOS" in told


def test_when_nothing_is_short_enough_no_file_is_left(world, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", ROWS[2:])
    with pytest.raises(UserError, match=r"all 1 rows are too long; raise data\.max_tokens"):
        scored(world, data, tmp_path / "out" / "scores.jsonl")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"data": {"validation": 0.1}}, r"data\.validation = 0\.1: all rows are scored; leave it 0"),
        ({"model": {"ensemble": "min"}}, r"model\.ensemble = min has no effect on one model; give a list of paths"),
        ({"model": {"uncertainty": 2}}, r"model\.uncertainty has no effect without ensemble: mean_minus_std"),
        ({"model": {"path": []}}, r"model\.path is empty"),
        ({"model": {"path": "nowhere"}}, r"model\.path = 'nowhere': there is no such folder"),
    ],
)
def test_what_cannot_work_is_told(keys, told, world, tmp_path):
    with pytest.raises(UserError, match=told):
        scored(world, world.rankings, tmp_path / "scores.jsonl", **keys)
    assert not (tmp_path / "scores.jsonl").exists()


def test_prompts_alone_cannot_be_scored(world, tmp_path):
    with pytest.raises(UserError, match="the format prompt has no answers; formats that have are ranking, "):
        scored(world, world.prompts, tmp_path / "scores.jsonl")


def test_a_language_model_is_no_reward_model(world, tmp_path):
    with pytest.raises(UserError, match=r"this is not a reward model; train one with `align rm`"):
        scored(world, world.rankings, tmp_path / "scores.jsonl", model={"path": world.base})


def test_a_file_is_replaced_only_if_asked_for(world, tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text("mine")
    with pytest.raises(
        UserError, match=r"scores\.jsonl exists; choose another output, or replace it with overwrite=true"
    ):
        scored(world, world.rankings, path)
    assert path.read_text() == "mine"
    assert len(scored(world, world.rankings, path, overwrite=True)) == 20


def test_generated_answers_are_scored_and_scored_rankings_are_still_rankings(world, tmp_path):
    keys = {"model": {"path": world.base}, "data": {"path": world.prompts, "max_tokens": 48}}
    keys |= {"sampling": {"max_tokens": 8, "n": 2}, "output": str(tmp_path / "answers.jsonl")}
    generate.run(build(generate.Recipe, keys, "recipe"))
    rows = scored(world, str(tmp_path / "answers.jsonl"), tmp_path / "scores.jsonl")
    assert [len(row["scores"]) for row in rows] == [2] * 20
    scored(world, world.rankings, tmp_path / "rankings.jsonl")
    assert metrics(run(rm, world, tmp_path / "run", data__path=str(tmp_path / "rankings.jsonl"), train__steps=1))


# ------------------------------------------------------------------------------------------------------------ serving


def start(*words: str) -> tuple[subprocess.Popen[str], str]:
    """The command in a process of its own, and the address that it prints."""
    command = [sys.executable, "-m", "align.serve_rm", *words, "port=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    line = process.stdout.readline()
    if "serving" not in line:
        raise AssertionError(line + process.communicate(timeout=300)[1])
    return process, line.split(" on ")[1].split(";")[0]


@pytest.fixture(scope="module")
def server(world: Any) -> Any:
    process, url = start(f"model.path={world.reward}", "max_tokens=48")
    yield url
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")


def test_a_server_gives_the_scores_of_the_file(server, world, tmp_path):
    rows = scored(world, world.rankings, tmp_path / "scores.jsonl")
    prompts = [row["prompt"] for row in rows for _ in row["responses"]]
    body = {"prompts": prompts, "responses": [text for row in rows for text in row["responses"]]}
    answer = httpx.post(server, json=body, trust_env=False, timeout=300).json()
    assert answer["scores"] == pytest.approx([number for row in rows for number in row["scores"]], abs=1e-5)


def test_a_server_tells_what_it_serves_and_refuses_what_is_too_long(server, world):
    told = httpx.get(server.replace("/score", "/health"), trust_env=False).json()
    assert (told["model"], told["max_tokens"]) == (world.reward, 48)
    answer = httpx.post(server, json={"prompts": ["a"], "responses": ["red " * 60]}, trust_env=False, timeout=300)
    assert answer.status_code == 422
    assert "tokens with its prompt; this server takes at most 48 (max_tokens)" in answer.json()["detail"]


def test_ppo_with_a_server_is_ppo_with_the_model(server, world, tmp_path, monkeypatch):
    """With a model that reads the answers' text, as a server must: sampled tokens are not always how it is written."""
    changes = {"train__steps": 2, "optim__learning_rate": 0.002, "ppo__critic": world.base}
    remote = metrics(run(ppo, world, tmp_path / "remote", reward__path=..., reward__url=server, **changes))
    plain = ModelReward.__init__
    monkeypatch.setattr(ModelReward, "__init__", lambda self, path, _, *rest: plain(self, path, None, *rest))
    local = metrics(run(ppo, world, tmp_path / "local", **changes))
    for ours, theirs in zip(remote, local, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4, rel=1e-3)


def test_an_ensemble_is_served_with_what_its_members_say(world, second):
    recipe = build(serve_rm.Recipe, {"model": {"path": [world.reward, second]}, "max_tokens": 48}, "recipe")
    from starlette.testclient import TestClient

    with TestClient(serve_rm.build_app(recipe)) as client:
        answer = client.post("/score", json={"prompts": ["say red"], "responses": ["red"]}).json()
    expected = [by_hand(path, "say red", "red") for path in (world.reward, second)]
    assert answer["member_scores"][0] == pytest.approx(expected, abs=1e-5)
    assert answer["scores"][0] == pytest.approx(sum(expected) / 2, abs=1e-5)


def test_the_recipe_file_may_be_left_out(tmp_path):
    recipe, dry_run = parse_command(
        serve_rm.Recipe, "serve_rm", ["model.path=m", "port=81", "--dry-run"], needs_file=False
    )
    assert (recipe.model.path, recipe.port, recipe.host, dry_run) == ("m", 81, "127.0.0.1", True)
    with pytest.raises(UserError, match=r"command line: 1 problem in this recipe\n  model: required"):
        parse_command(serve_rm.Recipe, "serve_rm", ["port=81"], needs_file=False)
    with pytest.raises(UserError, match="no recipe given"):
        parse_command(score.Recipe, "score", ["model.path=m"])


def test_a_port_that_is_taken_is_told(world):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
        recipe = {"model": {"path": world.reward}, "max_tokens": 48, "port": port}
        with pytest.raises(UserError, match=f"port = {port}: cannot listen there .*give another port, or 0"):
            serve_rm.run(build(serve_rm.Recipe, recipe, "recipe"))


def test_a_dry_run_checks_the_model_and_serves_nothing(world, capsys):
    serve_rm.run(build(serve_rm.Recipe, {"model": {"path": world.reward}, "max_tokens": 48}, "recipe"), dry_run=True)
    assert "wait_ms: 5.0" in capsys.readouterr().out
    serve_rm.run(build(serve_rm.Recipe, {"model": {"path": world.reward}, "max_tokens": 65}, "recipe"), dry_run=True)
    told = capsys.readouterr().out
    assert "max_tokens = 65: the model has 64 positions, so 64 is used" in told
    assert "max_tokens: 64" in told


@pytest.mark.parametrize("command", ["score", "serve_rm"])
def test_help_is_quick_and_needs_no_heavy_library(command):
    words = [sys.executable, "-X", "importtime", "-m", f"align.{command}", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert f"usage: python -m align.{command} RECIPE.yaml" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert imported.isdisjoint({"torch", "transformers", "datasets", "numpy", "fastapi", "uvicorn", "httpx"})
