"""The mathematics: against Hugging Face's GPT-2, and against what it must not depend on."""

import copy
import math

import pytest
import torch

from align.gpt import GPTConfig, GPTForCausalLM
from align.gpt import model as gpt_model
from align.gpt.model import attend, kept, waves
from align.gpt.stock import as_ours


@pytest.fixture
def twin(stock):
    return as_ours(copy.deepcopy(stock))


def test_logits_and_loss_are_gpt2s(stock, twin, ids):
    expected, found = stock(ids, labels=ids), twin(ids, labels=ids)
    assert expected.logits.std() > 0.5  # or the bound below would say nothing
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=0)


def test_gradients_are_gpt2s(stock, twin, ids):
    stock(ids, labels=ids).loss.backward()
    twin(ids, labels=ids).loss.backward()
    expected = dict(stock.named_parameters())
    for name, parameter in twin.named_parameters():
        wanted = expected[name].grad
        wanted = wanted.t() if ".c_" in name and wanted.dim() == 2 else wanted
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-5, rtol=0, msg=name)
    assert len(expected) == len(list(twin.parameters()))


@pytest.mark.parametrize("time", [2, 9, 64])
def test_attention_of_short_rows_is_the_fused_kernels(monkeypatch, time):
    drawn = torch.randn(3, 2, 4, time, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for short in (gpt_model.SHORT, 0):
        monkeypatch.setattr(gpt_model, "SHORT", short)
        query, key, value = (part.clone().requires_grad_() for part in drawn)
        mixed = attend(query, key, value, None, 0.0)
        mixed.square().sum().backward()
        results.append((mixed, query.grad, key.grad, value.grad))
    for mine, fused in zip(*results, strict=True):
        torch.testing.assert_close(mine, fused, atol=1e-12, rtol=1e-10)


def test_padded_logits_are_gpt2s_where_tokens_are_real(stock, twin, ids):
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    mask[1, :4] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # the stock class must be told
    expected = stock(ids, attention_mask=mask, position_ids=positions).logits
    found = twin(ids, attention_mask=mask).logits
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


def test_labels_of_minus_100_are_not_scored(model, ids):
    labels = ids.clone()
    labels[:, 6:] = -100
    torch.testing.assert_close(model(ids, labels=labels).loss, model(ids[:, :6], labels=ids[:, :6]).loss)


def test_a_token_depends_on_no_later_one(model, ids):
    changed = ids.clone()
    changed[:, 7] = (ids[:, 7] + 1) % 61
    before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model, ids, side):
    pads = torch.zeros(3, 5, dtype=torch.long)
    real = slice(5, None) if side == "left" else slice(0, 12)
    padded = torch.cat([pads, ids] if side == "left" else [ids, pads], dim=1)
    mask = torch.zeros_like(padded)
    mask[:, real] = 1
    torch.testing.assert_close(model(padded, attention_mask=mask).logits[:, real], model(ids).logits)


def test_a_row_of_padding_only_is_harmless(model, ids):
    mask = torch.ones_like(ids)
    mask[1] = 0
    labels = ids.masked_fill(mask == 0, -100)
    out = model(ids, attention_mask=mask, labels=labels)
    out.loss.backward()
    assert out.logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_packed_documents_are_as_alone_under_a_block_mask(model, ids):
    packed = torch.cat([ids[0], ids[1]])[None]  # (1, 24)
    document = torch.arange(24) // 12
    blocks = (document[:, None] == document[None, :]).tril()[None, None]
    found = model(packed, attention_mask=blocks, position_ids=(torch.arange(24) % 12)[None]).logits
    torch.testing.assert_close(found.view(2, 12, -1), model(ids[:2]).logits)


def test_embeddings_may_be_given_instead_of_ids(model, ids):
    torch.testing.assert_close(model(inputs_embeds=model.transformer.wte(ids)).logits, model(ids).logits)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(ids, inputs_embeds=model.transformer.wte(ids))


def test_hidden_states_are_given_from_the_embeddings_to_the_last_norm(model, ids):
    states = model(ids, output_hidden_states=True).hidden_states
    assert len(states) == 3
    torch.testing.assert_close(states[0], model.transformer.wte(ids) + model.transformer.wpe.weight[:12])
    torch.testing.assert_close(model.lm_head(states[-1]), model(ids).logits)


def test_kept_positions():
    hidden = torch.arange(6.0).view(2, 3, 1)
    assert kept(hidden, 0).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert kept(hidden, 2).flatten().tolist() == [1, 2, 4, 5]
    assert kept(hidden, torch.tensor([0, 2])).flatten().tolist() == [0, 2, 3, 5]
    assert kept(hidden, torch.tensor([[1], [2]])).tolist() == [[[1]], [[5]]]
    assert kept(hidden, torch.tensor([[True, False, True], [False, True, False]])).tolist() == [[0], [2], [4]]


