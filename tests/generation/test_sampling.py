"""Sampling: the right distribution, and what batching, caching and leaving the batch must not change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from scipy.stats import chisquare
from tiny import tiny_gpt

from align.generation.kv_cache import decoding_mode
from align.generation.sampling import Answer, Sampling, _by_gumbel_max, _by_inverse_cdf, draw, sample, stream
from align.gpt import GPTConfig, GPTForCausalLM
from align.models.language import token_logprobs

PAD = 0
SHAPE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = SHAPE | {"intermediate_size": 48, "num_key_value_heads": 1, "max_position_embeddings": 40}
SLIDING = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"], "use_sliding_window": True}


def ours() -> Any:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2}
    return GPTForCausalLM(GPTConfig(vocab_size=60, n_positions=40, initializer_range=0.4, **sizes))


def stock(name: str, **shape: Any) -> Callable[[], Any]:
    """A random model of a Hugging Face family, its weights large enough that greedy answers differ."""
    return lambda: getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**shape, initializer_range=0.3, bos_token_id=2, eos_token_id=3)
    )


def gpt2() -> Any:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2}
    config = transformers.GPT2Config(vocab_size=60, n_positions=40, initializer_range=0.4, **sizes)
    return transformers.GPT2LMHeadModel(config)


FAMILIES = {
    "ours": ours,
    "gpt2": gpt2,
    "llama": stock("Llama", **LLAMA),
    "gpt neox": stock("GPTNeoX", **SHAPE, intermediate_size=48, max_position_embeddings=40),
    "opt": stock("OPT", **SHAPE, ffn_dim=48, max_position_embeddings=40, word_embed_proj_dim=32),
    "mistral, sliding": stock("Mistral", **LLAMA, sliding_window=6),
    "qwen2, sliding in one layer": stock("Qwen2", **LLAMA, **SLIDING),
    "qwen3": stock("Qwen3", **LLAMA, head_dim=16),
    "bloom": stock("Bloom", vocab_size=60, hidden_size=32, n_layer=2, n_head=2),
}


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_prompts(lengths: list[int], vocab_size: int = 60) -> list[list[int]]:
    return [torch.randint(5, vocab_size, (n,), generator=rng(n)).tolist() for n in lengths]


@torch.no_grad()
def generated(model: Any, prompts: list[list[int]], n_tokens: int, eos_id: int | None) -> list[list[int]]:
    """Hugging Face's own greedy answers to left-padded prompts, each up to its EOS."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    options = {"max_new_tokens": n_tokens, "do_sample": False, "eos_token_id": eos_id, "pad_token_id": PAD}
    rows = model.generate(ids, attention_mask=mask, **options)[:, width:].tolist()
    return [row[: row.index(eos_id) + 1] if eos_id in row else row for row in rows]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(5)
    model = FAMILIES[request.param]().eval()
    model.generation_config.eos_token_id = None
    return model


def test_greedy_answers_to_prompts_of_any_length_are_those_of_generate(model):
    prompts = random_prompts([3, 9, 5, 5, 1])
    eos_id = generated(model, prompts, 10, eos_id=None)[1][4]  # some answer ends in the middle
    expected = generated(model, prompts, 10, eos_id)
    answers = sample(model, prompts, Sampling(10, temperature=0), [eos_id], [], rng())
    assert [answer.tokens for answer in answers] == expected
    assert [answer.ended for answer in answers] == [eos_id in tokens for tokens in expected]
    assert len({len(tokens) for tokens in expected}) > 1


@torch.no_grad()
def recomputed(model: Any, prompt: list[int], answer: Answer, temperature: float = 1.0) -> list[float]:
    """log p of each token of an answer from a plain forward of this one sequence."""
    ids = torch.tensor([prompt + answer.tokens])
    logits = model(ids).logits[0, len(prompt) - 1 : -1]
    return token_logprobs(logits, ids[0, len(prompt) :], temperature).tolist()


def test_sampled_logprobs_are_those_of_a_plain_forward(model):
    prompts = random_prompts([3, 9, 5, 5, 1] * 3)
    likely = list(range(0, 60, 6))  # any of ten tokens ends an answer, so rows leave at every step
    answers = sample(model, prompts, Sampling(12, temperature=1.3), likely, [], rng())
    assert len({len(answer.tokens) for answer in answers}) > 4
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.logprobs == pytest.approx(recomputed(model, prompt, answer, 1.3), abs=1e-5)


