"""What an adapter stands on, whether it does there what it should, and what is frozen, packed or refused."""

import gc
import json
from typing import Any

import pytest
import torch
from tiny import tiny_gpt2
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
)

from align import sections
from align.errors import UserError
from align.models.adapters import (
    POLICY,
    VALUE,
    adapted_weight,
    add_adapter,
    load_adapter,
    save_adapter,
    trained_parameters,
    tuned_layers,
)
from align.models.language import LanguageModel
from align.models.load import load_causal_lm, load_config, load_trunk, merge_adapter
from align.models.lora import Shares, add_lora, freeze_unreached, hold_idle_experts, shares, targets
from align.models.merging import answer, probe
from align.models.scalar import ScalarModel

COMMON: dict[str, Any] = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
COMMON |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 2}
COMMON |= {"initializer_range": 0.2, "head_dim": 8}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
TEXT: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt_oss": EXPERTS | {"layer_types": ["sliding_attention", "full_attention"]},
    "granitemoe": EXPERTS,
    "phimoe": EXPERTS,  # its routers return a tuple, as Llama 4's
    "llama4_text": EXPERTS | {"num_experts_per_tok": 1, "intermediate_size_mlp": 32, "interleave_moe_layer_step": 1},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    | {"shared_expert_intermediate_size": 16},
    "deepseek_v3": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2}
    | {"topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 8, "num_key_value_heads": 4}
    | {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2, "hybrid_layer_ids": [1, 3]}
    | {"num_mem_blocks": 1, "mamba_d_state": 8, "mamba_headdim": 8, "n_mamba_heads": 8, "mamba_ngroups": 1}
    | {"adapter_rank": 4, "attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4}
    | {"chunk_size": 16},
}
# Matrices without an adapter, by the ends of their names: words, routers, a Mamba's own.
BARE = ("embed_tokens.weight", "lm_head.weight", "router.weight", "gate.weight", "mamba.out_proj.weight")
BARE += ("conv1d.weight", "_bias", "shared_expert_gate.weight")


def tiny(family: str, **changes: Any) -> Any:
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **COMMON | TEXT[family] | changes)).eval()


def tiny_with_vision() -> Any:
    torch.manual_seed(1)
    text = COMMON | {"layer_types": ["sliding_attention", "full_attention"]}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=9)
    ).eval()


@torch.no_grad()
def moved(parameters: dict[str, nn.Parameter]) -> None:
    for parameter in parameters.values():
        parameter.add_(0.1 * torch.randn_like(parameter))


@torch.no_grad()
def said(model: Any) -> torch.Tensor:
    return answer(model, probe(model))


@pytest.mark.parametrize("family", TEXT)
def test_roles_on_one_base_have_adapters_on_all_matrices_of_the_trunk_and_merge_to_what_they_were(family, tmp_path):
    tiny(family).save_pretrained(tmp_path)
    section = sections.Model(path=str(tmp_path), adapter="lora", lora=sections.Lora(rank=4))
    alone = said(load_causal_lm(section.model_copy(update={"adapter": "none"})))
    model = load_causal_lm(section)
    adapted = {id(adapted_weight(layer)) for layer in tuned_layers(model)}
    bare = {name for name, p in model.named_parameters() if "lora_" not in name and p.ndim > 1 and id(p) not in adapted}
    assert all(name.endswith(BARE) for name in bare)
    torch.testing.assert_close(said(model), alone)
    add_adapter(model, VALUE)
    policy, reference, critic = LanguageModel(model), LanguageModel(model, adapter=None), ScalarModel.on(model, VALUE)
    moved(trained_parameters(policy))
    moved(trained_parameters(critic))
    with reference.active():
        torch.testing.assert_close(said(model), alone)
    for role, auto_class, part in ((policy, AutoModelForCausalLM, model), (critic, AutoModel, critic.trunk)):
        with role.active():
            expected = said(part)
        save_adapter(model, str(role.adapter), tmp_path / "adapter")
        merged = merge_adapter(auto_class, tmp_path / "adapter", section)
        torch.testing.assert_close(said(merged), expected, atol=1e-3, rtol=1e-3)
        assert (said(merged) - (alone if role is policy else said(part))).abs().max() > 0.1
        merged.save_pretrained(tmp_path / "merged")
        again = auto_class.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(said(again), expected, atol=1e-3, rtol=1e-3)