def test_logits_are_made_only_where_kept(model, ids):
    assert model(ids, logits_to_keep=1).logits.shape == (3, 1, 61)
    torch.testing.assert_close(model(ids, logits_to_keep=torch.tensor([3, 5])).logits, model(ids).logits[:, [3, 5]])


def test_a_sequence_beyond_the_positions_is_refused_with_both_lengths(model):
    with pytest.raises(ValueError, match=r"33 tokens .*n_positions = 32.*cut it to 32"):
        model(torch.ones(1, 33, dtype=torch.long))


def test_attention_weights_are_refused_with_a_remedy(model, ids):
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        model(ids, output_attentions=True)


def test_initial_weights_are_gpt2s():
    torch.manual_seed(0)
    model = GPTForCausalLM(GPTConfig(vocab_size=800, n_positions=256, n_embd=128, n_layer=8, n_head=4))
    spread = {name: parameter.std().item() for name, parameter in model.named_parameters() if parameter.dim() == 2}
    for name, std in spread.items():
        wanted = 0.01 if "wpe" in name else 0.02 / math.sqrt(16) if "c_proj" in name else 0.02
        assert std == pytest.approx(wanted, rel=0.03), name
    assert all(not parameter.any() for name, parameter in model.named_parameters() if name.endswith("bias"))
    assert all((parameter == 1).all() for name, parameter in model.named_parameters() if ".ln_" in name and "w" in name)
    ids = torch.randint(800, (4, 64))
    assert model(ids, labels=ids).loss.item() == pytest.approx(math.log(800), abs=0.1)  # knows nothing yet


SINUSOIDAL = {"vocab_size": 61, "n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 4, "initializer_range": 0.06}


def test_sinusoidal_positions_begin_as_large_as_the_tokens():
    model = GPTForCausalLM(GPTConfig(**SINUSOIDAL, position_init="sinusoidal")).transformer
    assert model.wpe.weight.square().mean().sqrt().item() == pytest.approx(0.06, rel=1e-4)
    assert model.wte.weight.std().item() == pytest.approx(0.06, rel=0.1)


def test_a_step_along_the_waves_is_one_rotation_everywhere():
    table = waves(50, 16)
    torch.testing.assert_close(table.square().sum(1), torch.full((50,), 16.0))
    likeness = table @ table.T  # depends on the distance alone, and is largest between neighbours
    for distance in (1, 2, 7):
        along = likeness.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=0)
    assert likeness[0, 0] > likeness[0, 1] > likeness[0, 2]
    assert waves(5, 7).shape == (5, 7)  # an odd width has one sine more


def test_sinusoidal_positions_are_learned_and_what_was_learned_is_kept(tmp_path, ids):
    model = GPTForCausalLM(GPTConfig(**SINUSOIDAL, position_init="sinusoidal"))
    positions = model.transformer.wpe.weight
    begun = positions.detach().clone()
    assert any(parameter is positions for parameter in model.parameters())
    model(ids, labels=ids).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert (positions - begun)[: ids.shape[1] - 1].abs().amax(1).min() > 0
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(GPTForCausalLM.from_pretrained(tmp_path).transformer.wpe.weight, positions)


def test_dropout_acts_in_training_only_and_where_gpt2_has_it(ids):
    model = GPTForCausalLM(GPTConfig(vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=4, dropout=0.5))
    assert sum(isinstance(module, torch.nn.Dropout) for module in model.modules()) == 1 + 3 * 2
    torch.testing.assert_close(model.eval()(ids).logits, model(ids).logits)
    for kind in ("transformer.drop", "attn_dropout", "resid_dropout", "mlp.dropout"):
        for name, module in model.train().named_modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5 if name.endswith(kind) else 0.0
        assert not torch.allclose(model(ids).logits, model(ids).logits), kind


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_the_two_gelus_differ_as_they_should(activation):
    x = torch.linspace(-3, 3, 61)
    mlp = (
        GPTForCausalLM(GPTConfig(n_embd=4, n_head=1, n_layer=1, vocab_size=5, activation=activation))
        .transformer.h[0]
        .mlp
    )
    exact = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    tanh = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    found = torch.nn.functional.gelu(x, approximate=mlp.approximate)
    torch.testing.assert_close(found, exact if activation == "gelu" else tanh, atol=1e-6, rtol=0)
