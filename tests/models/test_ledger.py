"""What passes keep is counted on tensors without data; here it is held against real ones."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, GPT2Config

from align import sections
from align.models import fake, ledger
from align.models.fake import subject
from align.models.ledger import Ledger, Parts, prompt_pass, score_pass, update_pass, weights

ROWS, TIME, N_SCORED = 3, 20, 31
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
SHAPE = {"n_embd": 64, "n_head": 4, "n_positions": 32, "vocab_size": 384}


def shape(kind: str, n_layer: int = 2):
    if kind == "gpt2":
        return GPT2Config(**SHAPE, n_layer=n_layer, **NO_DROPOUT)
    if kind == "align_gpt":
        return AutoConfig.for_model("align_gpt", **SHAPE, n_layer=n_layer)
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 384, "num_hidden_layers": n_layer}
    more = {"num_key_value_heads": 2} if kind == "qwen2" else {}
    return AutoConfig.for_model(kind, **sizes, intermediate_size=160, **more)


def whole(config, **changes):
    keys = {"head": "vocabulary", "trains": "all", "dtype": torch.float32, "precision": "fp32"}
    return subject(config, **(keys | changes))


def filled(of: fake.Subject):
    """The model with data."""
    model = fake.build(of, None).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    model.tie_weights()
    return model.eval()


def counted_on_real_tensors(of: fake.Subject) -> Parts:
    """The same pass with data, and the same bookkeeping."""
    model = filled(of)
    ids = torch.zeros(ROWS, TIME, dtype=torch.long)
    with Ledger(384) as book:
        book.ignore([ids, *model.parameters(), *model.buffers()])
        book.ignore(ledger._with_gradients(model))
        with ledger._computing(of):
            objective = ledger._objective(model, of, ids, N_SCORED, "supervised")
        loss = objective()
        del objective
        loss.backward()
    return book.peak


def test_a_product_keeps_its_input_and_its_weights_are_not_counted():
    x, weight = torch.zeros(10, 8), torch.zeros(4, 8, requires_grad=True)
    with Ledger(vocab_size=4) as book:
        book.ignore([x, weight])
        y = x * 2  # 320 bytes, kept for the gradient of the weight
        z = torch.nn.functional.linear(y, weight)  # 160 bytes, as many columns as words
        del y
        assert book.alive == {False: 320, True: 160}
        z.sum().backward()
        del z
    assert book.alive[False] == 4 * 8 * 4  # the gradient
    assert book.peak.small == book.peak.total


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["align_gpt", "gpt2", "qwen2", "gpt_neox"])
def test_fake_tensors_keep_what_real_ones_keep(kind, precision):
    of = whole(shape(kind), precision=precision)
    real = counted_on_real_tensors(of)
    fake = update_pass(of, ROWS, TIME, N_SCORED, "supervised")
    assert fake.total == pytest.approx(real.total, rel=0.04)  # grouped attention's kernel has another workspace
    assert fake.logits == pytest.approx(real.logits, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("trains", ["all", "nothing"])
def test_the_head_that_trl_computes_in_tiles_is_counted_as_it_is(precision, trains, monkeypatch):
    """With tiles as wide as the vocabulary: TRL's room for a tile is always 32768 words wide, most of it untouched."""
    from trl.trainer import add_fused_lm_head, utils

    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", SHAPE["vocab_size"])
    of = whole(shape("gpt2"), precision=precision, trains=trains)
    model = filled(of)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))  # as its DPOTrainer does
    ids = torch.zeros(ROWS, TIME, dtype=torch.long)
    with Ledger(SHAPE["vocab_size"]) as book:
        book.ignore([ids, *model.parameters(), *model.buffers()])
        with torch.set_grad_enabled(trains == "all"):
            book.ignore(ledger._with_gradients(model))
            with ledger._computing(of):
                loss = model(input_ids=ids, labels=ids, use_cache=False, fused_lm_head=True).log_probs.sum()
            if trains == "all":
                loss.backward()
    count = update_pass if trains == "all" else score_pass
    assert count(of, ROWS, TIME, ROWS * TIME, "preference").total == pytest.approx(book.peak.total, rel=0.1)


def test_many_blocks_are_counted_by_two_and_three(monkeypatch):
    found = update_pass(whole(shape("gpt2", n_layer=7)), ROWS, TIME, N_SCORED, "supervised")
    monkeypatch.setattr(ledger, "N_COUNTED", (2, 7))
    ledger._count.cache_clear()
    assert found == pytest.approx(update_pass(whole(shape("gpt2", n_layer=7)), ROWS, TIME, N_SCORED, "supervised"))


