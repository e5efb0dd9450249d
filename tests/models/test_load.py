"""Where models come from, and what they are kept in."""

import json

import pytest
import torch
from tiny import tiny_gpt, tiny_gpt2
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, LlavaConfig

from align import sections
from align.errors import UserError
from align.gpt import GPTConfig, GPTForCausalLM, GPTModel
from align.models.load import (
    adapter_base,
    base_dtype,
    fit_vocabulary,
    is_adapter,
    load_causal_lm,
    load_config,
    load_trunk,
    max_positions,
    stored_dtype,
)

LLAMA = LlamaConfig(
    vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, pad_token_id=None
)


def dtypes(model: torch.nn.Module) -> dict[bool, set[torch.dtype]]:
    """Of the trained parameters (True) and of the frozen ones (False)."""
    found: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for parameter in model.parameters():
        found[parameter.requires_grad].add(parameter.dtype)
    return found


def test_weights_that_are_trained_are_fp32_whatever_the_checkpoint(world, tmp_path):
    AutoModelForCausalLM.from_pretrained(world.gpt2).to(torch.bfloat16).save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
    model = sections.Model(path=str(tmp_path))
    for precision in ("fp32", "bf16"):
        loaded = load_causal_lm(model, base_dtype(model, precision))
        assert dtypes(loaded) == {True: {torch.float32}, False: set()}


def test_a_frozen_base_is_kept_in_the_computing_precision_and_its_adapter_in_fp32(world):
    model = sections.Model(path=world.base, adapter="lora")
    loaded = load_causal_lm(model, base_dtype(model, "bf16"))
    assert dtypes(loaded) == {True: {torch.float32}, False: {torch.bfloat16}}
    assert base_dtype(model, "fp32") == torch.float32


def test_a_fresh_adapter_changes_nothing(world):
    ids = torch.tensor([[5, 6, 7]])
    plain = load_causal_lm(sections.Model(path=world.base))
    adapted = load_causal_lm(sections.Model(path=world.base, adapter="lora"))
    assert torch.equal(adapted(ids).logits, plain(ids).logits)
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(names) == 2 * 4 * 2  # A and B of four matrices in two blocks
    assert all("lora_" in name for name in names)


def test_rank_alpha_and_dropout_reach_the_adapter(world):
    lora = sections.Lora(rank=3, alpha=12, dropout=0.25)
    config = load_causal_lm(sections.Model(path=world.base, adapter="lora", lora=lora)).peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 12, 0.25)


def test_a_trunk_has_no_vocabulary_head(world):
    trunk = load_trunk(sections.Model(path=world.gpt2))
    assert not hasattr(trunk, "lm_head")
    assert trunk(torch.tensor([[5, 6]])).last_hidden_state.shape == (1, 2, 32)


def test_the_configuration_is_read_without_the_weights(world, tmp_path):
    load_config(sections.Model(path=world.base)).save_pretrained(tmp_path)
    assert max_positions(load_config(sections.Model(path=str(tmp_path)))) == 64


def test_positions_may_stand_in_the_text_part_of_a_configuration():
    nested = LlavaConfig(text_config=LlamaConfig(max_position_embeddings=77))
    assert not hasattr(nested, "max_position_embeddings")
    assert max_positions(nested) == 77


@pytest.mark.parametrize("load", [load_config, load_causal_lm, load_trunk])
def test_what_is_no_model_is_told_with_the_remedy(load, tmp_path):
    (tmp_path / "note.txt").write_text("no model")
    with pytest.raises(UserError) as refused:
        load(sections.Model(path=str(tmp_path)))
    assert str(refused.value).startswith(f"model.path = '{tmp_path}': cannot load a model from it")
    assert "Give a folder with config.json and model.safetensors, an adapter folder, or a hub name" in str(
        refused.value
    )


def test_weights_that_are_cut_off_are_told(world, tokenizer, tmp_path):
    tiny_gpt(tokenizer).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot load a model from it"):
        load_causal_lm(sections.Model(path=str(tmp_path)))


def test_the_embedding_grows_to_the_tokenizer_and_never_shrinks(tokenizer):
    model = tiny_gpt(tokenizer)
    n = len(tokenizer)
    before = model(torch.tensor([[5, 6]])).logits.detach()
    fit_vocabulary(model, n - 3)
    assert model.config.vocab_size == n
    fit_vocabulary(model, n + 2)
    assert model.get_input_embeddings().weight.shape[0] == n + 2
    torch.testing.assert_close(model(torch.tensor([[5, 6]])).logits[..., :n], before)


def test_a_gpt2_that_ours_can_hold_is_loaded_as_ours_and_any_other_as_it_is(world, tokenizer, tmp_path):
    ids = torch.tensor([[5, 6, 7]])
    ours = load_causal_lm(sections.Model(path=world.gpt2)).eval()
    assert (type(ours), type(load_trunk(sections.Model(path=world.gpt2)))) == (GPTForCausalLM, GPTModel)
    assert type(load_config(sections.Model(path=world.gpt2))) is GPTConfig
    stock = AutoModelForCausalLM.from_pretrained(world.gpt2).eval()
    torch.testing.assert_close(ours(ids).logits, stock(ids).logits, atol=1e-5, rtol=0)
    tiny_gpt2(tokenizer, n_inner=48).save_pretrained(tmp_path)
    assert type(load_causal_lm(sections.Model(path=str(tmp_path)))) is GPT2LMHeadModel


def test_code_that_comes_with_a_model_names_the_key_that_lets_it_run(tmp_path):
    config = {"model_type": "my", "auto_map": {"AutoConfig": "configuration_my.MyConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"read its \.py files, then set model\.trust_remote_code=true"):
        load_config(sections.Model(path=str(tmp_path)))


def test_an_adapter_in_the_hubs_local_store_is_known_by_its_name(tmp_path, monkeypatch):
    store = tmp_path / "models--acme--adapter"
    (store / "snapshots" / "0123").mkdir(parents=True)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text("0123")
    (store / "snapshots" / "0123" / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/base"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not is_adapter("acme/adapter")  # its weights are yet to come
    (store / "snapshots" / "0123" / "adapter_model.safetensors").touch()
    assert is_adapter("acme/adapter")
    assert adapter_base("acme/adapter") == "acme/base"
    assert not any(is_adapter(path) for path in ("acme/other", "/nothing", "./nothing", "no name/of a hub"))


@pytest.mark.parametrize("pad", [-1, 10_000])
def test_a_pad_id_that_is_no_token_is_none(pad, tokenizer, tmp_path):
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": pad}))
    loaded = load_causal_lm(sections.Model(path=str(tmp_path)))
    assert (loaded.config.pad_token_id, loaded.get_input_embeddings().padding_idx) == (None, None)


@pytest.mark.parametrize("told", ["dtype", "torch_dtype", "nowhere"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_weights_are_stored_in(told, dtype, tmp_path):
    LlamaForCausalLM(LLAMA).to(dtype).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    found = config.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(config | ({told: found} if told != "nowhere" else {})))
    assert stored_dtype(sections.Model(path=str(tmp_path))) == dtype
