"""Our GPT as Hugging Face's GPT-2 and back: the same numbers, and nothing of this package in the files."""

import copy
import json
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2LMHeadModel

from align.gpt import GPTConfig, GPTForCausalLM, GPTForSequenceClassification, GPTModel
from align.gpt.stock import as_ours, as_stock, config_as_ours

from .conftest import SHAPE, randomise

SPECIAL = {"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": 0}
AUTO = {
    GPTForCausalLM: AutoModelForCausalLM,
    GPTModel: AutoModel,
    GPTForSequenceClassification: AutoModelForSequenceClassification,
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (GPTForCausalLM, {}),
        (GPTForCausalLM, {"activation": "gelu", "dropout": 0.1}),
        (GPTForCausalLM, {"tie_word_embeddings": False}),
        (GPTModel, {}),
        (GPTForSequenceClassification, {"num_labels": 3}),
    ],
)
def test_the_way_out_and_back_loses_nothing(kind: Any, changes: dict[str, Any], ids: torch.Tensor, tmp_path: Any):
    model = kind(GPTConfig(**SHAPE, **SPECIAL, **changes)).eval()
    randomise(model)
    as_stock(model).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gpt2"
    stock = AUTO[kind].from_pretrained(tmp_path)
    torch.testing.assert_close(stock(ids)[0], model(ids)[0], atol=1e-5, rtol=0)
    again = as_ours(stock)
    assert type(again) is kind
    assert {name: getattr(again.config, name) for name in (*SHAPE, *SPECIAL, *changes)} == {
        **SHAPE,
        **SPECIAL,
        **changes,
    }
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(again(ids)[0], model(ids)[0])


def test_weights_move_and_stand_in_memory_once(stock: Any):
    ours = as_ours(stock)
    assert {parameter.device.type for parameter in stock.parameters()} == {"meta"}
    assert ours.lm_head.weight is ours.transformer.wte.weight
    assert all(parameter.is_contiguous() and parameter.requires_grad for parameter in ours.parameters())


def test_what_a_model_says_of_generating_travels(model: Any):
    model.generation_config.temperature = 0.5
    model.generation_config.do_sample = True
    stock = as_stock(model)
    assert stock.generation_config.temperature == as_ours(stock).generation_config.temperature == 0.5


def test_no_special_ids_stay_none_rather_than_gpt2s_50256():
    config = as_stock(GPTForCausalLM(GPTConfig(**SHAPE))).config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"n_inner": 100},
        {"activation_function": "relu"},
        {"attn_pdrop": 0.3},
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False},
        {"add_cross_attention": True},
    ],
)
def test_what_ours_lacks_stays_hugging_faces_own(stock: Any, change: dict[str, Any]):
    config = copy.deepcopy(stock.config)
    config.update(change)
    assert config_as_ours(config) is config
    other = GPT2LMHeadModel(config)
    assert as_ours(other) is other


def test_other_architectures_are_left_alone():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=11, **sizes))
    assert as_stock(llama) is as_ours(llama) is llama
