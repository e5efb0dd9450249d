"""Small tokenizers: ours, one as GPT-2's without markers, and some with the chat templates of well-known models."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from align.text.chat import ensure_chat_template
from align.text.tokenizer import END, train_tokenizer

TEXTS = [
    "What is two plus two? Two plus two is four.",
    "Name a colour. Red is a colour, and blue is a colour too.",
    "The quick brown fox jumps over the lazy dog. The dog sleeps.",
] * 4

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI3 = (  # EOS stands once, at the end of all turns: no turn is closed by it
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
)
INSTRUCT = (  # as Llama 2 and Mistral: no generation prompt, no system turn, strictly in turns
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('this model knows no system turn') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
NO_EOS = (
    "{% for message in messages %}{{ '### ' + message['role'] + '\n' + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
)
THINKING = (  # as Qwen 3: an empty thought stands before the last answer only
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
UNRELATED = (  # its generation prompt is not how an assistant turn begins
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)

TEMPLATES = {  # name: (template or None for ours, further special tokens, EOS)
    "markers": (None, ["<|user|>", "<|assistant|>", "<|system|>"], END),
    "text form": (None, [], END),
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "llama 3": (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
    "llama 3 with another eos": (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], END),
    "phi 3": (PHI3, ["<|user|>", "<|assistant|>", "<|end|>"], END),
    "instruct": (INSTRUCT, [], END),
    "no eos": (NO_EOS, [], END),
    "thinking": (THINKING, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "unrelated": (UNRELATED, [], END),
}


def build(name: str):
    """A small tokenizer with the named template, its special tokens and its EOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    template, further, eos = TEMPLATES[name]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = [END, "<|pad|>", *further]
    bpe.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    )
    names = {"bos_token": END, "eos_token": eos, "pad_token": "<|pad|>", "extra_special_tokens": further}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **names)
    tokenizer.chat_template = template
    ensure_chat_template(tokenizer)
    return tokenizer


@pytest.fixture(scope="session")
def ours():
    """A tokenizer that this package trained."""
    return train_tokenizer(TEXTS, 400)


@pytest.fixture(scope="session")
def tokenizers():
    """A tokenizer for each of TEMPLATES."""
    return {name: build(name) for name in TEMPLATES}


@pytest.fixture
def write(tmp_path: Path):
    """Writes rows to a file under tmp_path, in the format of its extension, and returns its path."""

    def _write(name: str, rows) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.Table.from_pylist(rows), path)
            return str(path)
        if isinstance(rows, str):
            text = rows
        elif ".jsonl" in name:
            text = "".join(json.dumps(row) + "\n" for row in rows)
        else:
            text = json.dumps(rows)
        content = text.encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return _write
