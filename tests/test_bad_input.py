"""What cannot work ends the command with one sentence: what was found, where, and how to mend it. The exit status is 2,
there is no traceback, and what the run had learned stays.

| input | here | in detail |
|---|---|---|
| a reward function: raises, returns NaN, too few, a tensor elsewhere | `GOES_WRONG` | `rl/test_rewards.py` |
| a reward server that is down, slow, or answers garbage | `GOES_WRONG` | `rl/test_remote.py` |
| either of them in the middle of a run, in a step or in an evaluation | `GOES_WRONG` | `test_failing_reward.py` |
| a base without EOS | `test_a_base_without_eos` | `text/test_tokenizer.py` |
| a prompt longer than the model | `test_prompts_longer_than_the_model` | `test_stages.py` |
| an adapter for another base | `test_an_adapter_for_another_base` | `test_adapters.py` |
| an output where none can stand | `test_an_output_that_is_in_the_way` | |
| a quantisation that the machine cannot do | `test_bitsandbytes_that_is_missing`, `..._that_fails` | |
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers import assert_same_bits, brevity, recipe_of, run
from servers import Server
from tiny import tiny_gpt, write_rows

from align import dpo, evaluate, generate, pipeline, ppo, prepare, rm, score, sft
from align.config import build, to_yaml
from align.errors import UserError, exit_on_user_error
from align.rewards import http
from align.train.folder import claim_experiment
from align.train.state import steps_saved

STAGES = {"sft": sft, "rm": rm, "ppo": ppo}
ALL = STAGES | {"dpo": dpo, "generate": generate, "score": score}


def written(stage: str, world: Any, folder: Path, **changes: Any) -> str:
    """A recipe as a file."""
    path = folder.with_suffix(".yaml")
    path.write_text(to_yaml(recipe_of(ALL[stage], world, folder, **changes)))
    return str(path)


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Runs `python -m align.<stage> words` in this process. Returns its exit status and all that it said."""

    def start(stage: str, *words: str) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [f"{stage}.py", *words])
        try:
            exit_on_user_error(ALL[stage].main)
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        assert (status == 2) == told.err.startswith("error: ")
        return status, told.out + told.err

    return start


# ------------------------------------------------------------------------------------------------------------ rewards

# What the reward of this file does: the scores of its n-th call, and of all after it, become something else.
n_calls = 0
wrong_from = 0
becomes: Callable[[list[float]], Any] | None = None


def fickle(prompts: list[str], responses: list[str]) -> Any:
    """`brevity`, until it goes wrong."""
    global n_calls
    n_calls += 1
    scores = brevity(prompts, responses)
    return scores if becomes is None or n_calls < wrong_from else becomes(scores)


class Wrong(NamedTuple):
    """What becomes of the scores, and what is said of it, as a pattern."""

    becomes: Callable[[list[float]], Any]
    told: str
    is_server: bool = False


GOES_WRONG = {
    "raises": Wrong(
        lambda scores: scores[99],
        r"reward function test_bad_input:fickle raised IndexError: .*\(.*test_bad_input\.py:\d+, in ",
    ),
    "nan": Wrong(
        lambda scores: [float("nan"), *scores[1:]], r"returned nan for the answer .*; every score must be finite"
    ),
    "too few": Wrong(lambda scores: scores[1:], r"returned \d scores for \d answers; return one for each"),
    "a tensor elsewhere": Wrong(
        lambda scores: torch.tensor(scores, device="meta"),
        r"a tensor on the device 'meta', which cannot be read .*; return them on the CPU, or as a list",
    ),
    "tensors elsewhere": Wrong(
        lambda scores: list(torch.tensor(scores, device="meta")), r"no number .*; return a number for each answer"
    ),
    "server down": Wrong(lambda scores: None, r"cannot be reached .*Check that it runs and responds", is_server=True),
    "server slow": Wrong(
        lambda scores: time.sleep(3.0) or scores,
        r"did not answer within 1 s.*raise reward\.timeout_s",
        is_server=True,
    ),
    "server says garbage": Wrong(
        lambda scores: b"<html>",
        r"answered '<html>'; it must answer .*Check that reward\.url is a reward server",
        is_server=True,
    ),
}
CHANGES: dict[str, Any] = {
    "reward__path": ...,
    "train__steps": 3,
    "train__checkpoint_every": 100,
    "data__validation": 0.2,
    "train__eval_every": 2,
    "optim__learning_rate": 0.002,
}
# The reward is asked in step 1, in its evaluation, in step 2, in its evaluation, and in step 3.
PLACES = {"in an evaluation": 4, "in a step": 5}


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory) -> Path:
    """The run of a reward that does not go wrong."""
    changes = CHANGES | {"reward__function": "helpers:brevity", "ppo__critic": world.base}
    return run(ppo, world, tmp_path_factory.mktemp("whole") / "run", **changes)


