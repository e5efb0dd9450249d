"""A .gguf file as a start: what is read is a plain model, what is saved a plain folder."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from helpers import run
from transformers import AutoModelForCausalLM

from align import sections, sft
from align.errors import UserError
from align.models.fingerprint import fingerprint
from align.models.load import load_causal_lm, load_config
from align.text.tokenizer import load_tokenizer

WORDS = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(97, 123)), "▁"]
WIDTH = 32  # a block of 8-bit numbers
MATRICES = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH)}
MATRICES |= {"ffn_gate": (64, WIDTH), "ffn_up": (64, WIDTH), "ffn_down": (WIDTH, 64)}
Q8 = gguf.GGMLQuantizationType.Q8_0


def write_gguf(path: Path, architecture: str = "llama") -> np.ndarray:
    """A Llama of one layer in 8 bits. Returns the matrix of its gate, as its blocks hold it."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([0.0] * len(WORDS))
    writer.add_token_types([2, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    chance = np.random.default_rng(0)
    blocks = {
        name: gguf.quants.quantize(chance.normal(0, 0.3, shape).astype("f4"), Q8) for name, shape in MATRICES.items()
    }
    for name, block in blocks.items():
        writer.add_tensor(f"blk.0.{name}.weight", block, raw_dtype=Q8)
    for name in ("token_embd", "output"):
        writer.add_tensor(f"{name}.weight", chance.normal(0, 0.3, (len(WORDS), WIDTH)).astype("f4"))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, "f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.quants.dequantize(blocks["ffn_gate"], Q8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_unpacked_into_the_dtype_that_is_wanted(dtype, tmp_path):
    gate = write_gguf(tmp_path / "m.gguf")
    model = sections.Model(path=str(tmp_path / "m.gguf"))
    loaded: Any = load_causal_lm(model, dtype)
    assert torch.equal(loaded.model.layers[0].mlp.gate_proj.weight, torch.from_numpy(gate).to(dtype))
    assert load_config(model).vocab_size == len(load_tokenizer(model.path)) == len(WORDS)
    assert len(fingerprint(model)) == 32


def test_an_adapter_on_a_gguf_file_names_it_and_model_is_a_plain_folder(world, tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(path)
    folder = run(sft, world, tmp_path / "run", model__path=str(path), model__adapter="lora", train__steps=2)
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(path)
    assert "quantization_config" not in json.loads((folder / "model" / "config.json").read_text())
    merged, ids = AutoModelForCausalLM.from_pretrained(folder / "model"), torch.tensor([[3, 4, 5]])
    again = load_causal_lm(sections.Model(path=str(folder / "adapter")))
    torch.testing.assert_close(again(ids).logits, merged(ids).logits)


def test_a_quantised_base_is_made_of_the_unpacked_weights(tmp_path):
    write_gguf(tmp_path / "m.gguf")
    model = sections.Model(path=str(tmp_path / "m.gguf"), adapter="lora", quantization="8bit")
    plain, quantised = load_causal_lm(model.model_copy(update={"quantization": "none"})), load_causal_lm(model)
    ids = torch.tensor([[3, 4, 5]])
    assert (quantised(ids).logits - plain(ids).logits).abs().max() < 0.2


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("cut", r"m\.gguf: cannot load a tokenizer: .*; download the file again"),
        ("missing", r"m\.gguf: there is no such file"),
        (
            "unknown",
            r"architecture plamo is not supported yet.*; .* give the folder of the model that it was made from",
        ),
        ("no package", r"m\.gguf: \.gguf files need the package gguf\. Run: pip install gguf"),
    ],
)
def test_what_cannot_be_read_is_told(how, told, tmp_path, monkeypatch):
    path = tmp_path / "m.gguf"
    if how == "cut":
        path.write_bytes(b"GGUF")
    elif how != "missing":
        write_gguf(path, "plamo" if how == "unknown" else "llama")
    if how == "no package":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=told):
        load_tokenizer(path)