def test_the_adapter_of_a_trunk_with_experts_stands_on_a_language_model_too(tmp_path):
    tiny("llama4_text").save_pretrained(tmp_path)
    section = sections.Model(path=str(tmp_path), adapter="lora", lora=sections.Lora(rank=4))
    trunk = load_trunk(section)
    moved(trained_parameters(trunk))
    save_adapter(trunk, POLICY, tmp_path / "adapter")
    model = load_causal_lm(section)
    load_adapter(model, "reward0", str(tmp_path / "adapter"), trained=False)
    role = ScalarModel.on(model, "reward0")
    with role.active():
        torch.testing.assert_close(said(role.trunk), said(trunk))


def test_blocks_that_share_their_weights_share_one_adapter():
    model = tiny("zamba2")
    names = [name for name, _ in model.named_parameters(remove_duplicate=False) if "q_proj.weight" in name]
    assert len(names) == 2
    adapted = add_lora(model, sections.Model(path="", adapter="lora"))
    assert len([name for name, _ in adapted.named_parameters() if "q_proj.lora_A" in name]) == 1


def test_neither_vision_nor_what_text_does_not_reach_is_adapted_or_trained():
    model = tiny_with_vision()
    modules, experts = targets(model, sections.Lora())
    assert not experts
    reached = {name for name, _ in model.named_modules() for end in modules if f".{name}".endswith(f".{end}")}
    assert reached
    assert all(name.startswith("model.language_model.layers.") for name in reached)
    freeze_unreached(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    text = {name for name, _ in model.named_parameters() if "language_model" in name or name == "lm_head.weight"}
    assert trained == text
    assert shares(model).lines()[0].endswith("the others are not used by text and are frozen")


class Routed(nn.Module):
    """A block whose experts are modules, of which each token is sent to one; the others are not called."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(width, width) for _ in range(3)])
        self.vision = nn.ModuleList([nn.Linear(width, width) for _ in range(3)])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.experts[1](hidden)


def test_an_expert_without_tokens_is_adapted_and_trained_all_the_same():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=2, n_positions=16)).eval()
    model.transformer.h[0].mlp = Routed(32)
    adapted = set(targets(model, sections.Lora())[0])
    assert {name for name in adapted if "experts" in name} == {"experts.0", "experts.1", "experts.2"}
    assert not {name for name in adapted if "vision" in name or name in "012"}
    freeze_unreached(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if "vision" in name}


def test_processes_need_not_wait_for_an_expert_without_tokens(tmp_path):
    model = Routed(8)
    del model.vision
    alone = model(torch.ones(2, 8)).detach()
    hold_idle_experts(model)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):  # the second pass finds out that a gradient of the first is missing
            made = parallel(torch.ones(2, 8))
            assert torch.equal(made, alone)
            made.sum().backward()
        del parallel, made
        gc.collect()  # what holds the process group goes before it: collected later, its destructor waits forever
    finally:
        torch.distributed.destroy_process_group()
    assert torch.count_nonzero(model.experts[0].weight.grad) == 0
    assert torch.equal(model.experts[1].weight.grad, torch.full((8, 8), 4.0))  # two tokens in each of two passes


def test_without_data_the_same_layers_are_found():
    for family in ("llama", "gpt_oss", "qwen2_moe", "zamba2"):
        with torch.device("meta"):
            fake = tiny(family)
        assert targets(fake, sections.Lora()) == targets(tiny(family), sections.Lora())


def test_a_model_whose_code_does_not_run_here_is_adapted_by_its_structure(monkeypatch):
    """As one that wants a GPU while it is still on the CPU."""
    wanted = targets(tiny_with_vision(), sections.Lora())
    model = tiny_with_vision()
    monkeypatch.setattr(type(model), "forward", lambda *given, **named: given[0].no_kernel)
    assert targets(model, sections.Lora()) == wanted
    freeze_unreached(model)
    assert all(p.requires_grad for p in model.parameters())


def test_the_words_that_are_tried_have_no_meaning_of_their_own():
    model = tiny("llama", eos_token_id=[1, 7], bos_token_id=0)
    assert not {0, 1, 2, 7} & set(probe(model).flatten().tolist())
    assert probe(model).max() > 90


def test_experts_get_no_adapter_with_dropout_and_that_is_said():
    model = add_lora(tiny("gpt_oss"), sections.Model(path="", adapter="lora", lora=sections.Lora(dropout=0.1)))
    assert "experts' matrices" in shares(model).lines()[0]


def test_a_router_that_is_named_is_refused_and_experts_can_be_named():
    model = tiny("phimoe")
    with pytest.raises(UserError, match=r"model\.lora\.target_modules = \['router'\]: .* is a router"):
        targets(model, sections.Lora(target_modules=["router"]))
    modules, experts = targets(model, sections.Lora(target_modules=["q_proj", "experts.down_proj"]))
    assert modules == ["q_proj"]
    assert experts == [f"model.layers.{block}.mlp.experts.down_proj" for block in (0, 1)]


def test_shares_are_counted_by_weights_and_said():
    found = Shares(whole=1000, adapted=600, bare_experts=100, quantised=500, trained=40)
    assert found.lines("4bit") == [
        "of 1,000 weights 60.0% have an adapter (40 trained numbers), 50.0% are in 4 bits; "
        "40.0% have none (experts' matrices: 10.0%)"
    ]
    whole = tiny("llama", tie_word_embeddings=True)
    n = sum(p.numel() for p in whole.parameters())
    assert shares(whole) == Shares(n, 0, 0, 0, n)
    assert shares(whole).lines() == []
    adapted = shares(add_lora(whole, sections.Model(path="", adapter="lora", lora=sections.Lora(rank=2))))
    matrices = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 32)
    assert adapted == Shares(n, matrices, 0, 0, 2 * 2 * (64 * 2 + 48 * 2 + 64 * 3))


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_base_that_is_stored_in_low_bits_is_unpacked_and_can_be_trained_and_saved(family, bits, tokenizer, tmp_path):
    plain = tiny_gpt2(tokenizer, n_embd=64) if family == "gpt2" else tiny("llama", hidden_size=64, head_dim=16)
    plain.save_pretrained(tmp_path / "plain")
    how = BitsAndBytesConfig(load_in_4bit=bits == "4bit", load_in_8bit=bits == "8bit")
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=how)
    packed.save_pretrained(tmp_path / "packed")
    section = sections.Model(path=str(tmp_path / "packed"))
    model = load_causal_lm(section)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    gap = (said(model) - said(plain)).abs().mean() / said(plain).std()
    assert 0 < gap < (0.4 if bits == "4bit" else 0.04)
    assert not hasattr(load_config(section), "quantization_config")
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(said(again), said(model))
    low = load_causal_lm(section.model_copy(update={"adapter": "lora", "quantization": "4bit"}))
    assert shares(low).quantised > 0


@pytest.mark.parametrize("load", [load_config, load_causal_lm])
def test_low_bits_that_are_not_undone_here_are_refused_by_name(load, tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"model\.path = '{tmp_path}': its weights are stored in low bits \(gptq\)"):
        load(sections.Model(path=str(tmp_path)))


def test_quantisation_that_reaches_nothing_is_refused(tmp_path):
    config = AutoConfig.for_model("falcon", vocab_size=99, hidden_size=64, num_hidden_layers=1, num_attention_heads=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.quantization = 8bit: .* nothing would be quantised"):
        load_causal_lm(sections.Model(path=str(tmp_path), adapter="lora", quantization="8bit"))
