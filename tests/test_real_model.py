"""A real pretrained model, SmolLM2-135M-Instruct, goes through what the tiny ones do.

Grouped-query attention, tied embeddings, a template of its own, weights that mean something. It is not part of the
repository: ALIGN_REAL_MODEL names its folder, and where it is not set these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import metrics, nested
from peft import AutoPeftModelForCausalLM
from tiny import write_rows
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from align import rm, sections, sft
from align.config import build
from align.generation.sampling import Sampling
from align.generation.text_model import TextModel
from align.models.language import LanguageModel, negative_log_likelihood
from align.models.load import load_causal_lm
from align.models.purpose import HEAD_FILE
from align.models.scalar import load_scalar_model, score_all
from align.rewards.model import ModelReward
from align.text.encode import encode_conversations
from align.text.records import Conversation, Message
from align.text.tokenizer import load_tokenizer

FOLDER = os.environ.get("ALIGN_REAL_MODEL", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="ALIGN_REAL_MODEL names no folder of SmolLM2-135M-Instruct"),
]

QUESTIONS = ["What is the capital of France?", "Name three colours.", "Write one short sentence about a cat on a roof."]
ANSWERS = ["It is Paris.", "Red, blue and green.", "The cat sleeps on the warm roof and does not care."]
STEP: dict[str, Any] = {
    "model.path": FOLDER,
    "model.adapter": "lora",
    "data.max_tokens": 96,
    "data.validation": 0.0,
    "optim.batch_size": 3,
    "optim.learning_rate": 1e-3,
    "train.steps": 1,
    "train.precision": "fp32",
}


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="module")
def plain() -> tuple[Any, Any]:
    """Model and tokenizer as transformers loads them."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def conversations(tmp_path_factory) -> str:
    rows = [{"messages": turns(*pair)} for pair in zip(QUESTIONS, ANSWERS, strict=True)]
    return write_rows(tmp_path_factory.mktemp("data") / "conversations.jsonl", rows)


@pytest.fixture
def output(tmp_path) -> Iterator[Path]:
    """A run's folder, half a gigabyte, which is not kept."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run")


def step(stage: ModuleType, output: Path, **changes: Any) -> Path:
    """One step of a stage, with what it saves."""
    keys = STEP | {"output": str(output)} | {key.replace("__", "."): value for key, value in changes.items()}
    stage.run(build(stage.Recipe, nested(keys), "recipe"))
    return output


def ids_of(tokenizer: Any, messages: list[dict[str, str]], **how: Any) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, return_dict=True, **how)["input_ids"])


def test_greedy_answers_are_hugging_faces(plain):
    """Token for token, asked together here and one by one there, up to where the shorter answer ends."""
    model, tokenizer = plain
    asked = [[Message("user", question)] for question in QUESTIONS]
    text_model = TextModel(sections.Model(path=FOLDER), 128)
    ours = text_model.answer(asked, Sampling(max_tokens=16, temperature=0.0), seed=1)
    for question, reply in zip(QUESTIONS, ours, strict=True):
        prompt = ids_of(tokenizer, turns(question, "")[:1], add_generation_prompt=True)
        given = torch.tensor([prompt])
        with torch.no_grad():
            row = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=16, do_sample=False)
        theirs = row[0, len(prompt) :].tolist()
        n = min(len(reply.ids), len(theirs))
        assert reply.prompt_ids == prompt
        assert n >= 4
        assert reply.ids[:n] == theirs[:n]


def test_the_loss_of_a_batch_is_a_plain_computation(plain):
    """The template written out, and -log p of each token of the answers, one conversation at a time."""
    model, tokenizer = plain
    expected, n_expected = 0.0, 0
    for pair in zip(QUESTIONS, ANSWERS, strict=True):
        whole = ids_of(tokenizer, turns(*pair))
        begin = len(ids_of(tokenizer, turns(*pair)[:1], add_generation_prompt=True))
        end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)  # behind it the template writes a newline
        with torch.no_grad():
            logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        expected -= sum(float(logprobs[t - 1, whole[t]]) for t in range(begin, end))
        n_expected += end - begin
    mine = load_tokenizer(FOLDER)
    records = [
        Conversation((Message("user", question), Message("assistant", answer)))
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    rows, _ = encode_conversations(mine, records, 96)
    lm = LanguageModel(load_causal_lm(sections.Model(path=FOLDER), n_tokens=len(mine)).eval())
    with torch.no_grad():
        found, _ = negative_log_likelihood(lm, rows, "cpu")
    assert sum(sum(row.is_target) for row in rows) == n_expected
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bits", ["none", "8bit", "4bit"])
def test_an_adapter_takes_a_step_and_opens_in_transformers(bits, conversations, output):
    """model/ and adapter/ are one model, and no longer the one that was started from."""
    folder = step(sft, output, data__path=conversations, model__quantization=bits, samples=0)
    assert 0 < metrics(folder)[0]["loss/train"] < 5
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = torch.tensor([ids_of(tokenizer, turns(QUESTIONS[0], ANSWERS[0]))])
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)(ids).logits
        adapted = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", dtype=torch.float32)
        assert (whole - adapted(ids).logits).abs().max() < 1e-3
        with adapted.disable_adapter():
            assert (whole - adapted(ids).logits).abs().max() > 0.01


def test_a_reward_model_opens_in_transformers(output, tmp_path):
    """Its score is the stock class's, but for the constant that is noted in config.json; that class is a reward too."""
    rankings = [
        {"prompt": q, "responses": [a, "No."], "ranks": [1, 2]} for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    folder = step(rm, output, data__path=write_rows(tmp_path / "rankings.jsonl", rankings)) / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stock = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    whole = [ids_of(tokenizer, turns(*pair)) for pair in zip(QUESTIONS, ANSWERS, strict=True)]
    rows = [row[:-1] for row in whole]  # up to EOS: behind it the template writes a newline
    with torch.no_grad():
        theirs = [float(stock(torch.tensor([row])).logits) - stock.config.score_shift for row in rows]
    ours = score_all(load_scalar_model(sections.Model(path=str(folder))), rows, 512, "cpu")
    assert ours == pytest.approx(theirs, abs=1e-3)

    (folder / HEAD_FILE).unlink()  # now it is somebody else's, and is read by its own template, newline included
    with torch.no_grad():
        alone = [stock(torch.tensor([row])).logits.item() for row in whole]
    prompts = [[Message("user", question)] for question in QUESTIONS]
    reward = ModelReward(str(folder), tokenizer, "cpu", 512)
    assert reward.score(prompts, ANSWERS, []) == pytest.approx(alone, abs=1e-4)
