"""How rows go on: what a model keeps of the past is found by trying it."""

from typing import Any

import pytest
import torch
import transformers

from align.errors import UserError
from align.generation import kv_cache
from align.generation.kv_cache import Cached, DecodingMode, RoomyLayer, decoding_mode
from align.generation.sampling import Sampling, sample
from align.models.language import token_logprobs

SHAPE: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
HEADS = SHAPE | {"num_attention_heads": 2, "intermediate_size": 48}
LINEAR = {"linear_num_value_heads": 2, "linear_num_key_heads": 1, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
EXPERTS |= {"shared_expert_intermediate_size": 16, "num_key_value_heads": 1, "head_dim": 16}
KINDS = {"layer_types": ["linear_attention", "full_attention"]}
ATTENDS = {"attention_window_size": 6, "num_key_value_heads": 1, "lru_width": 32}

# A model, and how its rows go on.
FAMILIES: dict[str, tuple[str, dict[str, Any], DecodingMode]] = {
    "keys and values": ("Llama", HEADS, DecodingMode(True, True)),
    "and a recurrent state": ("Qwen3Next", HEADS | LINEAR | EXPERTS | KINDS, DecodingMode(True, True)),
    "a state that padding gets into": ("Mamba", SHAPE | {"state_size": 4}, DecodingMode(True, False)),
    "positions that begin at 2": (
        "Roberta",
        HEADS | {"is_decoder": True, "pad_token_id": 1},
        DecodingMode(True, False),
    ),
    "a state of the model's own": ("RecurrentGemma", HEADS | ATTENDS, DecodingMode(False, True)),
    "a state by another name": ("Rwkv", SHAPE | {"attention_hidden_size": 32}, DecodingMode(False, True)),
    "nothing": ("OpenAIGPT", {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 2}, DecodingMode(False, True)),
}


def build(name: str, shape: dict[str, Any]) -> Any:
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**shape, bos_token_id=2, eos_token_id=3)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def llama() -> Any:
    return build("Llama", HEADS)


def largest_gap(model: Any, lengths: tuple[int, ...] = (3, 9, 5, 5, 1)) -> float:
    """Between log probabilities as they were sampled, with rows that end early, and of a plain pass of each row."""
    prompts = [torch.randint(5, 60, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in lengths]
    answers = sample(model, prompts, Sampling(8), list(range(0, 60, 8)), [], torch.Generator().manual_seed(1))
    assert len({len(answer.tokens) for answer in answers}) > 1
    gaps = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt + answer.tokens])
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        expected = token_logprobs(logits, ids[0, len(prompt) :])
        gaps.append(float((torch.tensor(answer.logprobs) - expected).abs().max()))
    return max(gaps)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_go_on_as_in_plain_passes_whatever_the_model_keeps(family, capsys):
    name, shape, way = FAMILIES[family]
    model = build(name, shape)
    assert decoding_mode(model) == way
    assert largest_gap(model) < 1e-5
    slower = capsys.readouterr().out
    assert slower.count("slower") == (way != DecodingMode(True, True))


def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token is written over the one before it."""

    def update(self: Any, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        return keys, values

    monkeypatch.setattr(RoomyLayer, "update", update)


def shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions go on one too late."""
    append = Cached.append

    def later(self: Cached, tokens: Any) -> None:
        append(self, tokens)
        self.positions = self.positions + (self.positions.shape[1] == 1) * (self.cache.get_seq_length() == 5)

    monkeypatch.setattr(Cached, "append", later)


def keeps_the_wrong_row(monkeypatch: pytest.MonkeyPatch) -> None:
    reorder = RoomyLayer.reorder_cache
    monkeypatch.setattr(RoomyLayer, "reorder_cache", lambda self, rows: reorder(self, torch.zeros_like(rows)))


@pytest.mark.parametrize("wrong", [forgets, shifts, keeps_the_wrong_row])
def test_a_cache_that_is_wrong_is_found_and_not_used(monkeypatch, wrong):
    wrong(monkeypatch)
    model = llama()
    assert decoding_mode(model) != DecodingMode(True, True)
    assert largest_gap(model) < 1e-5


def test_a_batch_that_shrinks_allocates_one_tensor():
    model = llama()
    batch = Cached(model, [[1, 2, 3]] * 8, room=8)
    with torch.no_grad():
        batch.next_logits()
    layers = batch.cache.layers
    places = {states.data_ptr() for layer in layers for states in (layer.keys, layer.values)}
    seen, expected = set(places), [layer.keys[3].clone() for layer in layers]
    for n in (7, 5, 4):
        batch.keep(torch.arange(n))
        seen |= {states.data_ptr() for layer in layers for states in (layer.keys, layer.values)}
    assert len(layers) > 1
    assert len(seen) == len(places) + 1
    assert all(torch.equal(layer.keys[3], keys) for layer, keys in zip(layers, expected, strict=True))


def test_a_model_is_tried_once(monkeypatch):
    model, tried = llama(), []
    monkeypatch.setattr(kv_cache, "_probed", lambda model: tried.append(model) or DecodingMode(True, True))
    decoding_mode(model)
    decoding_mode(model)
    assert tried == [model]


def test_a_model_that_sees_what_comes_is_refused():
    with pytest.raises(UserError, match=r"BertLMHeadModel a token sees later tokens.*is_decoder"):
        largest_gap(build("Bert", HEADS))


def test_beyond_where_rotary_factors_switch_nothing_is_sampled():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    shape = HEADS | {"max_position_embeddings": 64, "original_max_position_embeddings": 16, "pad_token_id": 0}
    model = build("Phi3", shape | {"rope_parameters": rope | {"original_max_position_embeddings": 16}})
    assert largest_gap(model, (3, 8, 5, 5, 1)) < 1e-5
    with pytest.raises(UserError, match="may have 17 tokens, and Phi3ForCausalLM has 16 positions"):
        largest_gap(model, (3, 9))
