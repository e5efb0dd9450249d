"""LanguageModel: wraps a causal LM and computes logits only for scored tokens. Also log probabilities, entropy, KL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.errors import UserError
from align.models.adapters import POLICY, Role
from align.text.batches import pad_right
from align.text.ends import ends_of
from align.text.tokenizer import pad_id, token_ids

if TYPE_CHECKING:
    from align.text.encode import Encoded


class LanguageModel(Role):
    """Wraps any Hugging Face causal LM. `accelerate` wraps this module, so it works under DDP and FSDP.

    The vocabulary head is the costliest matrix of a small model, and logits are the largest tensor of any model. A hook
    before the head keeps only the hidden states that predict a scored token. Later operations of the model on logits
    (scaling, soft-capping) work token by token, so they stay correct.
    """

    def __init__(self, model: Any, never_sampled: Sequence[int] = (), adapter: str | None = POLICY) -> None:
        """`never_sampled` tokens get probability 0, as in sampling. Supervised losses do not use it.

        `adapter` is the active adapter if the model has any; None is the base without an adapter.
        """
        super().__init__()
        self.model, self.adapter = model, adapter
        self.never_sampled = list(never_sampled)

    def forward(self, ids: Tensor, is_target: Tensor) -> Tensor:
        """Logits that predict the marked tokens.

        Args:
            ids: (batch, time), padded on the right. No mask is needed: a causal model does not see later tokens.
            is_target: (batch, time), true for scored tokens. The first column must be false: nothing predicts it.

        Returns:
            (n_targets, vocabulary), in the order of `ids[is_target]`.
        """
        with self.active():
            logits = scored_logits(self.model, ids, is_target)
        if not self.never_sampled:
            return logits
        return logits.index_fill(-1, torch.tensor(self.never_sampled, device=logits.device), float("-inf"))

    @property
    def has_adapter(self) -> bool:
        """Whether the model has a LoRA adapter on a frozen base."""
        return hasattr(self.model, "disable_adapter")


def scored_logits(model: Any, ids: Tensor, is_target: Tensor) -> Tensor:
    """The logits that predict the marked tokens, from one forward pass. Arguments as in `LanguageModel.forward`."""
    predicts = is_target[:, 1:]  # position t predicts token t + 1

    def keep(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        if inputs[0].shape[:2] != ids.shape:
            name = type(model).__name__
            raise UserError(
                f"model.path: {name} predicts several tokens at each position, but one is needed; use another model"
            )
        return (inputs[0][:, :-1][predicts],)

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        return model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()


def rounding(model: Any) -> float:
    """How much logits may differ by rounding alone, relative to their variation from token to token.

    Measured on SmolLM2-135M: 4e-6 in fp32, 0.016 in bf16, 0.17 in 8 bits, where the rest of a batch decides which
    columns are rounded (outliers of LLM.int8()). A lost context gives about 1.
    """
    if getattr(model, "is_loaded_in_8bit", False):
        return 0.4
    return 1e-3 if model.get_input_embeddings().weight.dtype == torch.float32 else 0.1


def made_up(model: Any, lengths: Sequence[int]) -> list[list[int]]:
    """Test rows of these lengths, with ids from the middle of the vocabulary, where few tokens are special."""
    n, pad = model.get_input_embeddings().weight.shape[0], getattr(model.config.get_text_config(), "pad_token_id", None)
    ids = filter(lambda token: token != pad, ((n // 2 + 7 * i) % n for i in count()))  # some models skip pad tokens
    return [list(islice(ids, length)) for length in lengths]


@torch.no_grad()
def check_causal(model: Any) -> None:
    """Raises `UserError` if a token sees later tokens: such a model would learn to copy them.

    All code here pads rows on the right and passes no mask. model: a language model or a trunk.
    """
    ids = torch.tensor(made_up(model, [6, 6]), device=model.device)
    ids[1, :4] = ids[0, :4]
    was_training = model.training
    try:
        first, second = model.eval()(input_ids=ids, use_cache=False)[0].float()
    except (RuntimeError, ValueError, NotImplementedError):
        if model.device.type == "cpu" and torch.cuda.is_available():  # its kernels need the GPU that it will be on
            return
        raise
    finally:
        model.train(was_training)
    gap, varies = float((first[:4] - second[:4]).abs().mean()), float(first.std(0).mean())
    if gap > rounding(model) * varies:
        raise UserError(
            f"{model.name_or_path!r}: in this {type(model).__name__} a token sees later tokens, so it is not a causal "
            'language model; give another, or set "is_decoder": true in its config.json if it was trained as one'
        )


@contextmanager
def recomputing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Gradient checkpointing without dropout: transformers recomputes only in layers that are in training mode.

    Only these layers are put into training mode, not the dropout inside them, and only within this block, because a
    layer that recomputes cannot fill a KV cache.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if wanted and isinstance(module, GradientCheckpointingLayer)]
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, was_training in zip(layers, before, strict=True):
            layer.training = was_training


def never_sampled(tokenizer: Any, model: Any) -> list[int]:
    """Ids that are never sampled: pad, and embedding rows without a token (as in lm-human-preferences)."""
    n_rows = model.get_output_embeddings().weight.shape[0]
    return sorted(set(range(n_rows)) - (token_ids(tokenizer) - {pad_id(tokenizer)}))


def with_ends(model: Any, tokenizer: Any) -> Any:
    """Sets the end tokens and the pad token in the model's configurations, for other tools. Returns the model.

    Other settings of `generation_config.json` are kept, unless transformers refuses to write them (`temperature` with
    `do_sample: false`).
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import GenerationConfig

    ends = ends_of(tokenizer)
    ids: int | list[int] = ends.turn if len(ends.ids) == 1 else list(ends.ids)
    generation = getattr(model, "generation_config", None)  # a trunk has none
    for config in (model.config, model.config.get_text_config(), *([generation] if generation else [])):
        config.pad_token_id = tokenizer.pad_token_id
        try:
            config.eos_token_id = ids
        except StrictDataclassError:  # a few classes take only one id
            config.eos_token_id = ends.turn
    try:
        if generation is not None:
            generation.validate(strict=True)
    except ValueError:
        kept = {name: getattr(generation, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**kept)
    return model


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) in fp32. logits: (n, vocabulary); targets: (n,). Returns (n,)."""
    logits = logits.float() / temperature if temperature != 1.0 else logits.float()
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)


def entropies(logits: Tensor) -> Tensor:
    """Entropy in nats: logsumexp - sum p * logit (lm-human-preferences). logits: (n, vocabulary) -> (n,)."""
    logits = logits.float()
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)


def divergences(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p || q) in nats between two models' next-token distributions. logits, others: (n, vocabulary) -> (n,).

    A token with p = 0 adds nothing, even if q = 0 too. The KL is infinite if p > 0 and q = 0 for some token.
    """
    p, q = logits.float().log_softmax(-1), others.float().log_softmax(-1)
    return torch.where(p.isneginf(), 0.0, p.exp() * (p - q)).sum(-1)


def negative_log_likelihood(lm: Any, rows: Sequence[Encoded], device: Any) -> tuple[Tensor, Tensor]:
    """The sum of -log p over the target tokens of a micro-batch, and the number of them that are the argmax."""
    ids = pad_right([row.ids for row in rows]).to(device)
    is_target = pad_right([row.is_target for row in rows]).bool().to(device)
    is_target[:, 0] = False  # nothing predicts the first token
    logits = lm(ids, is_target)  # (n_targets, vocabulary)
    targets = ids[is_target]
    right = (logits.detach().argmax(-1) == targets).sum()
    return F.cross_entropy(logits.float(), targets, reduction="sum"), right
