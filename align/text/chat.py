"""Default chat templates for tokenizers that have none: they write a conversation as one text.

A tokenizer keeps its own template. Without one it gets one of two:

- if `<|user|>`, `<|assistant|>`, `<|system|>` are among its special tokens (as in those trained here):
  `<|user|> What is 2+2?<|assistant|> 4<|endoftext|>`
- else a plain text form that needs no new token:
  `User: What is 2+2?\\n\\nAssistant: 4<|endoftext|>`

Both strip each content and put one space before it, except for multi-line code with an indented first line, which is
kept. In a byte-level vocabulary a word includes the space before it, so the first word of a message is the same token
as in running text, which a base model knows. The space belongs to the answer, not to the generation prompt: sampling
begins right after the marker or the colon, as in training. An empty answer is EOS alone.

If the tokenizer itself begins texts with BOS, as Gemma's and Llama's do, both templates begin with BOS too.

Both wrap the assistant's messages in `{% generation %}` for
`apply_chat_template(return_assistant_tokens_mask=True)`.
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
    """Sets one of our templates on a tokenizer that has none. `save_pretrained` saves it with the tokenizer."""
    if tokenizer.chat_template is None:
        template = MARKER_TEMPLATE if has_markers(tokenizer) else TEXT_TEMPLATE
        tokenizer.chat_template = "{{ bos_token }}" * len(own_bos(tokenizer)) + template


def is_ours(template: object) -> bool:
    """Whether a template is one that `ensure_chat_template` sets."""
    return str(template).removeprefix("{{ bos_token }}") in (MARKER_TEMPLATE, TEXT_TEMPLATE)


def own_bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """[BOS] if this tokenizer begins every text with BOS, else []."""
    begun = list(tokenizer("x")["input_ids"])[:1]
    return begun if begun == [tokenizer.bos_token_id] else []


def has_markers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the three role markers are special tokens of this tokenizer."""
    return set(MARKERS) <= special_tokens(tokenizer)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The texts of all special tokens of this tokenizer."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)
