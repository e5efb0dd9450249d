"""A model that thinks before it answers: its thoughts are apart from what is judged, scored and shown."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from helpers import recipe_of
from tiny import World, tiny_gpt

from align import generate, ppo
from align.evals.cache import Cache
from align.evals.voices import Voices
from align.rl import sampler as sampler_module
from align.rl import speaker as speaker_module
from align.rl.sampling import Answer, Sampling
from align.rl.speaker import Reply, Speaker
from align.sections import Model
from align.text.records import Message

ASKED = (Message("user", "say red"),)
HOW = Sampling(8)


@pytest.fixture(scope="module")
def thinker(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose tokenizer has marks around thoughts, as Magistral's."""
    marked = deepcopy(tokenizer)
    marked.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]}, False)
    folder = tmp_path_factory.mktemp("thinker")
    tiny_gpt(marked).save_pretrained(folder)
    marked.save_pretrained(folder)
    return str(folder)


def says(*texts: str) -> Any:
    """Stands for `sample`: a model that says these texts, whatever it is asked."""

    def sample(model: Any, prompts: Any, how: Any, eos: Any, *_: Any) -> list[Answer]:
        rows = [TOKENIZER[0](text, add_special_tokens=False)["input_ids"] + [next(iter(eos))] for text in texts]
        return [Answer(row, [-1.0] * len(row), True) for row in rows]

    return sample


TOKENIZER: list[Any] = []  # of the model that speaks, for `says`


def speaking(monkeypatch: pytest.MonkeyPatch, module: Any, tokenizer: Any, *texts: str) -> None:
    TOKENIZER[:] = [tokenizer]
    monkeypatch.setattr(module, "sample", says(*texts))


def test_a_reply_has_thoughts_and_answer_apart(thinker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = Speaker(Model(path=thinker), 64)
    speaking(monkeypatch, speaker_module, speaker.tokenizer, "[THINK]one two[/THINK] red", " blue", "[THINK]sun moon")
    thought, plain, unfinished = speaker.answer([ASKED] * 3, HOW, 1)
    assert thought is not None
    assert plain is not None
    assert unfinished is not None
    assert (thought.text, thought.thoughts) == ("red", "one two")
    assert (plain.text, plain.thoughts) == ("blue", "")
    assert (unfinished.text, unfinished.thoughts) == ("", "sun moon")


def test_generated_rows_have_thoughts_beside_the_responses(
    thinker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = Speaker(Model(path=thinker), 64)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "say red"}\n')
    recipe = generate.Recipe.model_validate(
        {
            "model": {"path": thinker},
            "data": {"path": str(tmp_path / "prompts.jsonl"), "max_tokens": 64},
            "sampling": {"n": 2, "max_tokens": 8},
            "output": str(tmp_path / "out.jsonl"),
            "overwrite": True,
        }
    )
    for texts, thoughts in ((("[THINK]one[/THINK] red", " blue"), ["one", ""]), ((" red", " blue"), None)):
        speaking(monkeypatch, speaker_module, speaker.tokenizer, *texts)
        generate.run(recipe)
        row = json.loads((tmp_path / "out.jsonl").read_text())
        assert row["responses"] == ["red", "blue"]
        assert row.get("thoughts") == thoughts


class Noting:
    """A reward that keeps what it is given."""

    def score(self, prompts: Any, texts: Any, ids: Any) -> list[float]:
        self.texts, self.ids = list(texts), list(ids)
        return [0.0] * len(self.texts)


def test_rewards_are_given_the_answer_without_the_thoughts(
    thinker: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"model__path": thinker, "reward": {"function": "helpers:brevity"}}
    sampler, _, prompts = ppo.build(recipe_of(ppo, world, tmp_path / "run", **keys))
    speaking(monkeypatch, sampler_module, sampler.tokenizer, "[THINK]one[/THINK] red", " blue")
    noting = Noting()
    sampler.roles = sampler.roles._replace(reward=noting)
    rollouts = sampler.measure(prompts[:2], sampler.sample(prompts[:2], 1), remember=False)
    assert (rollouts.texts, rollouts.thoughts) == (["red", "blue"], ["one", ""])
    assert noting.texts == ["red", "blue"]
    assert noting.ids == [[], rollouts.sequences()[1]]  # what was thought about is read anew


def test_an_evaluation_knows_the_thoughts_again_and_reads_what_it_kept_before_there_were_any(
    thinker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    voice = Voices({"a": Model(path=thinker)}, {"a": False}, 64, cache)["a"]
    speaking(monkeypatch, speaker_module, voice.tokenizer, "[THINK]one[/THINK] red")
    first = voice.answer([ASKED], HOW, 1)
    assert voice.answer([ASKED], HOW, 1) == first
    assert first[0] is not None
    assert (first[0].text, first[0].thoughts) == ("red", "one")
    assert (cache.computed, cache.read) == (1, 1)
    assert Reply(*json.loads('["red", [1], [2], true]')).thoughts == ""
