import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

from align.errors import UserError
from align.gpt import GPTConfig, GPTForCausalLM
from align.gpt.export import export_gpt2, import_gpt2, main

from .conftest import SHAPE, randomise

LOAD_WITH_TRANSFORMERS_ALONE = """
import sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
expected = load_file("expected.safetensors")
model, tokenizer = AutoModelForCausalLM.from_pretrained("out"), AutoTokenizer.from_pretrained("out")
with torch.no_grad():
    logits = model(**tokenizer("w7 w8 w9", return_tensors="pt")).logits
assert not [name for name in sys.modules if name.split(".")[0] == "align"]
print(type(model).__name__, (logits - expected["logits"]).abs().max().item() <= 1e-5, tokenizer.pad_token)
"""


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2, **{f"w{n}": n for n in range(3, 61)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **specials)


def test_an_export_loads_where_this_package_is_unknown(model, tokenizer, tmp_path):
    export_gpt2(model, tokenizer, tmp_path / "out")
    save_file({"logits": model(torch.tensor([[7, 8, 9]])).logits.detach()}, tmp_path / "expected.safetensors")
    command = [sys.executable, "-c", LOAD_WITH_TRANSFORMERS_ALONE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "GPT2LMHeadModel True <pad>\n", done.stderr


@pytest.mark.parametrize("changes", [{}, {"activation": "gelu"}, {"tie_word_embeddings": False}, {"dropout": 0.1}])
def test_export_and_import_lose_nothing(ids, tmp_path, changes):
    model = GPTForCausalLM(GPTConfig(**{**SHAPE, "pad_token_id": 0, **changes})).eval()
    randomise(model)
    export_gpt2(model, None, tmp_path)
    stock = GPT2LMHeadModel.from_pretrained(tmp_path)
    torch.testing.assert_close(stock(ids).logits, model(ids).logits, atol=1e-5, rtol=0)
    again = import_gpt2(stock)
    assert again.config.to_diff_dict().items() >= {"pad_token_id": 0, **SHAPE, **changes}.items()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_an_import_is_a_copy(stock, ids):
    before = stock(ids).logits
    randomised = import_gpt2(stock)
    with torch.no_grad():
        for parameter in randomised.parameters():
            parameter.zero_()
    assert torch.equal(stock(ids).logits, before)
    assert randomised.lm_head.weight is randomised.transformer.wte.weight


def test_special_ids_and_generation_defaults_travel(tokenizer, tmp_path):
    model = GPTForCausalLM(GPTConfig(**SHAPE, eos_token_id=[2, 5]))
    model.generation_config.temperature = 0.5
    model.generation_config.do_sample = True
    export_gpt2(model, tokenizer, tmp_path)
    stock = GPT2LMHeadModel.from_pretrained(tmp_path)
    for written in (stock.config, stock.generation_config):
        assert (written.bos_token_id, written.eos_token_id, written.pad_token_id) == (1, [2, 5], 0)
    assert stock.generation_config.temperature == import_gpt2(stock).generation_config.temperature == 0.5


def test_no_special_ids_stay_none_rather_than_gpt2s_50256(tmp_path):
    export_gpt2(GPTForCausalLM(GPTConfig(**SHAPE)), None, tmp_path)
    config = GPT2LMHeadModel.from_pretrained(tmp_path).config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)


def test_the_exported_tokenizer_makes_no_token_types(model, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "own")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    talkative = AutoTokenizer.from_pretrained(tmp_path / "own", model_input_names=names)
    assert set(talkative("w7 w8")) == set(names)
    export_gpt2(model, talkative, tmp_path / "out")
    assert set(AutoTokenizer.from_pretrained(tmp_path / "out")("w7 w8")) == {"input_ids", "attention_mask"}
    assert set(talkative("w7 w8")) == set(names)  # the given one is left as it was


def test_precision_is_kept(model, tmp_path):
    export_gpt2(model.to(torch.bfloat16), None, tmp_path)
    assert GPT2LMHeadModel.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_a_tokenizer_that_outgrew_the_model_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"61 tokens and the model 60 rows"):
        export_gpt2(GPTForCausalLM(GPTConfig(**{**SHAPE, "vocab_size": 60})), tokenizer, tmp_path)


def test_another_class_is_refused(model, stock, tmp_path):
    for other in (stock, model.transformer):
        with pytest.raises(UserError, match=r"only GPTForCausalLM"):
            export_gpt2(other, None, tmp_path)


def test_variants_of_gpt2_that_ours_lacks_are_all_named(stock):
    stock.config.n_inner = 100
    stock.config.activation_function = "relu"
    stock.config.attn_pdrop = 0.3
    stock.config.scale_attn_by_inverse_layer_idx = True
    with pytest.raises(UserError) as error:
        import_gpt2(stock)
    for name in ("n_inner = 100", "'relu'", "attn_pdrop", "scale_attn_by_inverse_layer_idx is not False"):
        assert name in str(error.value)


def test_the_command_exports_a_folder(model, tokenizer, ids, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    main([str(tmp_path / "model"), str(tmp_path / "out")])
    assert f"{model.num_parameters():,} parameters, with its tokenizer" in capsys.readouterr().out
    stock = GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(stock(ids).logits, model(ids).logits, atol=1e-5, rtol=0)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == 61


def spoil(folder, how):
    """A folder that held a model of ours, spoilt in one way."""
    config = json.loads((folder / "config.json").read_text())
    if how == "stock":
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    elif how == "not json":
        (folder / "config.json").write_text("{")
    elif how == "impossible":
        (folder / "config.json").write_text(json.dumps({**config, "n_head": 5}))
    elif how == "another shape":
        (folder / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    elif how == "cut short":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "adapter":
        (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("stock", "model_type is 'gpt2'"),
        ("not json", "not the JSON of a model's configuration"),
        ("impossible", "not a multiple of n_head = 5"),
        ("another shape", "missing_keys"),
        ("cut short", "does not load"),
        ("no weights", "does not load"),
        ("adapter", "LoRA adapter"),
    ],
)
def test_the_command_names_what_is_wrong_with_a_folder(model, tmp_path, how, message):
    model.save_pretrained(tmp_path / "model")
    spoil(tmp_path / "model", how)
    with pytest.raises(UserError, match=message):
        main([str(tmp_path / "model"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_command_does_not_write_over_its_source(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="another folder"):
        main([str(tmp_path), str(tmp_path / "." / "")])


def test_a_users_mistake_is_told_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "align.gpt.export", str(tmp_path / "nothing"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nothing/config.json: No such file or directory; give a folder that holds a model of ours" in done.stderr
    assert "Traceback" not in done.stderr
