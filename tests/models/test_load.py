"""Where models come from, and what they are kept in."""

import pytest
import torch
from tiny import tiny_gpt
from transformers import AutoModelForCausalLM, LlamaConfig, LlavaConfig

from align import sections
from align.errors import UserError
from align.models.load import (
    base_dtype,
    fit_vocabulary,
    load_causal_lm,
    load_config,
    load_trunk,
    max_positions,
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
    assert str(refused.value).startswith(f"model.path = '{tmp_path}': no model can be loaded from it")
    assert "Give a folder with config.json and model.safetensors, an adapter folder, or a hub name" in str(
        refused.value
    )


def test_weights_that_are_cut_off_are_told(world, tokenizer, tmp_path):
    tiny_gpt(tokenizer).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="no model can be loaded from it"):
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
