"""A causal language model that computes logits only where a token is scored."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn


class LanguageModel(nn.Module):
    """Wraps any Hugging Face causal LM. Its forward is what `accelerate` wraps, so it holds under DDP and FSDP.

    The vocabulary head is the costliest matrix of a small model and its logits the largest tensor of any. A hook in
    front of the head keeps only the hidden states that predict a scored token; whatever a model does to its logits
    afterwards (scaling, soft-capping) works on each token alone and stays right.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, is_target: Tensor) -> Tensor:
        """Logits that predict the marked tokens.

        Args:
            ids: (batch, time), padded on the right. No mask is needed: a causal model does not see what comes after.
            is_target: (batch, time), true where the token is scored. The first column never is: nothing predicts it.

        Returns:
            (n_targets, vocabulary), in the order of `ids[is_target]`.
        """
        predicts = is_target[:, 1:]  # position t predicts token t + 1

        def keep(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (inputs[0][:, :-1][predicts],)

        hook = self.model.get_output_embeddings().register_forward_pre_hook(keep)
        try:
            return self.model(input_ids=ids, use_cache=False).logits
        finally:
            hook.remove()

    def without_adapter(self) -> Any:
        """A context in which the LoRA adapter is switched off: the model as it was at step 0."""
        return self.model.disable_adapter() if self.has_adapter else nullcontext()

    @property
    def has_adapter(self) -> bool:
        """Whether a LoRA adapter stands on a frozen base."""
        return hasattr(self.model, "disable_adapter")


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) in fp32. logits: (n, vocabulary); targets: (n,). Returns (n,)."""
    logits = logits.float() / temperature if temperature != 1.0 else logits.float()
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)


def entropies(logits: Tensor) -> Tensor:
    """Entropy in nats: logsumexp - sum p * logit (lm-human-preferences). logits: (n, vocabulary) -> (n,)."""
    logits = logits.float()
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)
