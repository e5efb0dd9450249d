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
from align.config import build
from align.errors import UserError
from align.evals.cache import Cache
from align.evals.models import EvalModels, check_template
from align.generation import text_model as text_model_module
from align.generation.sampling import Answer, Sampling
from align.generation.text_model import Completion, TextModel
from align.rl import sampler as sampler_module
from align.sections import ComparedModel, Model, PromptedModel
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
    text_model = TextModel(Model(path=thinker), 64)
    speaking(
        monkeypatch, text_model_module, text_model.tokenizer, "[THINK]one two[/THINK] red", " blue", "[THINK]sun moon"
    )
    thought, plain, unfinished = text_model.answer([ASKED] * 3, HOW, 1)
    assert thought is not None
    assert plain is not None
    assert unfinished is not None
    assert (thought.text, thought.thoughts) == ("red", "one two")
    assert (plain.text, plain.thoughts) == ("blue", "")
    assert (unfinished.text, unfinished.thoughts) == ("", "sun moon")


def test_generated_rows_have_thoughts_beside_the_responses(
    thinker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_model = TextModel(Model(path=thinker), 64)
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
        speaking(monkeypatch, text_model_module, text_model.tokenizer, *texts)
        generate.run(recipe)
        row = json.loads((tmp_path / "out.jsonl").read_text())
        assert row["responses"] == ["red", "blue"]
        assert row.get("response_thoughts") == thoughts


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
    voice = EvalModels({"a": PromptedModel(path=thinker)}, {"a": False}, 64, cache)["a"]
    speaking(monkeypatch, text_model_module, voice.tokenizer, "[THINK]one[/THINK] red")
    first = voice.answer([ASKED], HOW, 1)
    assert voice.answer([ASKED], HOW, 1) == first
    assert first[0] is not None
    assert (first[0].text, first[0].thoughts) == ("red", "one")
    assert (cache.computed, cache.read) == (1, 1)
    assert Completion(*json.loads('["red", [1], [2], true]')).thoughts == ""


TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }}{% endfor %}{{ tail | default('') }}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def identity(world: World, folder: Path, **keys: Any) -> dict[str, Any]:
    model = PromptedModel(path=world.base, **keys)
    check_template(model, "models.a")
    return EvalModels({"a": model}, {"a": False}, 64, Cache(folder))["a"].identity


def test_another_template_or_option_asks_anew_and_our_own_is_known_as_before(world: World, tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(TEMPLATE)
    found = [
        identity(world, tmp_path),
        identity(world, tmp_path, template=str(file)),
        identity(world, tmp_path, template=str(file), template_options={"tail": "!"}),
    ]
    assert found[0].keys() == {"model", "plain", "max_tokens", "torch", "transformers"}
    assert found[1]["template"] != found[2]["template"]
    file.write_text(TEMPLATE + "{# {{ strftime_now('%d') }} #}")
    assert "date" in identity(world, tmp_path, template=str(file))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"template": "none.jinja"}, "models.a.template: cannot read none.jinja"),
        ({"template_options": {"enable_thinking": False}}, "models.a.template_options: this template does not read"),
    ],
)
def test_a_template_that_cannot_be_is_told_by_the_models_key(world: World, keys: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_template(PromptedModel(path=world.base, **keys), "models.a")


def test_a_base_model_that_reads_documents_has_no_template() -> None:
    with pytest.raises(UserError, match="no effect with asked: plain"):
        build(ComparedModel, {"path": "x", "asked": "plain", "template": "chat.jinja"}, "models.a")


def test_a_speaker_asks_through_the_template_that_it_is_given(world: World, tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    text_model = TextModel(Model(path=world.base), 64, template=str(tmp_path / "chat.jinja"), options={"tail": " red"})
    (ids,) = text_model.prompt_ids([ASKED])
    assert text_model.tokenizer.decode(ids) == "<|user|> say red red<|assistant|>"
