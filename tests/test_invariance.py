"""What must not change the result: the size of micro-batches; and what must be the same elsewhere: a plain loop."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import STEADY, largest_difference, metrics, recipe_of, run, weights
from tiny import tiny_gpt2, write_rows
from transformers import AutoModel, AutoModelForCausalLM

from align import ppo, pretrain, rm, sft
from align.text.batches import rows_of_step
from align.text.load import load
from align.text.tokenizer import load_tokenizer

FIGURES = ("loss", "accuracy", "margin", "objective", "policy/approxkl", "val/ratio", "val/explained", "bits_per_byte")


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (pretrain, {}),
        (sft, {}),
        (sft, {"model__adapter": "lora"}),
        (sft, {"train__gradient_checkpointing": True}),
        (rm, {}),
        (ppo, {}),
        (ppo, {"train__gradient_checkpointing": True}),
    ],
)
def test_eight_micro_batches_of_one_are_one_of_eight(stage, changes, world, tmp_path):
    changes = {**STEADY, **changes, "optim__batch_size": 8}
    one = run(stage, world, tmp_path / "1x8", train__micro_batch_tokens=100_000, **changes)
    eight = run(stage, world, tmp_path / "8x1", train__micro_batch_tokens=1, **changes)
    assert largest_difference(one, eight) < 1e-5
    for whole, split in zip(metrics(one), metrics(eight), strict=True):
        for name in whole:
            if name.startswith(FIGURES):
                assert split[name] == pytest.approx(whole[name], abs=1e-5, rel=1e-4), name
    assert moved(one, world) > 1e-3


def moved(folder: Any, world: Any) -> float:
    """How far a run went from the tiny model, for a run that stands still is equal to everything."""
    trained = AutoModel.from_pretrained(folder / "model").state_dict()
    start = AutoModel.from_pretrained(world.base).state_dict()
    if trained["wte.weight"].shape != start["wte.weight"].shape:
        return 1.0  # pretrained from nothing
    return max(float((trained[name] - start[name]).abs().max()) for name in start)


def test_gradient_checkpointing_changes_no_number(world, tmp_path):
    plain = run(sft, world, tmp_path / "plain", train__steps=3)
    checkpointed = run(sft, world, tmp_path / "checkpointed", train__steps=3, train__gradient_checkpointing=True)
    assert largest_difference(plain, checkpointed) < 1e-6


@pytest.mark.parametrize("stage", [sft, rm, ppo])
def test_gradient_checkpointing_computes_twice(stage, world, tmp_path, monkeypatch):
    """A key that has no effect would be worse than none: memory would run out all the same."""
    calls = {}
    for checkpointing in (False, True):
        calls[checkpointing] = 0
        monkeypatch.setattr("align.gpt.model.GPTMLP.forward", counting(calls, checkpointing))
        changes = {"train__steps": 1, "train__gradient_checkpointing": checkpointing}
        run(stage, world, tmp_path / str(checkpointing), **changes)
        monkeypatch.undo()
    assert calls[True] > calls[False]


def counting(calls: dict[bool, int], key: bool) -> Any:
    from align.gpt.model import GPTMLP

    plain = GPTMLP.forward

    def forward(self: Any, *arguments: Any) -> Any:
        if torch.is_grad_enabled():
            calls[key] += 1
        return plain(self, *arguments)

    return forward


SETTINGS = {"optim__schedule": "constant", "train__steps": 5, "optim__weight_decay": 0.1, "optim__eps": 1e-3}


def plain_adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-3)


def stepped(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


@pytest.mark.parametrize("family", ["ours", "gpt2"])
def test_sft_is_a_plain_hugging_face_loop(family, world, tokenizer, tmp_path):
    """The chat template, labels of -100, an attention mask, the model's own loss: nothing of ours but the order."""
    start = world.base if family == "ours" else gpt2_without_dropout(tokenizer, tmp_path / "start")
    changes = SETTINGS | {"model__path": start}
    recipe = recipe_of(sft, world, tmp_path / "ours", **changes)
    tokenizer = load_tokenizer(start)
    rows = [plain_row(tokenizer, row.messages) for row in load(recipe.data, "conversations", recipe.seed).train]
    model = AutoModelForCausalLM.from_pretrained(start).train()
    optimizer = plain_adamw(model)
    losses = []
    for step in range(1, 6):
        batch = [rows[i] for i in rows_of_step(step, len(rows), 4, recipe.seed)]
        losses.append(stepped(model, optimizer, model(**plain_batch(batch, tokenizer.pad_token_id)).loss))

    ours = run(sft, world, tmp_path / "ours", **changes)
    assert [row["loss/train"] for row in metrics(ours)] == pytest.approx(losses, abs=1e-5)
    trained = AutoModelForCausalLM.from_pretrained(ours / "model").state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, atol=1e-5, rtol=0)
    assert losses[-1] < losses[0] - 0.1


