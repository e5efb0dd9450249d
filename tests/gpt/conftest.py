"""A model small enough for milliseconds whose weights are large enough for a wrong logit to show."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from align.gpt import GPTConfig, GPTForCausalLM

SHAPE = {"vocab_size": 61, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}


def randomise(model: torch.nn.Module) -> None:
    """Every parameter, biases and norms too, far from the values at which mistakes cancel."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.endswith("weight") and "ln_" in name else 0.0
            parameter.copy_(mean + 0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def config() -> GPTConfig:
    return GPTConfig(**SHAPE, bos_token_id=1, eos_token_id=2, pad_token_id=0)


@pytest.fixture
def model(config: GPTConfig) -> GPTForCausalLM:
    model = GPTForCausalLM(config).eval()
    randomise(model)
    return model


@pytest.fixture
def stock() -> GPT2LMHeadModel:
    """Hugging Face's own GPT-2 in the same shape."""
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    stock = GPT2LMHeadModel(GPT2Config(**SHAPE, **no_dropout, bos_token_id=1, eos_token_id=2, pad_token_id=0)).eval()
    randomise(stock)
    return stock


@pytest.fixture
def ids() -> torch.Tensor:  # (3, 12); no special tokens among them
    return torch.randint(3, SHAPE["vocab_size"], (3, 12), generator=torch.Generator().manual_seed(2))
