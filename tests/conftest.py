"""The tiny world that the stages run on. No test reaches for the network.

All compute on one thread, also in processes that they start: sums are always taken in the same order, and workers of
`pytest -n` do not fight for the cores.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when torch or numpy is imported
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import random
from typing import Any

import pytest
import torch
from tiny import World, conversation, ranking, sentences, tiny_gpt, tiny_gpt2, tiny_reward_model, write_rows

from align.gpt.stock import as_stock

torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # no test pulls the plug, and tiny checkpoints mostly wait for the disk


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from align.text.tokenizer import train_tokenizer

    return train_tokenizer(sentences(40), 320)


@pytest.fixture(scope="session")
def world(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    base, gpt2, reward = (folder / name for name in ("base", "gpt2", "reward"))
    for path, model in ((base, as_stock(tiny_gpt(tokenizer))), (gpt2, tiny_gpt2(tokenizer))):
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    tiny_reward_model(tokenizer).save(reward)
    tokenizer.save_pretrained(reward)
    chance = random.Random(2)
    return World(
        str(base),
        str(gpt2),
        str(reward),
        write_rows(folder / "documents.jsonl", [{"text": text} for text in sentences(60)]),
        write_rows(folder / "conversations.jsonl", [conversation(chance) for _ in range(24)]),
        write_rows(folder / "rankings.jsonl", [ranking(chance) for _ in range(20)]),
        write_rows(folder / "prompts.jsonl", [{"prompt": conversation(chance)["prompt"]} for _ in range(20)]),
    )