def gpt2_without_dropout(tokenizer: Any, folder: Any) -> str:
    tiny_gpt2(tokenizer, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def plain_row(tokenizer: Any, messages: Any) -> tuple[list[int], list[int]]:
    """Token ids and labels of a conversation: the prompt is not learned, the answer and its EOS are."""
    turns = [message._asdict() for message in messages]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    assert whole.startswith(prompt)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    n_prompt = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return ids, [-100] * n_prompt + ids[n_prompt:]


def plain_batch(rows: list[tuple[list[int], list[int]]], pad_id: int) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in rows)
    gaps = [width - len(ids) for ids, _ in rows]
    return {
        "input_ids": torch.tensor([ids + [pad_id] * gap for (ids, _), gap in zip(rows, gaps, strict=True)]),
        "labels": torch.tensor([labels + [-100] * gap for (_, labels), gap in zip(rows, gaps, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * gap for (ids, _), gap in zip(rows, gaps, strict=True)]),
    }


def test_a_reward_model_of_pairs_is_the_plain_pairwise_loop(world, tmp_path):
    """K = 2: -log sigmoid(r_chosen - r_rejected), a linear head on the hidden state at EOS."""
    rows = [json.loads(line) for line in Path(world.rankings).read_text().splitlines()]
    pairs = [{**row, "responses": row["responses"][:2], "ranks": row["ranks"][:2]} for row in rows]
    changes = SETTINGS | {"data__path": write_rows(tmp_path / "pairs.jsonl", pairs)}
    ours = run(rm, world, tmp_path / "ours", **changes)

    recipe = recipe_of(rm, world, tmp_path / "ours", **changes)
    tokenizer = load_tokenizer(world.base)
    rankings = load(recipe.data, "rankings", recipe.seed).train
    torch.manual_seed(recipe.seed)
    model = torch.nn.ModuleDict({"trunk": AutoModel.from_pretrained(world.base), "head": torch.nn.Linear(32, 1)})
    torch.nn.init.normal_(model["head"].weight, std=33**-0.5)
    torch.nn.init.zeros_(model["head"].bias)
    optimizer = plain_adamw(model.train())

    def reward(ranking: Any, rank: int) -> torch.Tensor:
        answer = {"role": "assistant", "content": ranking.responses[ranking.ranks.index(rank)]}
        turns = [*(message._asdict() for message in ranking.prompt), answer]
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        return model["head"](model["trunk"](torch.tensor([ids])).last_hidden_state[0, -1])

    losses = []
    for step in range(1, 6):
        batch = [rankings[i] for i in rows_of_step(step, len(rankings), 4, recipe.seed)]
        margins = torch.cat([reward(row, 1) - reward(row, 2) for row in batch])
        losses.append(stepped(model, optimizer, -torch.nn.functional.logsigmoid(margins).mean()))
    assert [row["loss/train"] for row in metrics(ours)] == pytest.approx(losses, abs=1e-5)


def test_the_order_of_rows_in_a_batch_changes_nothing(world, tmp_path, monkeypatch):
    """A step is a sum over its rows."""
    plain = run(sft, world, tmp_path / "plain", **STEADY)
    monkeypatch.setattr("align.text.batches.rows_of_step", lambda *given: rows_of_step(*given)[::-1])
    assert largest_difference(run(sft, world, tmp_path / "turned", **STEADY), plain) < 1e-5
    assert weights(plain)
