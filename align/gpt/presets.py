"""Presets: GPT-2's and GPT-3's published sizes, and two small ones for a laptop.

GPT-1 is missing on purpose: it normalises after each residual addition (post-LN), these blocks before.
"""

from __future__ import annotations

from typing import Any

from align.gpt.config import GPTConfig

# GPT-2 (Radford et al. 2019, table 2). Its one special token, <|endoftext|>, begins and ends documents.
_GPT2: dict[str, Any] = {"vocab_size": 50257, "n_positions": 1024, "bos_token_id": 50256, "eos_token_id": 50256}

# GPT-3 (Brown et al. 2020, table 2.1), GPT-2's vocabulary. GPT-3 alternates dense and locally banded layers with an
# unpublished bandwidth; attention is dense in every layer here. The parameters are the same.
_GPT3: dict[str, Any] = {**_GPT2, "n_positions": 2048}

PRESETS: dict[str, dict[str, Any]] = {
    # About 0.7 million parameters: pretraining, SFT, RM and PPO take minutes on a CPU. A narrow model needs larger
    # initial weights than 0.02, which is about 1/sqrt(width) for wide models. The exact GELU costs a third of its
    # approximation on a CPU.
    "demo": {
        **{"vocab_size": 1024, "n_positions": 64, "n_embd": 128, "n_layer": 3, "n_head": 4},
        **{"initializer_range": 0.06, "position_init": "sinusoidal", "activation": "gelu"},
    },
    # About 14 million: the smallest that writes sensible English sentences, after hours on a CPU.
    "small": {"vocab_size": 8192, "n_positions": 512, "n_embd": 384, "n_layer": 6, "n_head": 6},
    # Exactly 124,439,808 / 354,823,168 / 774,030,080 / 1,557,611,200; the paper prints 117M / 345M / 762M / 1542M.
    "gpt2": {**_GPT2, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-medium": {**_GPT2, "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": {**_GPT2, "n_embd": 1280, "n_layer": 36, "n_head": 20},
    "gpt2-xl": {**_GPT2, "n_embd": 1600, "n_layer": 48, "n_head": 25},
    "gpt3-small": {**_GPT3, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt3-medium": {**_GPT3, "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt3-large": {**_GPT3, "n_embd": 1536, "n_layer": 24, "n_head": 16},
    "gpt3-xl": {
        **_GPT3,
        "n_embd": 2048,
        "n_layer": 24,
        "n_head": 16,
    },  # printed with 24 heads of 128, which is not 2048
    "gpt3-2.7b": {**_GPT3, "n_embd": 2560, "n_layer": 32, "n_head": 32},
    "gpt3-6.7b": {**_GPT3, "n_embd": 4096, "n_layer": 32, "n_head": 32},
    "gpt3-13b": {**_GPT3, "n_embd": 5120, "n_layer": 40, "n_head": 40},  # printed as 5140, which is not 40 heads of 128
    "gpt3-175b": {**_GPT3, "n_embd": 12288, "n_layer": 96, "n_head": 96},
}


def preset(name: str, **overrides: Any) -> GPTConfig:
    """The configuration of a preset, with overrides of a tokenizer (`vocab_size`, ids) or a recipe."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return GPTConfig(**{**PRESETS[name], **overrides})