@pytest.fixture
def reward(monkeypatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """Gives the recipe's keys of a reward, a function or a server, that goes wrong from a certain call on, if any."""
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    module = sys.modules["test_bad_input"]  # which the recipe names, and pytest may know by another name
    servers: list[Server] = []

    def reply(body: dict[str, Any], number: int) -> tuple[int, Any]:
        found = module.fickle(body["prompts"], body["responses"])
        if found is None:
            threading.Thread(target=servers[-1].stop).start()
            raise ConnectionAbortedError
        return 200, found if isinstance(found, bytes) else {"scores": found}

    def start(wrong: Wrong, call: int | None) -> dict[str, Any]:
        changes = {"n_calls": 0, "wrong_from": call, "becomes": wrong.becomes if call is not None else None}
        for name, value in changes.items():
            monkeypatch.setattr(module, name, value)
        if not wrong.is_server:
            return {"reward__function": "test_bad_input:fickle"}
        servers.append(Server(reply))
        servers[-1].http.handle_error = lambda *unused: None
        return {"reward__url": servers[-1].url, "reward__timeout_s": 1.0, "reward__retries": 1}

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", GOES_WRONG)
def test_a_reward_that_goes_wrong_in_the_middle_loses_nothing(kind, place, whole, reward, command, world, tmp_path):
    wrong = GOES_WRONG[kind]
    changes = CHANGES | {"ppo__critic": world.base} | reward(wrong, PLACES[place])
    status, told = command("ppo", written("ppo", world, tmp_path / "run", **changes))
    assert status == 2
    assert re.search(wrong.told, told), told
    assert steps_saved(tmp_path / "run" / "checkpoints") == [2]
    go_on = re.search(r"stopped after step 2; .* continue with: python -m align\.ppo (.*)", told)
    assert go_on, told
    mended = reward(wrong, None)
    moved = [f"reward.url={mended['reward__url']}"] if wrong.is_server else []
    assert command("ppo", *go_on[1].split(), *moved)[0] == 0
    assert_same_bits(tmp_path / "run", whole)


# ----------------------------------------------------------------------------------------------- models and their data


@pytest.mark.parametrize("stage", STAGES)
def test_a_base_without_eos(stage, command, world, tmp_path):
    base = Path(shutil.copytree(world.base, tmp_path / "base"))
    settings = json.loads((base / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    status, told = command(stage, written(stage, world, tmp_path / "run", model__path=str(base)))
    assert status == 2
    assert f"{base}: this tokenizer has no EOS token, so no answer can end; set one in its tokenizer_config" in told


@pytest.mark.parametrize("stage", ALL)
def test_no_row_is_longer_than_the_model_has_positions(stage, command, world, tmp_path):
    """One rule for all: what answers were sampled with, a reward model learns from."""
    recipe = tmp_path / "recipe.yaml"
    if stage in ("generate", "score"):
        model, rows = (world.base, world.prompts) if stage == "generate" else (world.reward, world.rankings)
        recipe.write_text(f"{{model: {{path: {model}}}, data: {{path: {rows}}}, output: {tmp_path / 'rows.jsonl'}}}")
    else:
        recipe = written(stage, world, tmp_path / "run")
    status, told = command(stage, str(recipe), "data.max_tokens=65", "--dry-run")
    assert status == 0, told
    assert "data.max_tokens = 65: the model has 64 positions, so 64 is used" in told
    assert "max_tokens: 64" in told


def test_prompts_longer_than_the_model(command, world, tmp_path):
    """They are left out, and counted."""
    long, short = {"prompt": "red " * 60}, {"prompt": "say red"}
    data = write_rows(tmp_path / "rows.jsonl", [long, short])
    recipe = written("ppo", world, tmp_path / "run", data__path=data, train__steps=1)
    status, told = command("ppo", recipe)
    assert status == 0
    assert "1 of 2 prompts left out: longer than 40 tokens" in told
    data = write_rows(tmp_path / "long.jsonl", [long])
    status, told = command("ppo", recipe, f"data.path={data}", f"output={tmp_path / 'other'}")
    assert status == 2
    assert "all prompts are too long; raise data.max_tokens or lower rollout.max_tokens" in told


@pytest.mark.parametrize("changes", [{"n_embd": 64}, {"n_layer": 1}], ids=["wider", "shallower"])
@pytest.mark.parametrize("role", ["policy", "reward"])
def test_an_adapter_for_another_base(role, changes, command, world, tokenizer, tmp_path):
    lora = {"model__adapter": "lora", "train__steps": 1}
    stage = sft if role == "policy" else rm
    adapter = run(stage, world, tmp_path / "trained", **lora) / "adapter"
    other = tmp_path / "other"
    tiny_gpt(tokenizer, **changes).save_pretrained(other)
    tokenizer.save_pretrained(other)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": str(other)}))
    given = {"model__path": str(adapter)} if role == "policy" else {"model__path": str(other)}
    given |= {"reward__path": str(adapter), "ppo__critic": str(other)} if role == "reward" else {}
    status, told = command("ppo", written("ppo", world, tmp_path / "run", **lora, **given))
    assert status == 2
    assert f"{adapter}: this adapter does not fit its base model at" in told
    assert "set base_model_name_or_path in its adapter_config.json to the model that it was trained on" in told


# ------------------------------------------------------------------------------------------------------- bitsandbytes

WITHOUT_BITSANDBYTES = """
import sys

class Without:
    "A finder of modules that does not find bitsandbytes."
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "bitsandbytes" else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from align.errors import exit_on_user_error
from align.sft import main
words = sys.argv[1:]
for key in ("model.quantization=8bit", "model.quantization=4bit", "optim.name=adamw8bit"):
    sys.argv[1:] = [*words, key, *(["model.adapter=lora"] if "model" in key else [])]
    try:
        exit_on_user_error(main)
    except SystemExit as end:
        print(key, "ends with", end.code)
exit_on_user_error(main)
"""


@pytest.mark.slow
def test_bitsandbytes_that_is_missing(world, tmp_path):
    words = [sys.executable, "-c", WITHOUT_BITSANDBYTES, written("sft", world, tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    assert done.returncode == 2
    for key in ("model.quantization=8bit", "model.quantization=4bit", "optim.name=adamw8bit"):
        assert f"{key} ends with 2" in done.stdout
        name, value = key.split("=")
        remedy = "model.quantization=none" if "model" in key else "optim.name=adamw"
        told = rf"error: {re.escape(name)} = {value}: this machine does not support it \(ModuleNotFoundError"
        told += ": .*bitsandbytes.*"
        assert re.search(rf"{told}pip install -U bitsandbytes\), or set {re.escape(remedy)}\n", done.stderr), (
            done.stderr
        )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("bits", "layer"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_bitsandbytes_that_fails(bits, layer, command, world, tmp_path, monkeypatch):
    """As where it was built for another GPU."""

    def fails(*unused: Any) -> None:
        raise RuntimeError("no kernel image is available for execution on the device\nand more")

    monkeypatch.setattr(f"bitsandbytes.nn.{layer}.forward", fails)
    keys = {"model__adapter": "lora", "model__quantization": bits}
    status, told = command("sft", written("sft", world, tmp_path / "run", **keys))
    assert status == 2
    assert (
        f"model.quantization = {bits}: this machine does not support it (RuntimeError: no kernel image is available"
        in told
    )
    assert "or set model.quantization=none" in told


# ------------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("name", ["sft", "prepare", "generate", "score", "evaluate", "pipeline", "inverse_scaling"])
def test_an_output_that_is_in_the_way(name, world, tmp_path):
    """A file stands where a folder is to be written, or a folder where a file is, or a file above either."""
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "folder").mkdir()
    outputs = {tmp_path / "file" / "below" / "it": "cannot be written, because .*file is not a folder"}
    if name in ("generate", "score"):
        outputs[tmp_path / "folder"] = "is a folder, but a file has to be written there"
    else:
        outputs[tmp_path / "file"] = "is a file, but a folder has to be written there"
    for output, told in outputs.items():
        with pytest.raises(UserError, match=f"^output: {re.escape(str(output))} {told}"):
            begun(name, world, output)
    assert (tmp_path / "file").read_text() == "somebody's"


def begun(name: str, world: Any, output: Path) -> None:
    """A command with an output and the least that it needs."""
    keys: dict[str, Any] = {"output": str(output), "overwrite": True, "data": {"path": world.prompts}}
    if name == "sft":
        run(sft, world, output)
    elif name == "prepare":
        prepare.run(build(prepare.Recipe, {"output": str(output), "data": keys["data"]}, ""))
    elif name == "evaluate":
        models = {"models": {"a": {"path": world.base}}, "data": keys["data"], "judge": "align.lab.judge:reward"}
        evaluate.run(build(evaluate.Recipe, {"output": str(output), **models}, ""))
    elif name == "pipeline":
        pipeline.begin(output, pipeline.Recipe(stages={}, written_for="runs", output=str(output)), [])
    elif name == "inverse_scaling":
        claim_experiment(output, recipe_of(sft, world, output))
    else:
        module = generate if name == "generate" else score
        module.run(build(module.Recipe, keys | {"model": {"path": world.base}}, ""))
