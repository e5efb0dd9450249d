import json
from dataclasses import asdict

import pytest

from align.config import build
from align.errors import UserError
from align.lab.annotators import AGREEMENT, ANNOTATORS, rank_file
from align.lab.corpora import FILES, Sizes, write_world
from align.lab.recipes import Rank, World, run_rank, run_world

TINY = {"documents": 20, "demonstrations": 6, "prompts": 5, "ppo_prompts": 4}
TINY |= {"rm_heldout_prompts": 3, "heldout_prompts": 7}
SUM = "what is two plus three ?"


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    row = json.dumps({"prompt": SUM, "responses": ["sure ! five .", "six .", "five ."]})
    path.write_text(f"{row}\n" * 4, encoding="utf-8")
    return path


def test_the_defaults_are_those_of_the_commands(tmp_path):
    world = build(World, {"output": "w"}, "w.yaml").model_dump(exclude={"output", "seed"})
    assert world == asdict(Sizes())
    rank = build(Rank, {"answers": "a", "output": "r"}, "r.yaml")
    assert (rank.agreement, rank.overlap) == (AGREEMENT, 1)
    assert build(Rank, {"answers": "a", "output": "r", "overlap": len(ANNOTATORS)}, "r.yaml").overlap == 8


def test_world_writes_what_the_command_does(tmp_path, capsys):
    run_world(build(World, {"output": str(tmp_path / "recipe"), "seed": 3, **TINY}, "world.yaml"))
    assert f"20  {tmp_path / 'recipe' / 'web.jsonl'}" in capsys.readouterr().out
    write_world(tmp_path / "command", 3, Sizes(**TINY))
    for file in ("README.md", *(file for file, _, _ in FILES.values())):
        assert (tmp_path / "recipe" / file).read_bytes() == (tmp_path / "command" / file).read_bytes()


def test_rank_writes_what_the_command_does(tmp_path, capsys, answers):
    recipe = {"answers": str(answers), "output": str(tmp_path / "recipe"), "seed": 3, "agreement": 0.8, "overlap": 2}
    run_rank(build(Rank, recipe, "rank.yaml"))
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'recipe'}: 8 rankings" in said
    assert "two annotators agree on 80.0% of pairs" in said
    rank_file(answers, tmp_path / "command", 3, 0.8, 2)
    assert (tmp_path / "recipe").read_bytes() == (tmp_path / "command").read_bytes()


def test_a_dry_run_shows_the_recipe_and_writes_nothing(tmp_path, capsys):
    run_world(build(World, {"output": str(tmp_path / "w"), **TINY}, "world.yaml"), dry_run=True)
    run_rank(build(Rank, {"answers": "none", "output": str(tmp_path / "r")}, "rank.yaml"), dry_run=True)
    said = capsys.readouterr().out
    assert "heldout_prompts: 7" in said
    assert "overlap: 1" in said
    assert list(tmp_path.iterdir()) == []


def test_impossible_values_are_told_with_their_keys():
    with pytest.raises(UserError, match=r"documents = 0: ") as error:
        build(World, {"output": "w", "documents": 0, "prompt": 3}, "world.yaml")
    assert "prompt = 3: unknown key; did you mean prompts?" in str(error.value)
    with pytest.raises(UserError, match=r"answers: required.*\n.*agreement = 0\.5: .*\n.*overlap = 9: "):
        build(Rank, {"output": "r", "agreement": 0.5, "overlap": 9}, "rank.yaml")


def test_a_world_that_cannot_be_written_is_told_in_words(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output: .*file"):
        run_world(build(World, {"output": str(tmp_path / "file"), **TINY}, "world.yaml"))
    monkeypatch.setattr("align.lab.tasks.MAX_MISSES", 0)
    recipe = {"output": str(tmp_path / "w"), **TINY, "heldout_prompts": 2000}
    with pytest.raises(UserError, match=r"heldout_prompts and rm_heldout_prompts: found only .* distinct prompts"):
        run_world(build(World, recipe, "world.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory"),
        (
            '{"prompt": "who are you", "responses": ["a", "b"]}',
            "answers.jsonl:1: not an instruction of the lab's world",
        ),
        ("", "answers.jsonl: no prompt has two different answers"),
    ],
)
def test_answers_that_cannot_be_ranked_are_told_in_words(tmp_path, text, message):
    if text is not None:
        (tmp_path / "answers.jsonl").write_text(text)
    recipe = {"answers": str(tmp_path / "answers.jsonl"), "output": str(tmp_path / "r.jsonl")}
    with pytest.raises(UserError, match=message):
        run_rank(build(Rank, recipe, "rank.yaml"))
    assert not (tmp_path / "r.jsonl").exists()


def test_rankings_that_cannot_be_written_are_told_in_words(tmp_path, answers):
    with pytest.raises(UserError, match="answers or output: "):
        run_rank(build(Rank, {"answers": str(answers), "output": str(tmp_path)}, "rank.yaml"))
