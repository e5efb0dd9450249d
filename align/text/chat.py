"""The chat template: how a conversation is written out as one text.

A tokenizer that brings a template keeps it. Any other gets one of two:

- with the markers `<|user|>`, `<|assistant|>`, `<|system|>` among its special tokens (those trained here have them)
  `<|user|> What is 2+2?<|assistant|> 4<|endoftext|>`
- without them, a plain text form that needs no new token
  `User: What is 2+2?\\n\\nAssistant: 4<|endoftext|>`

Both strip a turn's content and put one space before it, but for code of several lines whose first one is indented: that
begins as it is. In a byte-level vocabulary a word carries the space before it,
so the first word of a turn is the same token as in running text, and a model that only ever read documents knows it.
The space stands on the answer's side of the generation prompt: sampling begins right after the marker or the colon, as
in training. An empty answer is EOS alone.

Where the tokenizer itself begins a text with BOS, as Gemma's and Llama's, both begin with it: such a model has seen no
text without.

Both mark the assistant's turns with `{% generation %}`, which `apply_chat_template(return_assistant_tokens_mask=True)`
needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USER, ASSISTANT, SYSTEM = "<|user|>", "<|assistant|>", "<|system|>"
MARKERS = (USER, ASSISTANT, SYSTEM)

_TEMPLATE = (
    "{%% for message in messages %%}"
    "{%% set text = message['content'] | trim %%}"
    "{%% set code = message['content'].rstrip().lstrip('\n') %%}"
    "{%% set is_code = '\n' in code and (code[:2] == '  ' or code[:1] == '\t') %%}"
    "{%% set content = code if is_code else ' ' + text if text else '' %%}"
    "{{ %(before_turn)s }}"
    "{%% if message['role'] == 'assistant' %%}{%% generation %%}{{ content + eos_token }}{%% endgeneration %%}"
    "{%% else %%}{{ content + %(after_turn)s }}{%% endif %%}"
    "{%% endfor %%}"
    "{%% if add_generation_prompt %%}{{ %(before_answer)s }}{%% endif %%}"
)

MARKER_TEMPLATE = _TEMPLATE % {
    "before_turn": "'<|' + message['role'] + '|>'",
    "after_turn": "''",
    "before_answer": "'<|assistant|>'",
}

TEXT_TEMPLATE = _TEMPLATE % {
    "before_turn": "message['role'] | capitalize + ':'",
    "after_turn": r"'\n\n'",
    "before_answer": "'Assistant:'",
}


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives a tokenizer without a chat template one of ours; `save_pretrained` then keeps it with the tokenizer."""
    if tokenizer.chat_template is None:
        template = MARKER_TEMPLATE if has_markers(tokenizer) else TEXT_TEMPLATE
        tokenizer.chat_template = "{{ bos_token }}" * len(own_bos(tokenizer)) + template


def is_ours(template: object) -> bool:
    """Whether a tokenizer's template is one that `ensure_chat_template` lends."""
    return str(template).removeprefix("{{ bos_token }}") in (MARKER_TEMPLATE, TEXT_TEMPLATE)


def own_bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """BOS, if this tokenizer begins every text with it by itself, else nothing."""
    begun = list(tokenizer("x")["input_ids"])[:1]
    return begun if begun == [tokenizer.bos_token_id] else []


def has_markers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the three role markers are special tokens of this tokenizer."""
    return set(MARKERS) <= special_tokens(tokenizer)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The texts that this tokenizer reads as one special token each."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)
