"""What code written for Hugging Face models may expect of ours."""

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from align.gpt import GPTConfig, GPTForCausalLM, GPTModel


def test_auto_classes_give_back_what_was_saved(model, ids, tmp_path):
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is GPTConfig
    again, trunk = AutoModelForCausalLM.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)
    assert (type(again), type(trunk)) == (GPTForCausalLM, GPTModel)
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert torch.equal(trunk(ids).last_hidden_state, model.transformer(ids).last_hidden_state)


def test_the_head_is_the_embedding_and_is_saved_once(model, tmp_path):
    assert model.lm_head.weight is model.transformer.wte.weight
    model.save_pretrained(tmp_path)
    again = GPTForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.transformer.wte.weight
    assert (tmp_path / "model.safetensors").stat().st_size < 4 * model.num_parameters() + 8000


def test_an_untied_head_is_its_own(config, ids, tmp_path):
    config.tie_word_embeddings = False
    model = GPTForCausalLM(config).eval()
    assert model.lm_head.weight is not model.transformer.wte.weight
    model.save_pretrained(tmp_path)
    assert torch.equal(GPTForCausalLM.from_pretrained(tmp_path)(ids).logits, model(ids).logits)


@pytest.mark.parametrize("size", [64, 50])
def test_the_vocabulary_can_be_resized(model, ids, size):
    ids = ids % 50
    before = model(ids).logits
    model.resize_token_embeddings(size)
    assert model.config.vocab_size == size
    assert model.lm_head.weight is model.transformer.wte.weight
    n_common = min(size, 61)
    torch.testing.assert_close(model(ids, labels=ids).logits[..., :n_common], before[..., :n_common])


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_computes_twice_and_gives_equal_gradients(model, ids, use_reentrant):
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    model.train()(ids, attention_mask=mask, labels=ids).loss.backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    calls = []
    model.transformer.h[0].ln_1.register_forward_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model(ids, attention_mask=mask, labels=ids).loss.backward()
    assert len(calls) == 2
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], plain)


def test_a_cache_under_checkpointing_is_refused_with_a_remedy(model, ids):
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        model.train().generate(ids, max_new_tokens=2)
    assert model.eval().generate(ids, max_new_tokens=2).shape[1] > 12


def test_lora_attaches_to_every_matrix_and_trains(model, ids):
    base = {name: parameter.clone() for name, parameter in model.named_parameters()}
    lora = peft.LoraConfig(r=4, target_modules=["c_attn", "c_proj", "c_fc"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, lora).train()
    assert sum("lora_A" in name for name, _ in adapted.named_parameters()) == 4 * 2
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        loss = adapted(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2
    logits = adapted.eval()(input_ids=ids).logits
    with adapted.disable_adapter():
        for name, parameter in model.named_parameters():
            if "lora" not in name:
                assert torch.equal(parameter, base[name.replace(".base_layer", "")])
    merged = adapted.merge_and_unload()
    assert type(merged) is GPTForCausalLM
    torch.testing.assert_close(merged(ids).logits, logits, atol=1e-5, rtol=0)


def test_bfloat16(model, ids, tmp_path):
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    exact = model(ids, attention_mask=mask).logits
    model.save_pretrained(tmp_path)
    half = GPTForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    found = half(ids, attention_mask=mask, labels=ids)
    assert found.logits.dtype == torch.bfloat16
    assert found.loss.dtype == torch.float32
    error = (found.logits.float() - exact)[mask.bool()].pow(2).mean().sqrt() / exact.std()
    assert 1e-4 < error < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        model(ids, attention_mask=mask, labels=ids).loss.backward()
    assert model.transformer.wte.weight.grad.dtype == torch.float32


def test_a_tuple_is_returned_where_one_is_asked_for(model, ids):
    logits, cache = model(ids, return_dict=False)
    assert torch.equal(logits, model(ids).logits)
    assert cache.get_seq_length() == 12
