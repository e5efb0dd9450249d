"""A recipe's words for a judge: exactly one kind, and every mistake told."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny import write_rows

from align.config import Section, build
from align.errors import UserError
from align.judges.build import build_judge
from align.judges.llm import LlmJudge
from align.judges.scoring import FunctionJudge, RewardModelJudge
from align.judges.settings import Judge
from align.judges.votes import VotesJudge


class Recipe(Section):
    """As an evaluation's."""

    judges: dict[str, Judge]


def test_each_kind_is_built(world, tmp_path, monkeypatch):
    votes = write_rows(tmp_path / "rankings.jsonl", [{"prompt": "a", "responses": ["x", "y"], "ranks": [1, 2]}])
    template = tmp_path / "judge.yaml"
    template.write_text("user: '{prompt} {answer_a} {answer_b}'")
    llm = {"url": "http://127.0.0.1:8000/v1/", "model": "m", "template": str(template)}
    given = {"gold": {"function": "align.lab.judge:judge"}, "rm": {"reward_model": world.reward}}
    given |= {"people": {"votes": votes}, "gpt": {"llm": llm}}
    found = {name: build_judge(name, judge) for name, judge in build(Recipe, {"judges": given}, "r").judges.items()}
    assert {name: type(judge) for name, judge in found.items()} == {
        "gold": FunctionJudge,
        "rm": RewardModelJudge,
        "people": VotesJudge,
        "gpt": LlmJudge,
    }
    assert len({judge.fingerprint for judge in found.values()}) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "judges.gpt: give one of function, reward_model, votes, llm; found none"),
        ({"function": "a:b", "votes": "c"}, "judges.gpt: give one of .*; found function and votes"),
        ({"function": ""}, "judges.gpt: function is empty"),
        ({"reward_model": []}, "judges.gpt: reward_model is empty"),
        ({"llm": {"url": "http://127.0.0.1"}}, "judges.gpt.llm.model: required"),
        ({"llm": {"url": "gpt", "model": "m"}}, "judges.gpt.llm.url: url = 'gpt' must begin with http"),
        ({"llm": {"url": "http://a", "model": "m", "key": "sk"}}, "judges.gpt.llm.key = 'sk': unknown key"),
    ],
)
def test_what_is_no_judge_is_told(given, message):
    with pytest.raises(UserError, match=message):
        build(Recipe, {"judges": {"gpt": given}}, "recipe")


@pytest.mark.parametrize("url", ["http://here/v1", "http://here/v1/", "http://here/v1/chat/completions"])
def test_an_address_may_be_written_in_full(url):
    assert Judge(llm={"url": url, "model": "m"}).llm.url == "http://here/v1"


def test_an_address_that_is_none_is_told(tmp_path):
    template = tmp_path / "judge.yaml"
    template.write_text("user: '{prompt} {answer_a} {answer_b}'")
    llm = {"url": "http://here:score", "model": "m", "template": str(template)}
    with pytest.raises(UserError, match=r"judges.gpt.llm.url = 'http://here:score' is not a valid address"):
        build_judge("gpt", Judge(llm=llm))


def test_a_reward_model_that_is_not_there_is_told_before_it_is_asked():
    with pytest.raises(UserError, match="nowhere"):
        build_judge("rm", Judge(reward_model="runs/nowhere/model"))


@pytest.mark.heavy
def test_settings_load_nothing_heavy():
    code = "import align.judges.settings, sys; assert not {'torch', 'httpx', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
