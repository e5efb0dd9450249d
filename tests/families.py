"""The zoo: a tiny model with random weights of each family of causal language models that transformers can build.

Not among them: what needs more than text, and Mllama, whose text part transformers writes and cannot read back. Most
families need nothing but `SIZES`; what one needs of its own stands in `EXTRAS`. A name is transformers' model
type, with a variant after a colon: `phi3:longrope`.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import torch
from tiny import special_ids

# Every size that a configuration may have, under every name; a family takes those that it knows. The sliding window is
# shorter than most prompts, and the weights are so large that a token that is seen or not seen shows.
NAMES: dict[Any, str] = {
    32: "hidden_size hidden_dim word_embed_proj_dim lru_width swa_hidden_size embedding_size emb_dim",
    48: "intermediate_size ffn_dim ffn_hidden_size decoder_ffn_dim encoder_ffn_dim shared_intermediate_size "
    "dense_intermediate_size dff dim_ff d_inner shared_experts_intermediate_size",
    16: "image_size moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size rel_extent "
    "router_hidden_size moe_shared_expert_intermediate_size mamba_d_state ssm_state_size state_size",
    8: "head_dim patch_size dim_head swa_head_dim linear_key_head_dim linear_value_head_dim "
    "linear_head_dim v_head_dim swa_v_head_dim kv_lora_rank q_lora_rank o_lora_rank qk_rope_head_dim "
    "qk_nope_head_dim index_head_dim mamba_d_head mamba_head_dim mamba_n_heads mamba_num_heads rotary_dim "
    "sliding_window window_size chunk_size mamba_chunk_size attention_chunk_size hidden_size_per_layer_input "
    "laurel_rank block_size gated_norm_rank local_attention_window_len index_topk adapter_rank",
    4: "num_attention_heads swa_num_attention_heads linear_num_value_heads "
    "linear_num_heads decoder_attention_heads encoder_attention_heads attention_heads num_decoder_attention_heads "
    "n_routed_experts num_encoder_attention_heads num_experts num_local_experts moe_num_experts zero_expert_num",
    2: "num_hidden_layers num_layers encoder_layers num_encoder_layers num_key_value_heads swa_num_key_value_heads "
    "linear_num_key_heads num_experts_per_tok moe_k moe_topk n_group topk_group index_n_heads decoder_layers "
    "num_decoder_layers n_groups num_dense_layers hc_mult",
    1: "n_shared_experts first_k_dense_replace",
    256: "max_position_embeddings",
    320: "vocab_size_per_layer_input",
    0.2: "initializer_range init_std",
    None: "forced_eos_token_id suppress_tokens begin_suppress_tokens",
    0.0: "dropout attention_dropout hidden_dropout activation_dropout",
}
SIZES = {name: size for size, names in NAMES.items() for name in names.split()} | {"is_decoder": True}
SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"
ALTERNATING = {"layer_types": [SLIDING, FULL, SLIDING, FULL]}
MIXED = {"layer_types": [LINEAR, FULL, LINEAR, FULL]}
CONVOLVING = {"layer_types": ["conv", FULL, "conv", FULL]}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
LATENT = {"num_key_value_heads": 4, "n_group": 1, "topk_group": 1}  # as in DeepSeek every head has its own keys
INDEXED = {"index_topk": 8, "index_n_heads": 16}  # with few heads many scores of its indexer are 0, and draws are lots
LONGROPE = {  # other rotary factors for sequences of more than `original_max_position_embeddings`
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.5, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 64,
}
BLOCKS = ["mamba", "attention", "mamba", "attention"]
UNSCALED = {"logit_scale": 1.0}
VISION = {  # of which a text needs nothing
    "vision_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    | {"image_size": 16, "patch_size": 8}
}

EXTRAS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "longcat_flash", "youtu"), LATENT),
    **dict.fromkeys(("axk2", "deepseek_v32", "glm_moe_dsa", "hy_v4"), LATENT | INDEXED),
    **dict.fromkeys(("bailing_hybrid", "kimi_linear"), LATENT | MIXED),
    **dict.fromkeys(("cohere", "cohere2", "cohere2_moe"), UNSCALED),
    **dict.fromkeys(("lfm2", "lfm3"), CONVOLVING),
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": ALTERNATING | {"rope_parameters": {SLIDING: ROPE, FULL: ROPE}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_shared_experts": 1},
    "falcon:alibi": {"alibi": True, "multi_query": False},
    "falcon:new": {"new_decoder_architecture": True},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3_text": ALTERNATING,
    "gemma3n_text": ALTERNATING | {"num_kv_shared_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": BLOCKS},
    "inkling_text": {"logits_mup_width_multiplier": 1.0},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": CONVOLVING,
    "minicpm3": LATENT | {"scale_emb": 1, "dim_model_base": 32},
    "mamba2": {"num_heads": 8},
    "gemma3": VISION | {"mm_tokens_per_image": 4},
    "llama4": {},
    "qwen3_5": {},
    "gemma4_text": {"global_head_dim": 8},
    "bert:encoder": {"is_decoder": False},
    "phi3:longrope": {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64},
    "reformer": {"axial_pos_embds": False, "attention_head_size": 8, "feed_forward_size": 48},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roc_bert": {"pronunciation_vocab_size": 8, "shape_vocab_size": 8},
    "xlm:causal": {"causal": True},
    "xlnet": {"d_head": 8},
    "xlstm": {"num_heads": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]},
    "zamba2": {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}

PLAIN = """
afmoe apertus arcee aria_text axk1 axk2 bart beam bert bert-generation big_bird bigbird_pegasus biogpt bitnet
blenderbot blenderbot-small bloom camembert codegen cohere cohere2 cohere2_moe cohere_compass_text cpmant ctrl cwm
data2vec-text dbrx deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama doge dots1 electra ernie ernie4_5
ernie4_5_moe exaone4 exaone_moe falcon falcon_mamba flex_olmo flint gemma gemma2 gemma3n_text gemma4_text
gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa gpt2 gpt_bigcode gpt_neox gpt_neox_japanese gpt_oss
gptj granite granite_swa granitemoe granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe
hy_v3 hy_v4 hyperclovax inkling2_text inkling_text jais2 jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3 llama
llama4_text longcat_flash mamba marian mbart megatron-bert mellum mimo_v2_flash minicpm3 minimax minimax_m2
minimax_m3_vl_text ministral ministral3 mistral mixtral modernbert-decoder mpt mvp nanochat nemotron nemotron_h olmo
olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt pegasus persimmon phi phi3 phimoe plbart prophetnet qwen2 qwen2_moe qwen3
qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next recurrent_gemma reformer rembert roberta roberta-prelayernorm
roc_bert roformer rwkv seed_oss smollm3 solar_open stablelm starcoder2 trocr vaultgemma whisper xglm xlm xlm-roberta
xlm-roberta-xl xlnet xlstm xmod youtu zaya
"""
FAMILIES = sorted({*PLAIN.split(), *EXTRAS})


def family_config(name: str, tokenizer: Any) -> Any:
    """The tiny configuration of a family, with the tokenizer's vocabulary and special tokens."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[name.split(":")[0]]
    wanted = SIZES | {"vocab_size": len(tokenizer), **special_ids(tokenizer)}
    parts = {key: sized(part, wanted) for key, part in kind.sub_configs.items() if dataclasses.is_dataclass(part)}
    extras = {kind.attribute_map.get(key, key): value for key, value in EXTRAS.get(name, {}).items()}
    return kind(**parts | sized(kind, wanted) | extras)


def sized(kind: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Those of the wanted keys that a class of configurations knows, under its own names."""
    known = {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map)
    layers = {"num_hidden_layers": 4} if "layer_types" in known else {}  # so that all kinds of layers occur
    return {kind.attribute_map.get(key, key): value for key, value in (wanted | layers).items() if key in known}


def family_model(name: str, tokenizer: Any) -> Any:
    """The tiny model of a family: the same weights at every call, none of them 0 or 1 as they are often begun."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(zlib.crc32(name.encode()))
    model = AutoModelForCausalLM.from_config(family_config(name, tokenizer)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model
