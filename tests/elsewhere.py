"""Whether models that this package made are read where it is not installed: `.ci/run` runs this in two environments.

python tests/elsewhere.py make FOLDER      # here: every stage on the tiny world, and what its models say
python elsewhere.py check FOLDER           # elsewhere, with torch, transformers and peft alone: the same within 1e-5
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch

ROWS = [[5, 6, 7, 8, 9, 10, 0], [11, 12, 13, 0]]  # of ids; each ends in EOS, where a classifier reads
TOLERANCE = 1e-5
LORA = {"model__adapter": "lora"}


def make(folder: Path) -> None:
    """Runs the stages, each also with an adapter, and writes what their models compute into expected.json."""
    from helpers import run
    from tiny import World, conversation, ranking, sentences, tiny_gpt, tiny_reward_model, write_rows

    from align import dpo, ppo, pretrain, rm, sft
    from align.text.tokenizer import train_tokenizer

    tokenizer, chance = train_tokenizer(sentences(40), 320), random.Random(2)
    for name, model in (
        ("start", tiny_gpt(tokenizer, initializer_range=0.1)),
        ("scorer", tiny_reward_model(tokenizer)),
    ):
        (model.save if name == "scorer" else model.save_pretrained)(folder / name)
        tokenizer.save_pretrained(folder / name)
    world = World(
        *(str(folder / name) for name in ("start", "start", "scorer")),
        write_rows(folder / "documents.jsonl", [{"text": text} for text in sentences(60)]),
        write_rows(folder / "conversations.jsonl", [conversation(chance) for _ in range(24)]),
        write_rows(folder / "rankings.jsonl", [ranking(chance) for _ in range(20)]),
        write_rows(folder / "prompts.jsonl", [{"prompt": conversation(chance)["prompt"]} for _ in range(20)]),
    )
    run(pretrain, world, folder / "base")
    run(sft, world, folder / "sft")
    sft_model = {"model__path": str(folder / "sft" / "model")}
    run(rm, world, folder / "rm", **sft_model)
    scored = sft_model | {"reward__path": str(folder / "rm" / "model")}
    run(
        ppo,
        world,
        folder / "ppo",
        **scored,
        evaluation__best="objective/scores",
        train__eval_every=2,
        data__validation=0.2,
    )
    run(dpo, world, folder / "dpo", **sft_model)
    for stage, name in ((sft, "sft-lora"), (rm, "rm-lora")):
        run(stage, world, folder / name, **sft_model, **LORA)
    run(ppo, world, folder / "ppo-lora", **scored, **LORA)
    (folder / "expected.json").write_text(json.dumps(said_here(folder)))


def said_here(folder: Path) -> dict[str, Any]:
    """What each model folder below `folder` says, loaded as this package loads it."""
    from align import sections
    from align.models.load import load_causal_lm
    from align.models.scalar import load_scalar_model, score_members

    said: dict[str, Any] = {}
    for path in sorted(path.parent for path in folder.glob("*/*/config.json")):
        name, model = str(path.relative_to(folder)), sections.Model(path=str(path))
        if (path / "score_head.safetensors").is_file():
            said[name] = score_members(load_scalar_model(model), ROWS, 8192, "cpu")
        else:
            ours = load_causal_lm(model).eval()
            with torch.no_grad():
                said[name] = [ours(torch.tensor([row])).logits[0].tolist() for row in ROWS]
    return said


@torch.no_grad()
def check(folder: Path) -> None:
    """Raises `AssertionError` where a model does not open with the stock classes, or says something else."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    assert importlib.util.find_spec("align") is None, "this package must not be importable here"
    expected = json.loads((folder / "expected.json").read_text())
    for name, said in expected.items():
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        assert set(tokenizer("red")) == {"input_ids", "attention_mask"}, name
        if name.startswith("rm"):
            batch = tokenizer.pad({"input_ids": ROWS}, return_tensors="pt")
            model = AutoModelForSequenceClassification.from_pretrained(folder / name).eval()
            compare(name, [*model(**batch).logits], said)
        elif name.endswith("critic"):  # a trunk; its head is ours alone
            AutoModel.from_pretrained(folder / name)
        else:
            compare(name, logits(AutoModelForCausalLM.from_pretrained(folder / name)), said)
    check_adapter(folder, "sft-lora", AutoModelForCausalLM)
    check_adapter(folder, "ppo-lora", AutoModelForCausalLM)
    check_adapter(folder, "rm-lora", AutoModel)
    print(f"{len(expected)} models and 3 adapters are read without this package")


def check_adapter(folder: Path, run: str, auto_class: Any) -> None:
    """An adapter on the stock model that it was trained on is the merged model, but for a constant of rewards."""
    import warnings

    from peft import PeftModel

    warnings.filterwarnings("error", "Found missing adapter keys|fan_in_fan_out is set to")
    base = json.loads((folder / run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    adapted = PeftModel.from_pretrained(auto_class.from_pretrained(base), str(folder / run / "adapter"))
    found, merged = logits(adapted), logits(auto_class.from_pretrained(folder / run / "model"))
    if run.startswith("rm"):  # the last bias has taken in the shift of its scores: one vector, at every token
        found, merged = ([row - row[:1] for row in rows] for rows in (found, merged))
    compare(f"{run}/adapter", found, [row.tolist() for row in merged])


def logits(model: Any) -> list[torch.Tensor]:
    """What a model says of each row, (time, vocabulary), or of a trunk (time, width)."""
    return [model.eval()(torch.tensor([row]))[0][0] for row in ROWS]


def compare(name: str, found: list[torch.Tensor], expected: list[Any]) -> None:
    for row, wanted in zip(found, expected, strict=True):
        gap = (row - torch.tensor(wanted)).abs().max().item()
        assert gap <= TOLERANCE, f"{name}: {gap} apart"


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]).absolute())
