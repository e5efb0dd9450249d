"""What stands in a run's model/: the dtype that it came from, files that others may read, code where there is some."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny import tiny_gpt, tiny_gpt2, tiny_reward_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2LMHeadModel

from align import sections
from align.models.load import load_causal_lm
from align.models.save import save_language_model, save_reward_model
from align.models.scalar import load_scalar_model, score_members

ROWS = [[5, 6, 7, 0], [8, 9, 10, 11, 12, 0]]


@pytest.fixture
def bf16(tokenizer: Any, tmp_path: Path) -> sections.Model:
    tiny_gpt2(tokenizer).to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    tokenizer.save_pretrained(tmp_path / "bf16")
    return sections.Model(path=str(tmp_path / "bf16"))


def dtypes(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (it is no dict)


@pytest.mark.parametrize(("wanted", "found"), [("as_loaded", "bfloat16"), ("fp32", "float32"), ("bf16", "bfloat16")])
def test_weights_are_written_in_the_dtype_that_was_asked_for(wanted, found, bf16, tokenizer, tmp_path):
    model = load_causal_lm(bf16)
    with torch.no_grad():
        model.transformer.ln_f.bias += 2.0**-20  # which bf16 cannot tell
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    save_language_model(model, bf16, tokenizer, tmp_path / "run", save_dtype=wanted)
    folder = tmp_path / "run" / "model"
    assert json.loads((folder / "config.json").read_text())["dtype"] == found
    assert dtypes(folder) == {"F32" if found == "float32" else "BF16"}
    again = load_causal_lm(sections.Model(path=str(folder)))
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is GPT2LMHeadModel
    rounded = {name: value.to(getattr(torch, found)).float() for name, value in trained.items()}
    assert all(torch.equal(value, rounded[name]) for name, value in again.state_dict().items())


def test_a_model_that_begins_here_is_fp32(tokenizer, tmp_path):
    save_language_model(tiny_gpt(tokenizer), None, tokenizer, tmp_path)
    assert dtypes(tmp_path / "model") == {"F32"}


def test_a_reward_model_in_bf16_keeps_its_head_and_its_scores(bf16, tokenizer, tmp_path):
    model = tiny_reward_model(tokenizer)
    expected = torch.tensor(score_members(model, ROWS, 8192, "cpu"))
    assert save_reward_model(model, bf16, tokenizer, tmp_path) == ""
    assert dtypes(tmp_path / "model") == {"BF16"}
    again = load_scalar_model(sections.Model(path=str(tmp_path / "model")))
    assert again.head.weight.dtype == torch.float32
    assert torch.equal(again.head.weight, model.head.weight)
    found = torch.tensor(score_members(again, ROWS, 8192, "cpu"))
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    theirs = torch.cat([stock(torch.tensor([row])).logits for row in ROWS])
    torch.testing.assert_close(theirs, found, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_files_have_the_mode_of_any_new_file(mask, tokenizer, tmp_path):
    before = os.umask(mask)
    try:
        save_reward_model(
            tiny_reward_model(tokenizer), sections.Model(path="unused"), tokenizer, tmp_path, None, "fp32"
        )
    finally:
        assert os.umask(before) == mask
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~mask}


CODE = {
    "configuration_my.py": "from transformers import LlamaConfig\nclass MyConfig(LlamaConfig):\n    model_type='my'\n",
    "modeling_my.py": "from transformers import LlamaForCausalLM\nfrom .configuration_my import MyConfig\n"
    "class MyModel(LlamaForCausalLM):\n    config_class=MyConfig\n",
}


def test_a_model_with_code_of_its_own_carries_it(tokenizer, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    start = tmp_path / "start"
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(start)
    own = {"AutoConfig": "configuration_my.MyConfig", "AutoModelForCausalLM": "modeling_my.MyModel"}
    config = json.loads((start / "config.json").read_text()) | {"model_type": "my", "auto_map": own}
    (start / "config.json").write_text(json.dumps(config))
    for name, text in CODE.items():
        (start / name).write_text(text)
    model = sections.Model(path=str(start), trust_remote_code=True)
    save_language_model(load_causal_lm(model), model, tokenizer, tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert type(again).__name__ == "MyModel"
    assert {path.name for path in (tmp_path / "model").glob("*.py")} == set(CODE)
