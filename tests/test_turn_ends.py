"""A chat model whose turns end in another token than its tokenizer's EOS, as Gemma's: asked, trained and saved."""

import copy
import json
from typing import Any, NamedTuple

import pytest
import torch
from helpers import metrics, run
from tiny import WORDS, likes_eos, tiny_gpt2, tiny_reward_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from align import ppo, sft
from align.generation.sampling import Sampling
from align.generation.text_model import TextModel
from align.sections import ComparedModel, Model
from align.text.ends import ends_of
from align.text.records import Message
from apps.compare.models import StreamedAnswer, StreamingModel

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<turn>' + message['role'] + '\\n' + message['content'] + '</turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\\n' }}{% endif %}"
)
ASKED = [[Message("user", word)] for word in WORDS[:8]]


class Chat(NamedTuple):
    path: str
    reward: str
    eos: int
    turn: int


@pytest.fixture(scope="module")
def chat(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Chat:
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<turn>", "</turn>"]})
    tokenizer.chat_template = TEMPLATE
    eos, turn = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("</turn>")
    model = tiny_gpt2(tokenizer)
    torch.nn.init.zeros_(model.transformer.ln_f.bias)  # which was for EOS
    likes_eos(model, turn)
    model.generation_config.eos_token_id = [eos, turn]
    for path, one in (("model", model), ("reward", tiny_reward_model(tokenizer))):
        one.save_pretrained(folder / path) if one is model else one.save(folder / path)
        tokenizer.save_pretrained(folder / path)
    return Chat(str(folder / "model"), str(folder / "reward"), eos, turn)


def generated(path: str, prompts: list[list[int]], n: int) -> list[list[int]]:
    """What plain transformers says, greedily, its end included."""
    model = AutoModelForCausalLM.from_pretrained(path)
    rows = [model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=n)[0] for ids in prompts]
    return [row[len(ids) :].tolist() for row, ids in zip(rows, prompts, strict=True)]


def test_answers_end_where_transformers_end_them(chat):
    text_model = TextModel(Model(path=chat.path), 64)
    replies = [reply for reply in text_model.answer(ASKED, Sampling(24, 0.0), 1) if reply is not None]
    assert [reply.ids for reply in replies] == generated(chat.path, [reply.prompt_ids for reply in replies], 24)
    assert {reply.ids[-1] for reply in replies if reply.ended} == {chat.turn}
    voice = StreamingModel("chat", ComparedModel(path=chat.path), 64)
    *pieces, whole = voice.answer(ASKED[0], Sampling(24), 2, lambda: False)
    assert isinstance(whole, StreamedAnswer)
    assert (whole.end, whole.ids[-1]) == ("eos", chat.turn)
    assert ("".join(map(str, pieces)) + whole.rest).strip() == whole.text


@pytest.mark.parametrize("stage", [sft, ppo], ids=["sft", "ppo"])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_what_was_taught_to_end_is_in_what_is_saved(stage, adapter, world, chat, tmp_path):
    changes = {"reward__path": chat.reward} if stage is ppo else {}
    folder = run(
        stage, world, tmp_path / "run", model__path=chat.path, model__adapter=adapter, train__steps=2, **changes
    )
    if stage is ppo:
        assert max(row["val/ended"] for row in metrics(folder)) > 0.5
    for name in ("config.json", "generation_config.json"):
        saved = json.loads((folder / "model" / name).read_text())
        assert (saved["eos_token_id"], saved["pad_token_id"]) == ([chat.turn, chat.eos], 1)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert ends_of(tokenizer).ids == (chat.turn, chat.eos)
