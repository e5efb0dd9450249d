"""Small tokenizers of the families that models have: byte-level BPE, two of SentencePiece's kind, whole words."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FILES = sorted((Path(__file__).parent / "templates").glob("*.jinja"))
TEMPLATES = {file.stem: file.read_text(encoding="utf-8") for file in FILES}
TEXTS = [
    "What is two plus two? Two plus two is four. Name a colour. Red is a colour, and blue is a colour too. "
    "Be brief. And another? Green, I think. Roses come to mind. The sky is one. It is 21 degrees in Rome. "
    "Now one more. Blue. Write code: Yes, x = y, f. How warm is Rome? weather city, degrees, abcdefghi "
    "User: Assistant: System:",
    *TEMPLATES.values(),
]
NUMBERED = [f"k{number:02}q" for number in range(100)]  # words that are in no other text
FAMILIES = ("bytes", "pieces", "legacy pieces", "words")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def vocabulary(family: str, specials: list[str], eos: str, bos: str | None, rstrip: bool = False) -> Any:
    """A tokenizer of the family with these special tokens; `rstrip`: they take in the space that follows."""
    tokens = [AddedToken(token, rstrip=rstrip, normalized=False, special=True) for token in specials]
    core = Tokenizer.from_str(_trained(family))
    core.add_special_tokens(tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=eos,
        bos_token=bos,
        unk_token=None if family == "bytes" else "<unk>",
        extra_special_tokens=[token for token in tokens if token.content not in (eos, bos)],
        clean_up_tokenization_spaces=False,
    )


@cache
def _trained(family: str) -> str:
    return {"bytes": _byte_level, "words": _whole_words}.get(family, _pieces)(family).to_str()


def _byte_level(family: str) -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))
    return core


def _pieces(family: str) -> Tokenizer:
    """As Llama 2 and Mistral: a space is part of a word, one is put before a text, or (legacy) after specials too."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    scheme = "always" if family == "legacy pieces" else "first"
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = [word for text in TEXTS for word in re.findall(r" ?\w+|[^\w\s]+", text)]
    core.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=800, special_tokens=["<unk>", *BYTES], show_progress=False)
    )
    settings = json.loads(core.to_str())
    settings["added_tokens"] = settings["added_tokens"][:1]  # a byte is no special token
    return Tokenizer.from_str(json.dumps(settings))


def _whole_words(family: str) -> Tokenizer:
    """Words and single marks, with white space lost and `<unk>` for whatever is new."""
    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.train_from_iterator(
        [*TEXTS, " ".join(NUMBERED)], trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)
    )
    return core
