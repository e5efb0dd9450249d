"""A world small enough for seconds: models of a few thousand weights, a few dozen rows for every stage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch

WORDS = ["red", "blue", "green", "cat", "dog", "bird", "sun", "moon", "one", "two", "three", "river", "bread", "salt"]
N_POSITIONS = 64
SHAPE = {"n_positions": N_POSITIONS, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}


class World(NamedTuple):
    """Paths of everything that a stage may be given."""

    base: str  # our GPT with its tokenizer; says EOS at about every fifth token
    gpt2: str  # the same size in Hugging Face's own class, with GPT-2's dropout
    reward: str  # a reward model with the same tokenizer
    documents: str
    conversations: str
    rankings: str
    prompts: str


def tiny_gpt(tokenizer: Any, seed: int = 1, **changes: Any) -> Any:
    from align.gpt import GPTConfig, GPTForCausalLM

    torch.manual_seed(seed)
    shape = {**SHAPE, "vocab_size": len(tokenizer), **special_ids(tokenizer), **changes}
    return likes_eos(GPTForCausalLM(GPTConfig(**shape)).eval(), tokenizer.eos_token_id)


def tiny_gpt2(tokenizer: Any, seed: int = 1, **changes: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    shape = {**SHAPE, "vocab_size": len(tokenizer), **special_ids(tokenizer), **changes}
    return likes_eos(GPT2LMHeadModel(GPT2Config(**shape)).eval(), tokenizer.eos_token_id)


def tiny_reward_model(tokenizer: Any, seed: int = 3, **changes: Any) -> Any:
    from align.models.scalar import ScalarModel

    model = ScalarModel(tiny_gpt(tokenizer, seed, **changes).transformer).eval()
    model.shift += 0.25
    return model


def likes_eos(model: Any, eos_id: int, logit: float = 6.0) -> Any:
    """Adds `logit` to EOS at every position, so that answers of many lengths come up."""
    with torch.no_grad():
        row = model.transformer.wte.weight[eos_id]
        model.transformer.ln_f.bias += row * logit / row.square().sum()
    return model


def special_ids(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def sentences(n: int) -> list[str]:
    chance = random.Random(1)
    return [" ".join(chance.choices(WORDS, k=chance.randint(3, 12))) + " ." for _ in range(n)]


def conversation(chance: random.Random) -> dict[str, str]:
    words = chance.choices(WORDS, k=chance.randint(2, 5))
    return {"prompt": "say " + " ".join(words), "completion": " and ".join(words)}


def ranking(chance: random.Random) -> dict[str, Any]:
    n_answers = chance.randint(2, 4)
    answers = [" ".join(chance.choices(WORDS, k=chance.randint(1, 5))) for _ in range(n_answers)]
    ranks = chance.sample(range(1, n_answers + 1), n_answers)
    return {"prompt": conversation(chance)["prompt"], "responses": answers, "ranks": ranks}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
