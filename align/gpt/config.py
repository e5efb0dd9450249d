"""GPTConfig: the sizes and options of a GPT, saved in `config.json`."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

ACTIVATIONS = ("gelu_new", "gelu")  # tanh approximation (what GPT-2 was trained with), and the exact erf form

POSITION_INITS = ("normal", "sinusoidal")


class GPTConfig(PreTrainedConfig):
    """Configuration of `GPTModel` and `GPTForCausalLM`. Raises one ValueError with all impossible values.

    The names are GPT-2's (openai/gpt-2, `model.py`). Hugging Face's common names (`hidden_size`, `num_hidden_layers`,
    ...) work too. The inner width of the MLP is always 4 x n_embd.
    """

    model_type = "align_gpt"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (a dataclass field if it were annotated)
    attribute_map = {  # noqa: RUF012
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 50257  # rows of the token embedding; at least the tokenizer's length
    n_positions: int = 1024  # the longest sequence; positions are learned, so there are no others
    n_embd: int = 768  # width of the residual stream; a multiple of n_head
    n_layer: int = 12
    n_head: int = 12
    activation: str = "gelu_new"
    dropout: float = 0.0  # GPT-1 and GPT-2 used 0.1; one epoch over fresh text needs none
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02  # standard deviation of the initial weights (GPT-1, section 4.1)
    position_init: str = "normal"  # or "sinusoidal": learned positions start as waves (see `waves` in model.py)
    tie_word_embeddings: bool = True  # the head uses the weights of the token embedding
    use_cache: bool = True  # return keys and values for decoding, unless the model is training
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if problems := _problems(self):
            raise ValueError("GPTConfig: " + "; ".join(problems))


def _problems(config: GPTConfig) -> list[str]:
    """The impossible values of a configuration: name, value, remedy of each."""
    sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    found = [f"{name} = {getattr(config, name)}, give 1 or more" for name in sizes if getattr(config, name) < 1]
    if not found and config.n_embd % config.n_head:
        found.append(
            f"n_embd = {config.n_embd} is not a multiple of n_head = {config.n_head}; give "
            f"n_embd = {-(-config.n_embd // config.n_head) * config.n_head} or another n_head"
        )
    if config.activation not in ACTIVATIONS:
        found.append(f"activation = {config.activation!r}, give one of {', '.join(ACTIVATIONS)}")
    if config.position_init not in POSITION_INITS:
        found.append(f"position_init = {config.position_init!r}, give one of {', '.join(POSITION_INITS)}")
    if not 0.0 <= config.dropout < 1.0:
        found.append(f"dropout = {config.dropout}, give 0 or more and less than 1")
    return found
