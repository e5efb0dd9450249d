"""End tokens: the token that a trained answer ends with, and all tokens that end a sampled answer.

Sources are the tokenizer's EOS, the token with which the chat template closes an assistant message (`<|im_end|>`), and
`eos_token_id` in the model's files, often a list. If a template closes nothing, a token of that list that it writes
before the next message (`<|user|>` of GLM) ends the answer. An id of that list that is an ordinary word of this
tokenizer is ignored: it is a default, or belongs to another tokenizer.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from align.errors import UserError
from align.text.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEPT = "_align_ends"  # an attribute of the tokenizer, not saved: the ids in the model's files, and the result


class Ends(NamedTuple):
    """The tokens that end an answer."""

    turn: int  # ends a trained answer
    ids: tuple[int, ...]  # all end tokens, `turn` first


def ends_of(tokenizer: PreTrainedTokenizerBase) -> Ends:
    """The end tokens of a tokenizer and, if `load_tokenizer` loaded it, of the model in the same folder.

    Raises `UserError` if the tokenizer has no EOS token.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError("this tokenizer has no EOS token, so no answer can end; set eos_token in its folder")
    kept: dict[Any, Any] = vars(tokenizer).setdefault(_KEPT, {})
    key = (str(tokenizer.chat_template), eos)
    if key not in kept:
        tokens = _tokens(tokenizer)
        of_model = [number for number in kept.get("of_model", ()) if number in tokens.values()]
        before_next = tokens.get(_closer(tokenizer, tokens, between=True), eos)
        turn = tokens.get(_closer(tokenizer, tokens), before_next if before_next in of_model else eos)
        kept[key] = Ends(turn, tuple(dict.fromkeys((turn, eos, *of_model))))
    ends: Ends = kept[key]
    return ends


def keep_ends(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Stores on a tokenizer the end tokens in the model's files at `path`, a folder or a hub name."""
    vars(tokenizer)[_KEPT] = {"of_model": _model_ends(path)}


def _model_ends(path: str) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        config = _read(path, name)
        for part in (config, config.get("text_config") or {}):
            if (ids := part.get("eos_token_id")) is not None:
                return tuple(ids) if isinstance(ids, list) else (ids,)
    base = _read(path, "adapter_config.json").get("base_model_name_or_path")
    return _model_ends(base) if base and base != path else ()


def _read(path: str, name: str) -> dict[str, Any]:
    """A JSON file of a model; empty if there is none. A broken one is reported when the model is loaded."""
    from transformers.utils.hub import cached_file

    if Path(path).is_file():  # a .gguf file is complete by itself
        return {}
    try:
        file = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
        return {} if file is None else dict(json.loads(Path(file).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """All special and added tokens. Runs of spaces, which some vocabularies add, are text."""
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    named |= {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    return {text: number for text, number in named.items() if text.strip()}


def _closer(tokenizer: PreTrainedTokenizerBase, tokens: dict[str, int], between: bool = False) -> str:
    """The first token that the template writes after an answer; "" if it writes none."""
    if tokenizer.chat_template is None:
        return ""
    longest_first = sorted(tokens, key=len, reverse=True)
    found = re.search("|".join(map(re.escape, longest_first)), Template.of(tokenizer).closer_of(between))
    return found.group() if found else ""
