"""A reward model as a sequence classifier: Hugging Face's own class gives our scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import special_ids, tiny_gpt, tiny_gpt2
from transformers import AutoModelForSequenceClassification

from align.models.classifier import save_as_classifier
from align.models.scalar import ScalarModel, score_members
from align.text.batches import pad_right

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}


def trunk(family: str, tokenizer: Any) -> Any:
    import transformers as hf

    torch.manual_seed(5)
    common = {**SHAPE, "vocab_size": len(tokenizer), **special_ids(tokenizer)}
    if family == "ours":
        return tiny_gpt(tokenizer).transformer
    if family == "gpt2":
        return tiny_gpt2(tokenizer).transformer
    if family == "neox":
        return hf.GPTNeoXModel(hf.GPTNeoXConfig(**common, intermediate_size=64)).eval()
    if family == "opt":
        return hf.OPTModel(hf.OPTConfig(**common, ffn_dim=64, word_embed_proj_dim=32)).eval()
    if family == "qwen2":
        return hf.Qwen2Model(hf.Qwen2Config(**common, intermediate_size=64, num_key_value_heads=2)).eval()
    return hf.LlamaModel(hf.LlamaConfig(**common, intermediate_size=64)).eval()


def reward_model(family: str, tokenizer: Any, heads: int = 1) -> ScalarModel:
    model = ScalarModel(trunk(family, tokenizer), heads).eval()
    with torch.no_grad():
        model.head.bias += 0.3
        model.shift += torch.arange(heads) + 1.25 if heads > 1 else 1.25
        model.scale *= torch.arange(heads) + 2.0 if heads > 1 else 2.0
    return model


def rows(tokenizer: Any) -> list[list[int]]:
    eos = tokenizer.eos_token_id
    return [[5, 6, 7, 8, eos], [9, 10, eos], [11, 12, 13, 14, 15, 16, eos]]


def stock_scores(folder: Any, tokenizer: Any) -> tuple[Any, torch.Tensor]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model, model(pad_right(rows(tokenizer), tokenizer.pad_token_id)).logits


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("family", ["ours", "gpt2", "neox", "opt"])
def test_the_stock_class_gives_the_same_scores(family, heads, tokenizer, tmp_path):
    """Shift and scale included: its head has no bias, so the last LayerNorm's takes them in."""
    model = reward_model(family, tokenizer, heads)
    expected = torch.tensor(score_members(model, rows(tokenizer), 8192, "cpu"))
    assert save_as_classifier(model, tokenizer.pad_token_id, tmp_path) == ""
    stock, found = stock_scores(tmp_path, tokenizer)
    assert stock.config.num_labels == heads
    assert stock.config.pad_token_id == tokenizer.pad_token_id
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    again = torch.tensor(score_members(model, rows(tokenizer), 8192, "cpu"))  # what is left of ours is the same too
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)
    assert not bool(model.shift.any())
    assert bool((model.scale == 1).all())


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_trunk_without_a_last_bias_leaves_a_constant_that_is_told(family, heads, tokenizer, tmp_path):
    model = reward_model(family, tokenizer, heads)
    expected = torch.tensor(score_members(model, rows(tokenizer), 8192, "cpu"))
    note = save_as_classifier(model, tokenizer.pad_token_id, tmp_path)
    stock, found = stock_scores(tmp_path, tokenizer)
    torch.testing.assert_close(found - torch.tensor(stock.config.score_shift), expected, atol=1e-5, rtol=1e-5)
    assert "`score_shift` in config.json" in note
    if heads == 1:
        assert stock.config.score_shift == pytest.approx((1.25 - 0.3) / 2.0)
        assert "subtract 0.475" in note


def test_an_architecture_without_such_a_class_leaves_the_trunk_alone(tokenizer, tmp_path, monkeypatch):
    model = reward_model("gpt2", tokenizer)
    expected = score_members(model, rows(tokenizer), 8192, "cpu")

    def refuse(config: Any) -> None:
        raise ValueError("Unrecognized configuration class")

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_config", refuse)
    note = save_as_classifier(model, tokenizer.pad_token_id, tmp_path)
    assert "no sequence classifier for this architecture" in note
    again = type(model.trunk).from_pretrained(tmp_path)
    assert torch.equal(again.wte.weight, model.trunk.wte.weight)
    assert score_members(model, rows(tokenizer), 8192, "cpu")[0] == pytest.approx(expected[0], abs=1e-6)


def test_a_class_that_scores_otherwise_is_not_written(tokenizer, tmp_path, monkeypatch):
    from transformers import GPT2ForSequenceClassification

    plain = GPT2ForSequenceClassification.forward

    def doubled(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = plain(self, *args, **kwargs)
        found.logits = 2 * found.logits + 1
        return found

    monkeypatch.setattr(GPT2ForSequenceClassification, "forward", doubled)
    note = save_as_classifier(reward_model("gpt2", tokenizer), tokenizer.pad_token_id, tmp_path)
    assert "gives other scores" in note
