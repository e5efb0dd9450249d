"""A scalar head on a trunk: the reward model scores an answer at its EOS, the value model scores states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from align import sections
from align.errors import UserError
from align.models.adapters import POLICY, Role
from align.models.load import load_trunk
from align.text.batches import micro_batches, pad_right

HEAD_FILE = "score_head.safetensors"


class ScalarModel(Role):
    """A trunk (any `AutoModel`, perhaps with a LoRA adapter) and a linear head with one output, both in fp32."""

    base: Any  # what is saved: the trunk, or the model that it is part of; no submodule, for others may use it too

    def __init__(self, trunk: Any, adapter: str | None = POLICY) -> None:
        super().__init__()
        self.trunk, self.adapter = trunk, adapter
        self.__dict__["base"] = trunk
        width = trunk.config.get_text_config().hidden_size
        self.head = nn.Linear(width, 1, dtype=torch.float32)
        self.shift: Tensor
        self.register_buffer("shift", torch.zeros(()))
        # N(0, 1 / sqrt(width + 1)), bias 0: lm-human-preferences and N+ (papers: 1909.08593 code, item 13).
        nn.init.normal_(self.head.weight, std=(width + 1) ** -0.5)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def on(cls, base: Any, adapter: str | None) -> ScalarModel:
        """A head on the trunk of a model that other roles use too, with one of its adapters or none."""
        whole = base.get_base_model() if hasattr(base, "get_base_model") else base
        scalar = cls(whole.base_model, adapter).to(next(whole.parameters()).device)
        scalar.__dict__["base"] = base
        if adapter is None:
            scalar.head.requires_grad_(False)
        return scalar

    def forward(self, ids: Tensor, is_read: Tensor) -> Tensor:
        """Scores after the marked tokens.

        Args:
            ids: (batch, time), padded on the right.
            is_read: (batch, time), true where a score is wanted; the token there has been seen.

        Returns:
            (n_read,) fp32, in the order of `ids[is_read]`.
        """
        with self.active():
            hidden = self.trunk(input_ids=ids, use_cache=False).last_hidden_state  # (batch, time, width)
        with torch.autocast(ids.device.type, enabled=False):
            return self.head(hidden[is_read].float())[:, 0] - self.shift

    def save(self, folder: str | Path) -> None:
        """Writes the trunk as a Hugging Face folder, and the head beside it."""
        self.trunk.save_pretrained(folder)
        self.save_head(folder)

    def save_head(self, folder: str | Path) -> None:
        """Writes the head alone."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.head.weight, "bias": self.head.bias, "shift": self.shift}
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, Path(folder) / HEAD_FILE
        )

    def load_head(self, folder: str | Path) -> None:
        """Reads the head that `save_head` wrote. Raises `UserError` if it is missing or of another width."""
        path = Path(folder) / HEAD_FILE
        if not path.is_file():
            raise UserError(f"{folder}: no {HEAD_FILE}, so this is no reward model; train one with python -m align.rm")
        tensors = load_file(path)
        if tensors["weight"].shape != self.head.weight.shape:
            found, wanted = tuple(tensors["weight"].shape), tuple(self.head.weight.shape)
            raise UserError(f"{path}: the head is {found}, the trunk beside it needs {wanted}")
        with torch.no_grad():
            self.head.weight.copy_(tensors["weight"])
            self.head.bias.copy_(tensors["bias"])
            self.shift.copy_(tensors["shift"])


def load_scalar_model(model: sections.Model, dtype: torch.dtype = torch.float32, n_tokens: int = 0) -> ScalarModel:
    """A reward model that `python -m align.rm` wrote, with a fresh LoRA adapter if `model` asks for one."""
    if not (Path(model.path) / HEAD_FILE).is_file():
        raise UserError(
            f"{model.path!r}: no {HEAD_FILE} there, so this is no reward model; train one with python -m align.rm"
        )
    scalar = ScalarModel(load_trunk(model, dtype, n_tokens))
    scalar.load_head(model.path)
    return scalar


def score_batch(scorer: Any, answers: list[list[int]], device: Any) -> Tensor:
    """The score of each answer, read at its last token. Returns (n_answers,)."""
    ids = pad_right(answers).to(device)
    last = torch.tensor([len(answer) - 1 for answer in answers], device=device)
    is_read = torch.arange(ids.shape[1], device=device) == last[:, None]
    return scorer(ids, is_read)


def score_all(scorer: Any, answers: list[list[int]], max_tokens: int, device: Any) -> list[float]:
    """Scores without gradients, micro-batch by micro-batch, in the order given."""
    scores = [0.0] * len(answers)
    scorer.eval()
    with torch.no_grad():
        for micro in micro_batches([len(answer) for answer in answers], max_tokens):
            for index, value in zip(
                micro, score_batch(scorer, [answers[i] for i in micro], device).tolist(), strict=True
            ):
                scores[index] = value
    return scores
