"""Tokenizers: train one, or load one with EOS and a chat template.

Ours is byte-level BPE like GPT-2's: it encodes any text and decodes it exactly. A word with and without a space before
it are different tokens, also at the start of a text; otherwise `decode(encode(text)) == text` would not hold. The space
in the chat template (`align.text.chat`) makes a message's first word the same token as in running text.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.text.chat import MARKERS, ensure_chat_template
from align.text.ends import ends_of, keep_ends
from align.text.template import use_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL_TOKENS = [END, PAD, *MARKERS]
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)  # every byte is a token, so any text can be encoded

# A tokenizer folder has one of these. A folder with only config.json would load as an empty vocabulary.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "*.tiktoken",
    "*.spm",
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer with at most `vocab_size` tokens, special ones included. It is deterministic.

    Raises `UserError` if `vocab_size` is too small for the bytes and the special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            f"vocab_size={vocab_size}: give at least {SMALLEST_VOCABULARY}, 256 for the bytes and "
            f"{len(SPECIAL_TOKENS)} for special tokens"
        )
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=list(MARKERS),
        clean_up_tokenization_spaces=False,  # it would turn "a ." into "a."
    )
    ensure_chat_template(tokenizer)
    return tokenizer


def load_tokenizer(
    path: str | Path,
    trust_remote_code: bool = False,
    template: str | None = None,
    options: dict[str, Any] | None = None,
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name, with a chat template and the end tokens of the model in that folder.

    `template` is a file with another template. `options` are values for its variables (`use_template`).
    No token is added, not even a pad token, because nothing here reads one (see `with_pad`).
    Raises `UserError` if there is no tokenizer or no EOS token.
    """
    tokenizer = plain_tokenizer(path, trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{path}: this tokenizer has no EOS token, so no answer can end; "
            'set one in its tokenizer_config.json ("eos_token": "</s>", or another token of its vocabulary)'
        )
    keep_ends(tokenizer, str(path))
    ensure_chat_template(tokenizer)
    use_template(tokenizer, template, options)
    return tokenizer


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the pad token; None if there is none, or if it also ends messages.

    A tokenizer without EOS, such as an encoder's, has no token that ends messages.
    """
    pad: Any = tokenizer.pad_token_id
    closes = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id, ends_of(tokenizer).turn)
    return None if pad in closes else pad


def with_pad(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, or a copy with `<|pad|>` if it has no pad token: for classes that look for padding."""
    if pad_id(tokenizer) is not None:
        return tokenizer
    padded = copy.deepcopy(tokenizer)
    padded.add_special_tokens({"pad_token": PAD})
    return padded


def token_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of all tokens. There may be gaps between them."""
    return {*tokenizer.get_vocab().values(), *tokenizer.added_tokens_decoder}


def rows_needed(tokenizer: PreTrainedTokenizerBase) -> int:
    """The rows that an embedding needs for all tokens: more than `len(tokenizer)` if ids have gaps."""
    return max(token_ids(tokenizer)) + 1


def same_words(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers have the same id for every token except the pad token (see `with_pad`)."""
    pads = {pad_id(one), pad_id(other)}

    def words(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
        return {token: number for token, number in tokenizer.get_vocab().items() if number not in pads}

    return words(one) == words(other)


def brings_template(path: str | Path, trust_remote_code: bool = False) -> bool:
    """Whether a tokenizer has its own chat template. `load_tokenizer` adds one to a tokenizer without it."""
    return plain_tokenizer(path, trust_remote_code).chat_template is not None


def stored_at(path: str | Path) -> tuple[str, dict[str, str]]:
    """A path as transformers' `from_pretrained` takes it: a folder or hub name, and the name of a .gguf file.

    The hub name of an adapter becomes its folder in the local cache, because it is not a whole model.
    Raises `UserError` for a .gguf file that does not exist, or if the package gguf is missing.
    """
    file = Path(path)
    if file.suffix != ".gguf":
        return _adapter_in_store(str(path)) or str(path), {}
    if not file.is_file():
        raise UserError(f"{path}: there is no such file")
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{path}: .gguf files need the package gguf. Run: pip install gguf")
    return str(file.parent), {"gguf_file": file.name}


def _adapter_in_store(name: str) -> str | None:
    """The local folder of a hub adapter with cached settings. Missing weights are downloaded. None for other paths."""
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils.hub import cached_file

    if Path(name).exists() or name.count("/") != 1:
        return None
    with suppress(ValueError, OSError):  # not a valid hub name, or the hub is out of reach
        found = try_to_load_from_cache(name, "adapter_config.json")
        for weights in ("adapter_model.safetensors", "adapter_model.bin") if isinstance(found, str) else ():
            if (Path(str(found)).parent / weights).is_file():
                return str(Path(str(found)).parent)
            if fetched := cached_file(name, weights, _raise_exceptions_for_missing_entries=False):
                return str(Path(fetched).parent)
    return None


def plain_tokenizer(path: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The unchanged tokenizer of a folder or hub name. Raises `UserError` if there is none."""
    from transformers import AutoTokenizer

    source, gguf = stored_at(path)
    folder = Path(source)
    if not gguf and folder.is_dir() and not any(next(folder.glob(name), None) for name in TOKENIZER_FILES):
        raise UserError(f"{path}: no tokenizer in this folder; it needs one of {', '.join(TOKENIZER_FILES)}")
    if not folder.exists() and source.count("/") != 1:  # a hub name is owner/name
        raise UserError(f"{path}: there is no such folder; make it first, or give another model")
    if folder.is_file():
        raise UserError(f"{path}: this is a file, but a tokenizer is a folder or a hub name; try {folder.parent}")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code, **gguf)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for mistakes of users
        remedy = "its files may be broken or out of reach; a folder with a complete tokenizer.json is enough"
        if gguf:
            remedy = "download the file again, or give the folder of the model that it was made from"
        if "trust_remote_code" in str(error):
            remedy = "it has its own code; read its .py files, then set model.trust_remote_code=true"
        raise UserError(f"{path}: cannot load a tokenizer: {_first_line(error)}; {remedy}") from error
    return tokenizer


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
