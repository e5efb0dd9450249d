"""Logits at the scored tokens alone are the logits of the whole forward, whatever the model."""

import math
from typing import Any

import pytest
import torch
from tiny import tiny_gpt, tiny_gpt2
from tokenizers import Tokenizer, models
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from align.models.language import LanguageModel, divergences, entropies, never_sampled, token_logprobs, with_ends
from align.models.lora import add_lora
from align.sections import Lora, Model

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 0, 0]])
IS_TARGET = torch.tensor([[False, False, True, False, True, True], [False, True, False, True, False, False]])
NAMES = ["ours", "gpt2", "llama", "gemma2"]


def llama_like(config_class: Any, model_class: Any, **further: Any) -> Any:
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    sizes |= {"intermediate_size": 48, "num_key_value_heads": 1, "max_position_embeddings": 40}
    return model_class(config_class(**sizes, initializer_range=0.3, **further)).eval()


def build(name: str, tokenizer: Any) -> Any:
    torch.manual_seed(1)
    if name == "ours":
        return tiny_gpt(tokenizer)
    if name == "gpt2":
        return tiny_gpt2(tokenizer)
    if name == "llama":
        return llama_like(LlamaConfig, LlamaForCausalLM)
    return llama_like(Gemma2Config, Gemma2ForCausalLM, final_logit_softcapping=2.0)  # does something to its logits


def shaken_lora(model: Any) -> Any:
    """With an adapter that does something: a fresh one is the identity."""
    model = add_lora(model, Model(path="", adapter="lora", lora=Lora(rank=2)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


@pytest.fixture(params=[(name, adapter) for name in NAMES for adapter in ("whole", "lora")], ids=" ".join)
def model(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    name, adapter = request.param
    base = build(name, tokenizer)
    return shaken_lora(base).eval() if adapter == "lora" else base


def expected_logits(model: Any) -> torch.Tensor:
    """(5, vocabulary), from a whole forward of each row without its padding."""
    first, second = model(IDS[:1]).logits[0], model(IDS[1:, :4]).logits[0]
    return torch.stack([first[1], first[3], first[4], second[0], second[2]])


def test_logits_at_the_targets_are_those_of_the_whole_forward(model):
    with torch.no_grad():
        found, expected = LanguageModel(model)(IDS, IS_TARGET), expected_logits(model)
    assert float(expected.std()) > 0.3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_whole_forward(model):
    model.double().zero_grad()
    expected_logits(model).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    LanguageModel(model)(IDS, IS_TARGET).square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name in expected:
        largest = expected[name].abs().max().item()
        torch.testing.assert_close(found[name], expected[name], atol=1e-6 * largest, rtol=1e-6)


def test_the_model_is_left_as_it_was(model):
    lm = LanguageModel(model)
    with torch.no_grad():
        lm(IDS, IS_TARGET)
        assert model(IDS).logits.shape[:2] == IDS.shape
        with pytest.raises((ValueError, IndexError, RuntimeError)):
            lm(IDS + 10_000, IS_TARGET)  # no such tokens
        assert model(IDS).logits.shape[:2] == IDS.shape


def test_the_head_computes_nothing_else(tokenizer):
    model = tiny_gpt(tokenizer)
    seen = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape)))
    LanguageModel(model)(IDS, IS_TARGET)
    assert seen == [(5, len(tokenizer))]


def test_the_first_token_is_predicted_by_nothing(tokenizer):
    is_target = IS_TARGET.clone()
    is_target[:, 0] = True
    lm = LanguageModel(tiny_gpt(tokenizer))
    assert torch.equal(lm(IDS, is_target), lm(IDS, IS_TARGET))


def test_an_adapter_is_known_and_can_be_switched_off(tokenizer):
    base = tiny_gpt(tokenizer)
    before = base(IDS).logits.detach().clone()
    assert not LanguageModel(base).has_adapter
    lm = LanguageModel(shaken_lora(base).eval())
    assert lm.has_adapter
    with torch.no_grad():
        with LanguageModel(lm.model, adapter=None).active():
            assert torch.equal(lm.model(IDS).logits, before)
        assert not torch.allclose(lm.model(IDS).logits, before, atol=0.1)


def test_logprobs_of_tokens():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    found = token_logprobs(logits, torch.tensor([1, 0]))
    assert found.exp().tolist() == pytest.approx([0.75, 0.5])
    squared = token_logprobs(logits, torch.tensor([1, 0]), temperature=0.5)  # p^2, normalised
    assert squared.exp().tolist() == pytest.approx([0.9, 0.5])


def test_logprobs_are_taken_in_fp32():
    logits = torch.tensor([[0.0, 10.0]], dtype=torch.bfloat16)
    assert token_logprobs(logits, torch.tensor([1])).tolist() == pytest.approx([-4.54e-5], rel=0.02)  # bf16 would say 0


def test_pad_and_ids_without_a_token_are_never_said_whatever_their_place():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "red": 2, "<pad>": 3, "</s>": 5}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>")
    model = tiny_gpt2(tokenizer, vocab_size=8)
    assert never_sampled(tokenizer, model) == [1, 3, 4, 6, 7]
    tokenizer.pad_token = "</s>"  # which must be said
    assert never_sampled(tokenizer, model) == [1, 4, 6, 7]


def test_entropies():
    logits = torch.tensor([[1.0, 1.0, 1.0, 1.0], [100.0, 0.0, 0.0, 0.0]])
    assert entropies(logits).tolist() == pytest.approx([math.log(4), 0.0], abs=1e-5)


def test_divergences_by_hand():
    inf = math.inf
    p = torch.tensor([[0.0, 0.0, -inf], [0.0, -inf, -inf], [1.0, 2.0, 3.0], [0.0, 0.0, -inf]])
    q = torch.tensor([[math.log(3), 0.0, -inf], [0.0, 0.0, 5.0], [4.0, 5.0, 6.0], [0.0, -inf, 0.0]])
    half = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    expected = [half, math.log(2 + math.exp(5)), 0.0, inf]
    assert divergences(p, q).tolist() == pytest.approx(expected, abs=1e-6)


def test_divergences_agree_with_torch():
    p, q = torch.randn(7, 40, generator=torch.Generator().manual_seed(1)), torch.randn(7, 40)
    theirs = torch.nn.functional.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert torch.allclose(divergences(p, q), theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_settings_name_the_ends_and_pad(name, tokenizer, tmp_path):
    model = build(name, tokenizer)
    model.generation_config = GenerationConfig(eos_token_id=5, top_k=7, do_sample=True, bos_token_id=3)
    with_ends(model, tokenizer).save_pretrained(tmp_path)
    saved = type(model).from_pretrained(tmp_path)
    for config in (saved.config, saved.generation_config):
        assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (saved.generation_config.top_k, saved.generation_config.bos_token_id) == (7, 3)


def test_settings_that_transformers_refuses_to_write_keep_their_tokens_alone(tokenizer, tmp_path):
    model = build("gpt2", tokenizer)
    model.generation_config = GenerationConfig(do_sample=False, temperature=0.6, eos_token_id=5, bos_token_id=3)
    with_ends(model, tokenizer).save_pretrained(tmp_path)
    saved = GenerationConfig.from_pretrained(tmp_path)
    assert (saved.eos_token_id, saved.bos_token_id, saved.temperature) == (tokenizer.eos_token_id, 3, None)
