"""What models say token by token, and what is measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from comparing import recipe_of
from tiny import tiny_gpt2

from align.errors import UserError
from align.generation.sampling import Sampling
from align.sections import ComparedModel
from align.text.records import Message
from apps.compare import models as models_module
from apps.compare.answering import Side, conversation
from apps.compare.models import StreamDecoder, StreamedAnswer, StreamingModel, StreamingModels, Thought

HOW = Sampling(12)


def asked(*texts: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts))


def said(model: StreamingModel, turns: Any, how: Sampling = HOW, seed: int = 1) -> tuple[list[str], StreamedAnswer]:
    *pieces, whole = model.answer(turns, how, seed, lambda: False)
    assert isinstance(whole, StreamedAnswer)
    return [str(piece) for piece in pieces], whole


@torch.no_grad()
def plain(model: StreamingModel, prompt: list[int], ids: list[int]) -> torch.Tensor:
    """What each token is drawn from by a forward pass over everything: (n_tokens, vocabulary) log probabilities."""
    logits = model.text_model.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].double()
    logits[:, model.text_model.never_sampled] = -math.inf
    return logits.log_softmax(-1)


@pytest.mark.parametrize("name", ["base", "sft", "ppo"])
def test_the_pieces_are_the_answer_that_the_speaker_gives(loaded: StreamingModels, name: str) -> None:
    model = loaded.by_name[name]
    for seed in range(6):
        turns = asked("say red blue", "red and blue", "say sun moon")
        pieces, whole = said(model, turns, HOW, seed)
        (reply,) = model.text_model.answer([turns], HOW, seed)
        assert reply is not None
        assert (whole.text, whole.prompt_ids, whole.ids) == reply[:3]
        assert ("".join(pieces) + whole.rest).strip() == whole.text
        assert len(pieces) == len(whole.ids)
        assert whole.end == ("eos" if reply.ended else "length")


def test_the_same_seed_gives_equal_models_equal_answers(loaded: StreamingModels, models: dict[str, Any]) -> None:
    twins = StreamingModels(recipe_of({"models": {"a": models["models"]["sft"], "b": models["models"]["sft"]}}))
    texts = [said(model, asked("say red"), HOW, 5)[1].ids for model in twins.by_name.values()]
    assert texts[0] == texts[1]


def test_figures_are_those_of_a_plain_forward_pass(loaded: StreamingModels) -> None:
    ppo, sft = loaded.by_name["ppo"], loaded.by_name["sft"]
    turns = asked("say red blue")
    _, whole = said(ppo, turns)
    found = loaded.measure(ppo, turns, whole)
    logs = [plain(model, whole.prompt_ids, whole.ids) for model in (ppo, sft)]
    ids = torch.tensor(whole.ids)[:, None]
    assert found.logprobs == pytest.approx(logs[0].gather(1, ids)[:, 0].tolist(), abs=1e-4)
    assert found.reference == pytest.approx(logs[1].gather(1, ids)[:, 0].tolist(), abs=1e-4)
    can = logs[0].exp() > 0
    kl = torch.where(can, logs[0].exp() * (logs[0] - logs[1]), 0).sum(-1)
    assert found.kl == pytest.approx(kl.tolist(), abs=1e-4)
    assert min(found.kl or []) > 0
    assert loaded.measure(sft, turns, said(sft, turns)[1]).kl == pytest.approx([0.0] * len(said(sft, turns)[1].ids))


def test_the_base_model_is_asked_in_its_own_form_and_so_is_the_reference(loaded: StreamingModels) -> None:
    base, sft = loaded.by_name["base"], loaded.by_name["sft"]
    turns = asked("say red")
    _, whole = said(base, turns)
    assert whole.prompt_ids == [0, *base.tokenizer(" say red\n", add_special_tokens=False)["input_ids"]]
    found = loaded.measure(base, turns, whole)
    alone = plain(sft, sft.prompt_ids(turns), whole.ids)[range(len(whole.ids)), whole.ids]
    assert found.reference == pytest.approx(alone.tolist(), abs=1e-4)


def test_without_the_same_tokens_there_is_no_kl(loaded: StreamingModels, tmp_path: Any) -> None:
    from align.text.tokenizer import train_tokenizer

    other = train_tokenizer(["quite other words than those"] * 20, 300)
    tiny_gpt2(other).save_pretrained(tmp_path)
    other.save_pretrained(tmp_path)
    sft = loaded.by_name["sft"].tokenizer.name_or_path
    mixed = StreamingModels(recipe_of({"models": {"sft": {"path": sft}, "other": {"path": str(tmp_path)}}}))
    model = mixed.by_name["other"]
    found = mixed.measure(model, asked("say red"), said(model, asked("say red"))[1])
    assert found.reference is None
    assert found.kl is None
    assert all(value < 0 for value in found.logprobs)


def test_a_stop_is_heeded_between_two_tokens(loaded: StreamingModels) -> None:
    n_asked = []

    def is_stopped() -> bool:
        n_asked.append(1)
        return len(n_asked) == 3

    eos = loaded.by_name["sft"].eos
    seed = next(seed for seed in range(50) if len(said(loaded.by_name["sft"], asked("say red"), HOW, seed)[1].ids) > 5)
    full = said(loaded.by_name["sft"], asked("say red"), HOW, seed)[1]
    *pieces, whole = loaded.by_name["sft"].answer(asked("say red"), HOW, seed, is_stopped)
    assert isinstance(whole, StreamedAnswer)
    assert (len(pieces), whole.ids, whole.end) == (3, full.ids[:3], "stopped")
    assert whole.ids[-1] not in eos


def test_an_answer_takes_the_room_that_is_left_and_no_prompt_more_than_there_is(loaded: StreamingModels) -> None:
    model = loaded.by_name["sft"]
    turns = next(t for n in range(70) if 64 - len(model.prompt_ids(t := asked("red " * n))) < 4)
    room = 64 - len(model.prompt_ids(turns))
    assert room > 0
    ends = [said(model, turns, Sampling(50), seed)[1] for seed in range(30)]
    assert {whole.end for whole in ends} == {"eos", "room"}
    assert max(len(whole.ids) for whole in ends) == room
    with pytest.raises(UserError, match=r"The conversation has \d+ tokens; the limit with the answer is 64\. Start"):
        said(model, asked("red " * 70))


@pytest.mark.parametrize(
    "text", ["hello world", " two  spaces", "naïve café", "日本語です", "👩‍👩‍👧 family", "a\n\nb\t", "ابجد"]
)
def test_pieces_put_characters_together_whatever_their_bytes(loaded: StreamingModels, text: str) -> None:
    tokenizer = loaded.by_name["sft"].tokenizer
    ids = tokenizer(text * 3, add_special_tokens=False)["input_ids"]
    assert len(ids) > 8
    pieces = StreamDecoder(tokenizer)
    told = [pieces.next(token) for token in ids]
    assert "".join(told) == text * 3
    assert not any("�" in piece for piece in told)
    assert pieces.rest() == ""


def test_the_reward_is_the_reward_models_own(loaded: StreamingModels) -> None:
    from align.rewards.scorer import Scorer
    from align.rewards.settings import RewardModel

    turns = asked("say red blue")
    scorer = Scorer(RewardModel(path=loaded.reward.path), 4096)
    encoded = scorer.encode([list(turns)], ["red and blue"])
    assert loaded.score(turns, "red and blue") == pytest.approx(scorer.score([[m.ids for m in encoded[0]]]).scores[0])


@pytest.fixture
def thinker(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StreamingModel]:
    """A model that says what it is told to; its tokenizer has marks around thoughts."""
    marked = deepcopy(tokenizer)
    marked.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]}, False)
    tiny_gpt2(marked).save_pretrained(tmp_path)
    marked.save_pretrained(tmp_path)
    model = StreamingModel("thinker", ComparedModel(path=str(tmp_path)), 64)

    def saying(text: str) -> StreamingModel:
        ids = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
        monkeypatch.setattr(models_module, "stream", lambda *_: iter(ids))
        return model

    return saying


def test_thoughts_are_told_apart_from_the_answer_while_they_come(thinker: Callable[[str], StreamingModel]) -> None:
    *pieces, whole = thinker("[THINK] one two[/THINK] red blue").answer(asked("say red"), HOW, 1, lambda: False)
    assert isinstance(whole, StreamedAnswer)
    assert (whole.thoughts, whole.text) == ("one two", "red blue")
    assert "".join(str(piece) for piece in pieces if isinstance(piece, Thought)).strip() == "one two"
    assert "".join(str(piece) for piece in pieces if not isinstance(piece, Thought)).strip() == "red blue"
    assert len(pieces) == len(whole.ids)


def test_what_the_page_gets_names_thoughts(loaded: StreamingModels, thinker: Callable[[str], StreamingModel]) -> None:
    model = thinker("[THINK] one[/THINK] red")
    *events, end, _ = conversation(loaded, [Side(model, asked("say red"), 1)], HOW, lambda: False)
    assert "".join(event["piece"] for event in events if event.get("thought")).strip() == "one"
    assert (end["thoughts"], end["text"]) == ("one", "red")
    assert "thought" not in {key for event in events if event["piece"].strip() == "red" for key in event}
