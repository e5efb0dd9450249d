"""Make the input of both sides: tokenizer, prompts, policies, references, critic and reward model.

    python benchmarks/trl_ppo/make_input.py --out runs/trl_ppo/input

Models are GPT-2s of Hugging Face's own class with random weights: what is compared is arithmetic and speed, not what
is learned. The text is this project's own: prompts are stretches of its documents, the tokenizer also learns from its
code.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model
from work import COMMON, WORKS, Work

from align.models.classifier import save_as_classifier
from align.models.scalar import ScalarModel
from align.text.encode import encode_prompts
from align.text.records import Message
from align.text.tokenizer import train_tokenizer

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "recipes/*.md")

# Roughly how often a policy samples EOS and pad within the longest answer.
ENDINGS = {"never-ends": {"eos": 1e-9, "pad": 1e-9}, "ends": {"eos": 1.5, "pad": 0.3}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--work", choices=WORKS, default="small", help="size of models and batches (small)")
    arguments = parser.parse_args()
    make(WORKS[arguments.work], arguments.out)


def make(work: Work, folder: Path) -> None:
    """Writes tokenizer, prompts and models; the same text gives the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    work.save(folder)
    tokenizer = train_tokenizer(texts(), work.shape["vocab_size"])
    assert len(tokenizer) == work.shape["vocab_size"], len(tokenizer)
    write_prompts(work, tokenizer, folder / "prompts.jsonl")
    config = GPT2Config(
        **work.shape,
        **{name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        initializer_range=0.05,
    )
    for kind, endings in ENDINGS.items():
        torch.manual_seed(1)
        model = GPT2LMHeadModel(config)
        for dimension, (token, times) in enumerate(endings.items()):
            # Other logits are normal, with this variance at the sampling temperature: exp of them averages exp(v / 2).
            variance = config.initializer_range**2 * config.n_embd / COMMON["temperature"] ** 2
            logit = COMMON["temperature"] * (math.log(times / work.n_tokens * len(tokenizer)) + variance / 2)
            add_logit(model, dimension, getattr(tokenizer, f"{token}_token_id"), logit)
        save(model, tokenizer, folder / f"{kind}-reference")
        save(moved(model, work.distance), tokenizer, folder / f"{kind}-policy")
    for name, seed in (("reward", 3), ("critic", 4)):
        torch.manual_seed(seed)
        scalar = ScalarModel(GPT2Model(config)).eval()
        save_as_classifier(scalar, tokenizer.pad_token_id, folder / name)
        scalar.save_head(folder / name)
        tokenizer.save_pretrained(folder / name)


def texts() -> list[str]:
    """This project's documents and code."""
    paths = [path for pattern in (*DOCUMENTS, "align/**/*.py") for path in sorted(ROOT.glob(pattern))]
    return [path.read_text(encoding="utf-8") for path in paths]


def write_prompts(work: Work, tokenizer: Any, path: Path) -> None:
    """Parts of the documents, as text and as the tokens of our chat template."""
    words = " ".join(path.read_text(encoding="utf-8") for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern)))
    remaining, chance, rows = iter(words.split()), random.Random(1), []
    while len(rows) < work.n_prompts:
        text = " ".join(islice(remaining, chance.randint(4, 24)))
        (ids,) = encode_prompts(tokenizer, [[Message("user", text)]])
        if len(ids) <= work.shape["n_positions"] - work.n_tokens:
            rows.append({"prompt": text, "input_ids": ids})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@torch.no_grad()
def add_logit(model: GPT2LMHeadModel, dimension: int, token: int, logit: float) -> None:
    """Adds to the logit of a token at every position, with one dimension of the model's width."""
    norm, embedding = model.transformer.ln_f, model.transformer.wte.weight
    norm.weight[dimension], norm.bias[dimension] = 0.0, 1.0
    embedding[:, dimension] = 0.0
    embedding[token, dimension] = logit


@torch.no_grad()
def moved(model: GPT2LMHeadModel, distance: float) -> GPT2LMHeadModel:
    """The same model with changed weights: a policy with a KL to its reference."""
    noise = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter += distance * torch.randn(parameter.shape, generator=noise)
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Saves a Hugging Face folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
