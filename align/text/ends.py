"""Where an answer ends: what a learned answer ends in, and every token at which a model is done.

Three say it: the tokenizer's EOS, the token with which the chat template closes an assistant's turn (`<|im_end|>`), and
`eos_token_id` beside the model's weights, often a list. Where a template closes nothing, an end of that list that it
writes before the next turn (`<|user|>` of GLM) closes the answer. A number in it that is an ordinary word of this
tokenizer ends nothing: nobody set it, or the tokenizer is another one by now.
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

_KEPT = "_align_ends"  # in the tokenizer's memory, not in its files: what the model's files say, what was found


class Ends(NamedTuple):
    """The tokens that end an answer."""

    turn: int  # what a learned answer ends in
    ids: tuple[int, ...]  # all of them, `turn` first


def ends_of(tokenizer: PreTrainedTokenizerBase) -> Ends:
    """The ends of a tokenizer and, if `load_tokenizer` loaded it, of the model beside it.

    Raises `UserError` if the tokenizer has no EOS token.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError("this tokenizer has no EOS token, so no answer could end; set eos_token in its folder")
    kept: dict[Any, Any] = vars(tokenizer).setdefault(_KEPT, {})
    key = (str(tokenizer.chat_template), eos)
    if key not in kept:
        tokens = _tokens(tokenizer)
        said = [number for number in kept.get("said", ()) if number in tokens.values()]
        before_next = tokens.get(_closer(tokenizer, tokens, between=True), eos)
        turn = tokens.get(_closer(tokenizer, tokens), before_next if before_next in said else eos)
        kept[key] = Ends(turn, tuple(dict.fromkeys((turn, eos, *said))))
    ends: Ends = kept[key]
    return ends


def keep_ends(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Keeps with a tokenizer what the model's files at `path`, a folder or a hub name, say of its ends."""
    vars(tokenizer)[_KEPT] = {"said": _said(path)}


def _said(path: str) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        config = _read(path, name)
        for part in (config, config.get("text_config") or {}):
            if (ids := part.get("eos_token_id")) is not None:
                return tuple(ids) if isinstance(ids, list) else (ids,)
    base = _read(path, "adapter_config.json").get("base_model_name_or_path")
    return _said(base) if base and base != path else ()


def _read(path: str, name: str) -> dict[str, Any]:
    """A JSON file of a model; empty where there is none. One that is broken is told when the model is loaded."""
    from transformers.utils.hub import cached_file

    if Path(path).is_file():  # a .gguf file has no others beside it
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
    """The first of the tokens that the template writes after an answer; "" where it writes none."""
    if tokenizer.chat_template is None:
        return ""
    longest_first = sorted(tokens, key=len, reverse=True)
    found = re.search("|".join(map(re.escape, longest_first)), Template.of(tokenizer).closer_of(between))
    return found.group() if found else ""
