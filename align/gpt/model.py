"""The GPT model: GPT-2's decoder-only transformer as a Hugging Face model.

Radford et al. 2018 (GPT-1), Radford et al. 2019 (GPT-2), Brown et al. 2020 (GPT-3); the released `model.py` of
openai/gpt-2 where the papers do not say. Parameters have GPT-2's names, so `align.gpt.stock` only transposes.

From the parts to the whole: `GPTAttention` and `GPTMLP` make a `GPTBlock`; `GPTModel` stacks blocks over embeddings;
`GPTForCausalLM` adds the head and the loss, `GPTForSequenceClassification` the head of a reward model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GenericForSequenceClassification, GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from align.gpt.config import GPTConfig
from align.gpt.masks import attention_bias, token_positions

SHORT = 128  # tokens


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """softmax(q k' / sqrt(head width) + bias) v, causal without a bias. All (batch, head, time, head width).

    PyTorch's fused kernel, but for short rows on a CPU: there, with its backward pass, it takes 1.3 times (fp32) to 4
    times (bf16) as long as forming the weights (64 tokens; equal at 256 in fp32).
    """
    time, width = query.shape[2:]
    causal = bias is None and time > 1
    if not (causal and time <= SHORT and dropout == 0.0 and query.device.type == "cpu"):
        return F.scaled_dot_product_attention(query, key, value, bias, dropout, is_causal=causal)
    hidden = torch.full((time, time), float("-inf"), dtype=query.dtype).triu(1)
    query, key, flat = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)  # batch and heads in one
    scores = torch.baddbmm(hidden, query, key.transpose(1, 2), alpha=1 / math.sqrt(width))
    return torch.bmm(scores.softmax(-1), flat).view_as(value)


class GPTAttention(nn.Module):
    """Causal self-attention of all heads at once: softmax(q k' / sqrt(head width)) v."""

    def __init__(self, config: GPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # query, key and value in one product
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, bias: Tensor | None, past_key_values: Cache | None) -> Tensor:
        batch, time, width = hidden.shape
        qkv = self.c_attn(hidden).view(batch, time, 3, self.n_head, width // self.n_head)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (batch, head, time, head width)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)  # (batch, head, past + time, head width)
        mixed = attend(query, key, value, bias, dropout=self.attn_dropout.p if self.training else 0.0)
        return self.resid_dropout(self.c_proj(mixed.transpose(1, 2).reshape(batch, time, width)))


class GPTMLP(nn.Module):
    """Two linear layers with a GELU between them, applied to each position separately."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.approximate = "tanh" if config.activation == "gelu_new" else "none"

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dropout(self.c_proj(F.gelu(self.c_fc(hidden), approximate=self.approximate)))


class GPTBlock(GradientCheckpointingLayer):
    """Attention, then the MLP. Each reads a normalised copy of the residual stream and adds to it (GPT-2, 2.3)."""

    def __init__(self, config: GPTConfig, layer_idx: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = GPTAttention(config, layer_idx)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = GPTMLP(config)

    def forward(self, hidden: Tensor, bias: Tensor | None = None, past_key_values: Cache | None = None) -> Tensor:
        hidden = hidden + self.attn(self.ln_1(hidden), bias, past_key_values)
        return hidden + self.mlp(self.ln_2(hidden))


class GPTPreTrainedModel(PreTrainedModel):
    """Settings that Hugging Face needs for all our model classes."""

    config_class = GPTConfig
    config: GPTConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["GPTBlock"]  # noqa: RUF012 (Hugging Face's own declaration)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _input_embed_layer = "wte"


class GPTModel(GPTPreTrainedModel):
    """The trunk: token ids to hidden states."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([GPTBlock(config, layer_idx) for layer_idx in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states (batch, time, n_embd) after the last LayerNorm.

        `attention_mask` (batch, past + time) marks real tokens, with padding on either side. Omit it if padding is only
        on the right and its outputs are not used, because attention is faster without a mask. A mask of 4 dimensions
        says which token sees which; packed documents that must not see each other need one. Positions count real tokens
        unless `position_ids` (batch, time) is given. `use_cache` is `config.use_cache` by default, but False in
        training. Raises ValueError for a sequence (padding included) longer than `config.n_positions`.
        """
        _check_arguments(input_ids, inputs_embeds, kwargs)
        keep_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        cache = self._cache(past_key_values, use_cache)
        tokens = self.wte(input_ids) if inputs_embeds is None else inputs_embeds  # (batch, time, n_embd)
        positions, bias = self._positions_and_bias(tokens, cache, attention_mask, position_ids)

        hidden = self.drop(tokens + self.wpe(positions))
        states = []
        # Dense attention: one bias for all layers. Attention that alternates over layers would choose its bias here.
        for block in self.h:
            if keep_states:
                states.append(hidden)
            hidden = block(hidden, bias, past_key_values=cache)
        hidden = self.ln_f(hidden)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=cache if use_cache is not False else None,
            hidden_states=(*states, hidden) if keep_states else None,
        )

    def _cache(self, given: Cache | None, use_cache: bool | None) -> Cache | None:
        """The KV cache to read and extend, if any."""
        checkpointing = self.gradient_checkpointing and self.training
        if given is not None:
            if checkpointing:
                raise ValueError(
                    "past_key_values cannot be used in training with gradient checkpointing, because each layer would "
                    "run and be cached twice. Call model.eval() before generating"
                )
            return given
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        return DynamicCache() if use_cache and not checkpointing else None

    def _positions_and_bias(
        self, tokens: Tensor, cache: Cache | None, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        n_new = tokens.shape[1]
        n_past = 0 if cache is None else cache.get_seq_length()  # a tensor in caches of fixed size
        n_keys = n_new if cache is None else cache.get_mask_sizes(n_new, 0)[0]
        self._check_length(n_past, n_new)
        bias = attention_bias(attention_mask, n_past, n_new, n_keys, tokens.dtype, tokens.device)
        if position_ids is None:
            position_ids = token_positions(attention_mask, n_past, n_new, tokens.device)
        return position_ids, bias

    def _check_length(self, n_past: int | Tensor, n_new: int) -> None:
        n_positions = self.config.n_positions
        if isinstance(n_past, int) and n_past + n_new > n_positions:
            raise ValueError(
                f"a sequence of {n_past + n_new} tokens ({n_past} cached, {n_new} new, padding included) is longer "
                f"than n_positions = {n_positions}: cut it to {n_positions} tokens, or pretrain with a larger "
                "n_positions"
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """N(0, 0.02) for weights and token embeddings, 0 for biases (Hugging Face's default), with two exceptions.

        Positions start at half of that (0.01, openai/gpt-2 model.py), or as waves of the full size. Projections into
        the residual stream are scaled by 1/sqrt(2 n_layer), because 2 n_layer of them add up there (GPT-2, 2.3; the
        released code omits it). Hugging Face calls this for each module with parameters, so the exceptions are
        recognised by identity.
        """
        super()._init_weights(module)
        std = self.config.initializer_range
        if module is self.wpe:
            if self.config.position_init == "sinusoidal":
                init.copy_(self.wpe.weight, waves(*self.wpe.weight.shape) * std)
            else:
                init.normal_(self.wpe.weight, mean=0.0, std=std / 2)
        elif isinstance(module, nn.Linear) and self._adds_to_residual(module):
            init.normal_(module.weight, mean=0.0, std=std / math.sqrt(2 * self.config.n_layer))

    def _adds_to_residual(self, module: nn.Linear) -> bool:
        ends = ("attn.c_proj", "mlp.c_proj")
        return any(module is block.get_submodule(end) for block in self.h for end in ends)


def waves(n_positions: int, width: int) -> Tensor:
    """Sines and cosines of falling frequency (Vaswani et al. 2017, 3.5), with mean square 1. (n_positions, width).

    Learned positions may start as these: "the previous token" is then one rotation at every position. With random
    positions it must be learned for each position separately. A small model learns to copy from its context in about
    half the tokens.
    """
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(n_positions)[:, None] * frequencies
    return math.sqrt(2.0) * torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


def _check_arguments(input_ids: Tensor | None, inputs_embeds: Tensor | None, others: dict[str, Any]) -> None:
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give either input_ids or inputs_embeds, and not both")
    if others.get("output_attentions"):
        raise ValueError(
            "output_attentions: fused attention does not compute attention weights separately. To see them, load the "
            "run's model/ as GPT2LMHeadModel with attn_implementation='eager'"
        )


class GPTForCausalLM(GPTPreTrainedModel, GenerationMixin):
    """The trunk and a linear head for the next token, with the token embedding's weights (GPT-1, 3.1)."""

    _tied_weights_keys = {"lm_head.weight": "transformer.wte.weight"}  # noqa: RUF012

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.transformer = GPTModel(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (batch, time, vocab) and, with `labels` (batch, time), the mean cross-entropy in nats.

        Labels are shifted here: give `labels=input_ids`, with -100 for tokens without loss. `logits_to_keep` limits the
        head to the positions that are needed (see `kept`). The other arguments are as in `GPTModel`.
        """
        trunk = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        logits = self.lm_head(kept(trunk.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=logits.shape[-1], **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=trunk.past_key_values,
            hidden_states=trunk.hidden_states,
        )


class GPTForSequenceClassification(GenericForSequenceClassification, GPTPreTrainedModel):
    """The trunk and a linear head without bias, read at the last token that is not padding, as Hugging Face does.

    Reward models are saved in this form for `AutoModelForSequenceClassification` (one label).
    """

    base_model_prefix = "transformer"


def kept(hidden: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Selects the positions of `hidden` (batch, time, width) for the head, with Hugging Face's conventions.

    0: all. A count: the last ones. Indices (n,): these in every row. Indices (batch, n): these for each row.
    Booleans (batch, time): the True ones of all rows, as (n_true, width).
    """
    if isinstance(logits_to_keep, int):
        return hidden[:, -logits_to_keep:] if logits_to_keep else hidden
    if logits_to_keep.dim() == 1:
        return hidden[:, logits_to_keep]
    if logits_to_keep.dtype == torch.bool:
        return hidden[logits_to_keep]
    return torch.take_along_dim(hidden, logits_to_keep.unsqueeze(-1), dim=1)