@pytest.fixture
def talker(tokenizer) -> Any:
    """Our tiny model, which says EOS every few tokens."""
    return tiny_gpt(tokenizer)


def answers_of(talker, tokenizer, n: int = 64, forbidden: tuple[int, ...] = (), **how: Any) -> list[Answer]:
    prompts = random_prompts([4, 7] * (n // 2), len(tokenizer))
    return sample(talker, prompts, Sampling(12, **how), [tokenizer.eos_token_id], list(forbidden), rng())


def test_an_answer_ends_with_its_first_eos_or_at_max_tokens(talker, tokenizer):
    answers = answers_of(talker, tokenizer)
    lengths = [len(answer.tokens) for answer in answers]
    assert min(lengths) < 3 < 11 < max(lengths)  # both ends occur
    for answer in answers:
        assert answer.ended == (answer.tokens[-1] == tokenizer.eos_token_id)
        assert tokenizer.eos_token_id not in answer.tokens[:-1]
        assert len(answer.logprobs) == len(answer.tokens) == 12 or answer.ended


def test_any_of_several_eos_ends_an_answer(talker, tokenizer):
    prompts = random_prompts([4] * 32, len(tokenizer))
    eos_ids = {tokenizer.eos_token_id, *range(5, 60)}
    answers = sample(talker, prompts, Sampling(12), sorted(eos_ids), [], rng())
    assert len({answer.tokens[-1] for answer in answers if answer.ended}) > 2
    for answer in answers:
        assert answer.ended == (answer.tokens[-1] in eos_ids)
        assert eos_ids.isdisjoint(answer.tokens[:-1])


def test_forbidden_tokens_never_appear_and_take_no_probability(talker, tokenizer):
    allowed = [9, tokenizer.eos_token_id]
    forbidden = tuple(sorted(set(range(len(tokenizer))) - set(allowed)))
    for answer in answers_of(talker, tokenizer, forbidden=forbidden):
        assert set(answer.tokens) <= set(allowed)
    only = answers_of(talker, tokenizer, n=2, forbidden=tuple(sorted({*forbidden, tokenizer.eos_token_id})))
    assert [answer.tokens for answer in only] == [[9] * 12] * 2
    assert only[0].logprobs == pytest.approx([0.0] * 12, abs=1e-6)


def test_the_generator_decides_the_answers(talker, tokenizer):
    prompts = random_prompts([4, 7] * 8, len(tokenizer))
    first, again, other = (
        sample(talker, prompts, Sampling(12), [tokenizer.eos_token_id], [], rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_the_batch_size_changes_no_greedy_answer(talker, tokenizer, batch_tokens):
    prompts = random_prompts([3, 9, 5, 5, 1], len(tokenizer))
    how = Sampling(12, temperature=0, batch_tokens=batch_tokens)
    answers = sample(talker, prompts, how, [tokenizer.eos_token_id], [], rng())
    alone = [sample(talker, [p], how, [tokenizer.eos_token_id], [], rng())[0].tokens for p in prompts]
    assert [answer.tokens for answer in answers] == alone


def test_answers_have_the_distribution_of_the_model(talker, tokenizer):
    """The first token of many answers to one prompt, against the softmax."""
    prompt = random_prompts([4], len(tokenizer))[0]
    answers = sample(talker, [prompt] * 4000, Sampling(1, temperature=0.7), [], [], rng())
    with torch.no_grad():
        expected = (talker(torch.tensor([prompt])).logits[0, -1] / 0.7).softmax(-1)
    assert p_value([answer.tokens[0] for answer in answers], expected) > 0.001


def test_a_prompt_that_is_answered_several_times_is_read_once(talker, tokenizer):
    prompts = random_prompts([4, 7], len(tokenizer))
    shapes: list[tuple[int, ...]] = []
    hook = talker.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    decoding_mode(talker)
    shapes.clear()
    answers = sample(talker, prompts * 3, Sampling(12), [], [], rng())
    hook.remove()
    assert shapes == [(2, 7)] + [(6, 1)] * 11
    assert len({tuple(answer.tokens) for answer in answers}) == 6
    for prompt, answer in zip(prompts * 3, answers, strict=True):
        assert answer.logprobs == pytest.approx(recomputed(talker, prompt, answer), abs=1e-5)


LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0, float("-inf")])


def p_value(tokens: Any, expected: torch.Tensor) -> float:
    """Of a chi-square test that the tokens were drawn with these probabilities; rare tokens are counted together."""
    counts = torch.bincount(torch.as_tensor(tokens), minlength=len(expected)).double()
    assert counts[expected == 0].sum() == 0
    expected = expected.double() * counts.sum()
    common = expected >= 10
    pooled = [torch.cat([x[common], x[~common].sum()[None]]) for x in (counts, expected)]
    pooled = [x[pooled[1] > 0] for x in pooled]
    return float(chisquare(pooled[0].numpy(), (pooled[1] * (counts.sum() / pooled[1].sum())).numpy()).pvalue)


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"temperature": 0.5}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 100}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.5}, [0]),  # p = .64 .23 .09 .03 .01: the first alone holds half
        ({"top_p": 0.7}, [0, 1]),
        ({"top_p": 0.9}, [0, 1, 2]),
        ({"top_k": 3, "top_p": 0.7}, [0, 1]),
        ({"temperature": 2.0, "top_p": 0.7}, [0, 1, 2]),  # p = .43 .26 .16 .10 .06
    ],
)
def test_draws_have_the_softmax_of_what_is_kept(how, kept):
    how = Sampling(1, **how)
    tokens, logprobs = draw(LOGITS.repeat(20_000, 1), how, rng())
    scaled = torch.full_like(LOGITS, float("-inf"))
    scaled[kept] = LOGITS[kept] / how.temperature
    expected = scaled.softmax(-1)
    assert sorted(set(tokens.tolist())) == kept
    assert logprobs[:50].tolist() == pytest.approx(expected[tokens[:50]].log().tolist(), abs=1e-6)
    if len(kept) > 1:
        assert p_value(tokens, expected) > 0.001