@pytest.mark.parametrize(("kind", "precision"), [("align_gpt", "fp32"), ("gpt2", "bf16"), ("qwen2", "bf16")])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_recomputing_keeps_less_and_no_gradients_still_less(kind, precision, device):
    of = whole(shape(kind, n_layer=6), precision=precision, device=device)
    kept = update_pass(of, ROWS, TIME, N_SCORED, "supervised")
    recomputed = update_pass(replace(of, checkpointing=True), ROWS, TIME, N_SCORED, "supervised")
    assert recomputed.activations < 0.7 * kept.activations
    assert score_pass(of, ROWS, TIME, N_SCORED).activations < recomputed.activations


@pytest.mark.parametrize(("kind", "heads"), [("gpt2", 4), ("qwen2", 2)])
def test_the_cache_holds_keys_and_values_of_every_block(kind, heads):
    _, a_token = prompt_pass(whole(shape(kind, n_layer=5)), ROWS, TIME)
    assert a_token == 5 * 2 * heads * 16 * 4  # blocks, keys and values, heads, width of a head, fp32


def test_weights_are_counted_exactly():
    config = shape("gpt2")
    block = 12 * 64 * 64 + 13 * 64  # matrices; biases and norms
    n = (384 + 32) * 64 + 2 * block + 2 * 64
    assert weights(whole(config)).parameters == n == weights(whole(config)).n_trained
    assert weights(whole(config, trains="nothing", dtype=torch.bfloat16)).frozen_bytes == 2 * n
    adapter = weights(whole(config, trains="adapter", lora=sections.Lora(rank=4)))
    assert adapter.n_trained == 4 * 2 * (64 + 192 + 64 + 64 + 64 + 256 + 256 + 64)
    assert (adapter.parameters, adapter.frozen_bytes) == (n, 4 * n)
    scalar = weights(whole(config, head="scalar", trains="adapter", lora=sections.Lora(rank=4)))
    assert scalar.n_trained == adapter.n_trained + 64 + 1


@pytest.mark.parametrize("head", ["vocabulary", "scalar"])
@pytest.mark.parametrize("trains", ["adapter", "nothing"])
def test_adapters_on_many_blocks_are_those_of_each(trains, head):
    of = whole(shape("qwen2", n_layer=6), trains=trains, head=head, quantization="4bit", lora=sections.Lora(rank=4))
    found, built = weights(of), ledger._weights(of, None)
    assert found[:2] == built[:2]
    assert sorted(found.trained) == sorted(built.trained)


def test_quantised_matrices_and_what_stays():
    config, lora = shape("gpt2"), sections.Lora(rank=4)
    matrices = 2 * 12 * 64 * 64
    rows = 2 * (192 + 64 + 256 + 64)
    rest = weights(whole(config)).parameters - matrices
    eight, four = (
        weights(whole(config, trains="adapter", dtype=torch.bfloat16, quantization=bits, lora=lora))
        for bits in ("8bit", "4bit")
    )
    assert eight.frozen_bytes == matrices + 4 * rows + 2 * rest
    assert four.frozen_bytes == matrices * (0.5 + 1 / 64 + 4 / (64 * 256)) + 2 * rest
    assert eight.n_trained == four.n_trained == weights(whole(config, trains="adapter", lora=lora)).n_trained
    assert eight.parameters == four.parameters == matrices + rest


def test_counting_draws_no_random_number():
    before = torch.get_rng_state()
    update_pass(whole(shape("align_gpt", n_layer=3)), 1, 5, 2, "policy")
    assert torch.equal(before, torch.get_rng_state())


def test_counting_for_a_gpu_leaves_torch_as_it_was():
    before = dict(torch.Tensor.__dict__), dict(torch.__dict__), dict(torch.nn.functional.__dict__)
    of = whole(shape("gpt2"), precision="bf16", device="gpu")
    on_gpu = update_pass(of, ROWS, TIME, N_SCORED, "supervised")
    assert on_gpu.total > update_pass(replace(of, device="cpu"), ROWS, TIME, N_SCORED, "supervised").total
    assert before == (dict(torch.Tensor.__dict__), dict(torch.__dict__), dict(torch.nn.functional.__dict__))
