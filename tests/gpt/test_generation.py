"""Decoding: a cache must change the cost and nothing else."""

import copy

import pytest
import torch
from transformers import DynamicCache, StaticCache

from align.gpt.stock import as_ours


@pytest.fixture(params=["dynamic", "static"])
def cache(request, config):
    return DynamicCache() if request.param == "dynamic" else StaticCache(config, max_cache_len=16)


@pytest.mark.parametrize("pieces", [[12], [1] * 12, [5, 1, 1, 5], [4, 8]])
@torch.no_grad()
def test_decoding_with_a_cache_is_the_whole_forward(model, ids, cache, pieces):
    found = [model(piece, past_key_values=cache).logits for piece in ids.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(found, dim=1), model(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pieces", [[5, 1, 6], [8, 1, 1, 1, 1]])
@torch.no_grad()
def test_decoding_after_left_padding_is_the_whole_forward(model, ids, cache, pieces):
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    mask[1, :5] = 0
    found, end = [], 0
    for piece in ids.split(pieces, dim=1):
        end += piece.shape[1]
        found.append(model(piece, attention_mask=mask[:, :end], past_key_values=cache).logits)
    for row, n_pads in enumerate([3, 5, 0]):
        alone = model(ids[row : row + 1, n_pads:]).logits
        torch.testing.assert_close(torch.cat(found, dim=1)[row : row + 1, n_pads:], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_cache_is_returned_when_it_is_asked_for(model, ids):
    assert model(ids).past_key_values.get_seq_length() == 12
    assert model(ids, use_cache=False).past_key_values is None
    assert model(ids, past_key_values=DynamicCache(), use_cache=False).past_key_values is None
    assert model.train()(ids).past_key_values is None  # it would be copied and never read
    assert model(ids, use_cache=True).past_key_values.get_seq_length() == 12


def test_greedy_generation_is_gpt2s(stock, ids):
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options = {"attention_mask": mask, "max_new_tokens": 15, "do_sample": False}
    ours, theirs = (m.generate(ids, **options) for m in (as_ours(copy.deepcopy(stock)), stock))
    assert ours.shape[1] > 12
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}])
def test_generation_by_other_ways_is_gpt2s(stock, ids, options):
    options = {**options, "attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False}
    ours, theirs = (m.generate(ids, **options) for m in (as_ours(copy.deepcopy(stock)), stock))
    assert ours.tolist() == theirs.tolist()


def test_assisted_generation_crops_the_cache_and_is_gpt2s(stock, ids):
    ours, options = as_ours(copy.deepcopy(stock)), {"max_new_tokens": 8, "do_sample": False}
    found = ours.generate(ids[:1], assistant_model=as_ours(copy.deepcopy(stock)), **options)
    assert found.tolist() == stock.generate(ids[:1], **options).tolist()


def test_generation_beyond_the_positions_is_refused(model, ids):
    model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match=r"33 tokens \(32 cached, 1 new.* n_positions = 32"):
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)