@pytest.mark.parametrize("choose", [_by_gumbel_max, _by_inverse_cdf])  # for a GPU, for a CPU
def test_both_ways_to_draw_have_the_softmax(choose):
    logits = torch.tensor([float("-inf"), *LOGITS.tolist()])
    assert p_value(choose(logits.repeat(20_000, 1), rng()), logits.softmax(-1)) > 0.001
    many = torch.randn(150_000, generator=rng()).index_fill_(0, torch.arange(0, 150_000, 2), float("-inf"))
    tokens = choose(many.repeat(50, 1), rng())
    assert bool((tokens % 2 == 1).all())


def test_temperature_0_takes_the_likeliest_and_draws_nothing():
    generator = rng()
    before = generator.get_state()
    tokens, logprobs = draw(LOGITS[None].repeat(3, 1), Sampling(1, temperature=0), generator)
    assert tokens.tolist() == [0, 0, 0]
    assert logprobs.tolist() == pytest.approx([float(LOGITS.log_softmax(-1)[0])] * 3)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("how", [Sampling(12), Sampling(12, 0.7, 20, 0.9), Sampling(12, 0.0)])
@pytest.mark.parametrize("seed", range(4))
def test_a_stream_draws_what_sample_would(model, how, seed):
    (prompt,), eos = random_prompts([5]), [3, 4, 7, 9]
    (answer,) = sample(model, [prompt], how, eos, [PAD], rng(seed))
    streamed = list(stream(model, prompt, how, eos, [PAD], rng(seed)))
    assert streamed == answer.tokens
    assert (streamed[-1] in eos) == answer.ended


def test_a_stream_computes_nothing_that_nobody_asks_for():
    model, calls = ours().eval(), []
    decoding_mode(model)
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    tokens = stream(model, [5, 6], Sampling(30), [], [PAD], rng())
    assert calls == []
    first = next(tokens)
    assert torch.is_grad_enabled()  # only inside is it off
    next(tokens)
    tokens.close()
    assert calls == [False, False]
    assert first == sample(model, [[5, 6]], Sampling(1), [], [PAD], rng())[0].tokens[0]
