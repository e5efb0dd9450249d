"""Models that answer side by side: portions, the cache, and what cannot be had."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_gpt

from align import sections
from align.errors import JudgeError, UserError
from align.evals.cache import Cache
from align.evals.collect import Collector, ComparedModel
from align.evals.models import EvalModel, EvalModels
from align.generation.sampling import Sampling
from align.generation.text_model import TextModel
from align.models.fingerprint import fingerprint
from align.text.records import Message

HOW = Sampling(max_tokens=8)


class Lengths:
    """A measure: characters. It is down for answers to a prompt with the word `down`."""

    where = "judges.length"

    def columns(self, prompts: Any, texts: Any) -> dict[str, list[float]]:
        if any("down" in prompt[-1].content for prompt in prompts):
            raise JudgeError("the judge is down")
        return {"length": [float(len(text)) for text in texts]}


def asked(n: int) -> list[tuple[Message, ...]]:
    words = ["red", "blue", "green", "cat", "dog"]
    return [(Message("user", f"say {words[i % 5]} {words[i // 5 % 5]} {words[i // 25 % 5]}"),) for i in range(n)]


def contest(world: Any, folder: Path, prompts: Any, models: dict[str, dict[str, Any]], **settings: Any) -> Collector:
    compared_models = {name: ComparedModel(**{"path": world.base, **keys}) for name, keys in models.items()}
    plain = {name: model.asked == "plain" for name, model in compared_models.items()}
    eval_models = EvalModels(compared_models, plain, settings.pop("max_tokens", 48), Cache(folder))
    return Collector(compared_models, prompts, eval_models, HOW, 1, settings.pop("measures", [Lengths()]), **settings)


def texts(said: Any) -> list[str | None]:
    return [None if reply is None else reply.text for portion in said.portions() for reply in portion]


def test_answers_are_those_of_the_model(world, tmp_path):
    prompts = asked(20)
    held = contest(
        world, tmp_path, prompts, {"sft": {}, "again": {}, "other": {"seed": 2}}, reference="sft"
    ).collected()
    text_model = TextModel(sections.Model(path=world.base), 48)
    assert texts(held["sft"]) == [reply.text for reply in text_model.answer(prompts, HOW, (1, 0))]
    assert texts(held["sft"]) == texts(held["again"]) != texts(held["other"])
    assert held["sft"].columns["length"].tolist() == [len(text) for text in texts(held["sft"])]
    assert held["again"].columns["kl"].tolist() == [0.0] * 20
    assert held["other"].columns["kl"].tolist() == pytest.approx([0.0] * 20, abs=1e-5)


def test_every_portion_draws_anew(world, tmp_path, monkeypatch):
    monkeypatch.setattr(EvalModel.answers, "__defaults__", (None, 4))
    prompts = [asked(1)[0]] * 8
    held = contest(world, tmp_path, prompts, {"sft": {}}).collected()
    text_model = TextModel(sections.Model(path=world.base), 48)
    portions = [[reply.text for reply in text_model.answer(prompts[:4], HOW, (1, n))] for n in (0, 1)]
    assert texts(held["sft"]) == portions[0] + portions[1]
    assert portions[0] != portions[1]


def test_the_second_time_no_model_is_loaded(world, tmp_path, monkeypatch):
    models = {"sft": {}, "ppo": {"path": world.gpt2}}
    first = contest(world, tmp_path, asked(9), models, reference="sft").collected()
    monkeypatch.setattr("align.generation.text_model.load_causal_lm", lambda *_, **__: pytest.fail("loaded"))
    second = contest(world, tmp_path, asked(9), models, reference="sft").collected()
    for name in models:
        assert texts(first[name]) == texts(second[name])
        for column, values in first[name].columns.items():
            assert values.tolist() == second[name].columns[column].tolist()


def test_what_was_answered_before_a_kill_is_not_asked_again(world, tmp_path, monkeypatch):
    monkeypatch.setattr(EvalModel.answers, "__defaults__", (None, 4))
    whole = contest(world, tmp_path / "whole", asked(10), {"sft": {}}).collected()
    answered: list[int] = []
    true = TextModel.answer

    def dies(self: Any, now: Any, *others: Any) -> Any:
        if sum(answered) == 8:
            raise KeyboardInterrupt
        answered.append(len(now))
        return true(self, now, *others)

    monkeypatch.setattr(TextModel, "answer", dies)
    with pytest.raises(KeyboardInterrupt):
        contest(world, tmp_path / "cut", asked(10), {"sft": {}}).collected()
    answered.clear()
    resumed = contest(world, tmp_path / "cut", asked(10), {"sft": {}}).collected()
    assert answered == [2]
    assert texts(resumed["sft"]) == texts(whole["sft"])


def test_only_one_model_is_in_memory(world, tmp_path, monkeypatch):
    alive: set[int] = set()
    true = TextModel.__init__

    def counted(self: Any, *arguments: Any) -> None:
        true(self, *arguments)
        alive.add(id(self))
        assert len(alive) == 1

    monkeypatch.setattr(TextModel, "__init__", counted)
    monkeypatch.setattr(TextModel, "__del__", lambda self: alive.discard(id(self)), raising=False)
    contest(world, tmp_path, asked(3), {"a": {}, "b": {"path": world.gpt2}, "c": {}}, reference="a").collected()


def test_a_prompt_without_room_is_told_and_the_others_are_answered(world, tmp_path):
    long = (Message("user", "say " + "river " * 60),)
    held = contest(world, tmp_path, [*asked(2), long, *asked(1)], {"sft": {}}, reference="sft")
    said = held.collected()["sft"]
    assert [text is None for text in texts(said)] == [False, False, True, False]
    assert [math.isnan(value) for value in said.columns["kl"]] == [False, False, True, False]
    assert said.mean("length") is not None
    (problem,) = held.problems
    assert (problem.where, problem.n) == ("models.sft", 1)
    assert "no room for an answer of 8 tokens" in problem.what


def test_what_the_reference_cannot_read_has_no_kl(world, tmp_path):
    """A base model reads the last turn of a conversation, and answers where the reference has no room."""
    turns = (Message("user", "river " * 40), Message("assistant", "red"), Message("user", "say blue"))
    held = contest(
        world, tmp_path, [*asked(2), turns], {"base": {"asked": "plain"}, "sft": {}}, reference="sft", measures=[]
    )
    answers = held.collected()
    assert [math.isnan(value) for value in answers["base"].columns["kl"]] == [False, False, True]
    assert [math.isnan(value) for value in answers["sft"].columns["kl"]] == [False, False, True]
    told = {(problem.where, problem.n): problem.what for problem in held.problems}
    assert "its KL was not measured" in told["models.base", 1]
    assert "no room for an answer" in told["models.sft", 1]


def test_a_judge_that_is_down_costs_its_own_numbers_only(world, tmp_path):
    held = contest(world, tmp_path, [*asked(2), (Message("user", "say down"),)], {"sft": {}})
    said = held.collected()["sft"]
    assert said.known("length") is None
    assert said.known("n_tokens") is not None
    assert [(p.where, p.what, p.n) for p in held.problems] == [("judges.length", "the judge is down", 3)]


def test_a_model_that_cannot_speak_is_told_and_the_others_do(world, tokenizer, tmp_path):
    broken = tmp_path / "broken"
    tiny_gpt(tokenizer).save_pretrained(broken)  # without a tokenizer
    held = contest(world, tmp_path / "cache", asked(2), {"broken": {"path": str(broken)}, "sft": {}})
    assert list(held.collected()) == ["sft"]
    assert held.problems[0].where == "models.broken"
    assert "no tokenizer in this folder" in held.problems[0].what
    alone = contest(world, tmp_path / "cache", asked(2), {"broken": {"path": str(broken)}})
    with pytest.raises(UserError, match=r"no model could answer\n  models.broken: .*no tokenizer"):
        alone.collected()


def test_a_model_without_a_template_is_asked_plainly_and_told(world, tokenizer, tmp_path):
    bare = tmp_path / "bare"
    tiny_gpt(tokenizer).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    for path in (bare / "chat_template.jinja", bare / "tokenizer_config.json"):
        if path.suffix == ".json":
            settings = json.loads(path.read_text())
            settings.pop("chat_template", None)
            path.write_text(json.dumps(settings))
        else:
            path.unlink(missing_ok=True)
    held = contest(world, tmp_path / "cache", asked(2), {"bare": {"path": str(bare)}, "sft": {}})
    assert list(held.collected()) == ["bare", "sft"]
    assert [problem.where for problem in held.problems] == ["models.bare"]
    assert "has no chat template" in held.problems[0].what


def test_a_model_is_known_by_its_files(world, tokenizer, tmp_path):
    same, other = tmp_path / "same", tmp_path / "other"
    shutil.copytree(world.base, same)
    tiny_gpt(tokenizer, seed=9).save_pretrained(other)
    tokenizer.save_pretrained(other)
    found = [fingerprint(sections.Model(path=str(path))) for path in (world.base, same, other)]
    assert found[0] == found[1] != found[2]
    settings = json.loads((same / "tokenizer_config.json").read_text())
    (same / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 17}))
    assert fingerprint(sections.Model(path=str(same))) != found[0]


def test_log_probabilities_are_those_of_the_whole_forward_pass(world):
    text_model = TextModel(sections.Model(path=world.gpt2), 64)
    rows = [([5, 6, 7], [8, 9]), ([4], [3, 2, 1, 9]), ([4, 4], [])]
    found = text_model.logprobs(rows)
    assert [len(row) for row in found] == [2, 4, 0]
    for (given, scored), mine in zip(rows, found, strict=True):
        logits = text_model.model(torch.tensor([given + scored])).logits[0].detach().float()
        for place, token in enumerate(scored, start=len(given)):
            assert mine[place - len(given)] == pytest.approx(float(logits[place - 1].log_softmax(-1)[token]), abs=1e-5)
    assert text_model.logprobs([([1], [])]) == [[]]


def test_a_text_is_cut_before_the_stop(world):
    text_model = TextModel(sections.Model(path=world.base), 64, plain=True)
    whole = text_model.answer(["say red blue"] * 20, Sampling(max_tokens=20), 3)
    cut = text_model.answer(["say red blue"] * 20, Sampling(max_tokens=20), 3, stop="e")
    assert any("e" in reply.text for reply in whole)
    for a, b in zip(whole, cut, strict=True):
        assert b.text == a.text.partition("e")[0].rstrip() or len(b.ids) < len(a.ids)
        assert "e" not in b.text
