"""ScalarModel: a scalar head on a trunk. A reward model scores an answer at its EOS, a value model scores states.

A reward model may have several heads: an ensemble on one trunk, each trained on its own bootstrap of the data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from align import sections
from align.errors import UserError
from align.models.adapters import POLICY, Role, trunk_of
from align.models.foreign import score_weight
from align.models.load import load_config, load_trunk
from align.models.purpose import HEAD_FILE, REMEDY, HeadRole, head_role, is_classifier, not_a_reward_model
from align.text.batches import micro_batches, pad_right


class ScalarModel(Role):
    """A trunk (any `AutoModel`, perhaps with a LoRA adapter) and a linear head in fp32. Each output is a member.

    score = (head(hidden) - shift) / scale. Shift and scale are not trained: see `normalize`.
    """

    base: Any  # saved to files: the trunk or the model around it; not a submodule, because other roles may share it

    def __init__(self, trunk: Any, heads: int = 1, adapter: str | None = POLICY) -> None:
        super().__init__()
        self.trunk, self.adapter = trunk, adapter
        self.__dict__["base"] = trunk
        width = trunk.config.get_text_config().hidden_size
        self.head = nn.Linear(width, heads, dtype=torch.float32)
        self.shift: Tensor
        self.scale: Tensor
        of_members = () if heads == 1 else (heads,)
        self.register_buffer("shift", torch.zeros(of_members))
        self.register_buffer("scale", torch.ones(of_members))
        # N(0, 1 / sqrt(width + 1)), bias 0: lm-human-preferences and N+ (papers: 1909.08593 code, item 13).
        nn.init.normal_(self.head.weight, std=(width + 1) ** -0.5)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def on(cls, base: Any, adapter: str | None, heads: int = 1) -> ScalarModel:
        """A head on the trunk of a model that other roles share, with one of its adapters or none."""
        whole = base.get_base_model() if hasattr(base, "get_base_model") else base
        scalar = cls(trunk_of(whole), heads, adapter).to(next(whole.parameters()).device)
        scalar.__dict__["base"] = base
        if adapter is None:
            scalar.head.requires_grad_(False)
        return scalar

    @property
    def heads(self) -> int:
        """The number of members of the ensemble."""
        return self.head.out_features

    def forward(self, ids: Tensor, is_read: Tensor) -> Tensor:
        """Scores after the marked tokens.

        Args:
            ids: (batch, time), padded on the right.
            is_read: (batch, time), true where a score is read; that token is part of the scored text.

        Returns:
            (n_read,) fp32, in the order of `ids[is_read]`; (n_read, heads) for several heads.
        """
        with self.active():
            hidden = self.trunk(input_ids=ids, use_cache=False).last_hidden_state  # (batch, time, width)
        if hidden.shape[-1] != self.head.in_features:
            raise UserError(
                f"model.path: {type(self.trunk).__name__} gives {hidden.shape[-1]} numbers per token, but its "
                f"config.json has hidden_size = {self.head.in_features}, so no score can be read; use another model"
            )
        with torch.autocast(ids.device.type, enabled=False):
            raw = self.head(hidden[is_read].float())  # (n_read, heads)
            return ((raw[:, 0] if self.heads == 1 else raw) - self.shift) / self.scale

    @torch.no_grad()
    def normalize(self, scores: Tensor, variance: bool) -> None:
        """Shifts scores so that `scores` have mean 0; with `variance` also scales them to variance 1 (1/n).

        scores: (n,) or (n, heads), from this model. Each member is normalised separately: a ranking loss does not
        determine a member's offset, so members that differ only by it do not disagree.
        Raises `UserError` with `variance` if all scores of a member are equal.
        """
        mean, spread = (found.to(self.shift) for found in (scores.mean(0), scores.std(0, correction=0)))
        if variance and not bool((spread > 0).all()):
            raise UserError(
                "normalize: samples cannot scale this reward model, because it scores all samples alike; train longer"
            )
        self.shift += mean * self.scale
        if variance:
            self.scale *= spread

    @torch.no_grad()
    def on_trunk(self, trunk: Any) -> ScalarModel:
        """A copy of this head with its shift and scale, on another trunk of the same width."""
        other = ScalarModel(trunk, self.heads).to(trunk.device)
        other.head.load_state_dict(self.head.state_dict())
        other.shift.copy_(self.shift)
        other.scale.copy_(self.scale)
        return other.train(self.training)

    @torch.no_grad()
    def averaged(self) -> ScalarModel:
        """The mean of all members as a model with one head on the same trunk. This is exact, because heads are linear.

        A critic starts from it, because a value is one number.
        """
        if self.heads == 1:
            return self
        one = ScalarModel(self.trunk, adapter=self.adapter).to(self.head.weight.device)
        one.__dict__["base"] = self.base
        one.head.weight.copy_((self.head.weight / self.scale[:, None]).mean(0, keepdim=True))
        one.head.bias.copy_((self.head.bias / self.scale).mean(0, keepdim=True))
        one.shift.copy_((self.shift / self.scale).mean(0))
        return one.train(self.training)

    def save(self, folder: str | Path) -> None:
        """Writes the trunk as a Hugging Face folder, with the head in it."""
        self.trunk.save_pretrained(folder)
        self.save_head(folder)

    def save_head(self, folder: str | Path, initial: Tensor | None = None, role: HeadRole = "reward") -> None:
        """Writes only the head: weight (heads, width), bias (heads,), shift and scale () or (heads,), and its role.

        `initial` is the weight before training. It is saved too, so that loading can recognise an untrained head.
        Raises `UserError` for a head that cannot score (see `check_head`).
        """
        check_head(self.head.weight, self.head.bias, str(folder), initial)
        Path(folder).mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.head.weight, "bias": self.head.bias, "shift": self.shift, "scale": self.scale}
        tensors |= {} if initial is None else {"initial": initial}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, Path(folder) / HEAD_FILE, {"role": role})

    def load_head(self, folder: str | Path) -> None:
        """Reads the head that `save_head` wrote. Raises `UserError` if it is missing, broken or of another width."""
        tensors = read_head(folder)
        if tensors["weight"].shape != self.head.weight.shape:
            found, wanted = tuple(tensors["weight"].shape), tuple(self.head.weight.shape)
            raise UserError(f"{Path(folder) / HEAD_FILE}: the head has shape {found}, but the trunk needs {wanted}")
        with torch.no_grad():
            self.head.weight.copy_(tensors["weight"])
            self.head.bias.copy_(tensors["bias"])
            self.shift.copy_(tensors["shift"])
            self.scale.copy_(tensors["scale"])


def read_head(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a saved head: weight, bias, shift, scale, and `initial` if it was saved.

    Raises `UserError` if there is no head, if a tensor is missing, or if the head was not trained.
    """
    path = Path(folder) / HEAD_FILE
    if not path.is_file():
        raise not_a_reward_model(folder)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read ({error}); copy it again, or {REMEDY}") from None
    if missing := [name for name in ("weight", "bias", "shift", "scale") if name not in tensors]:
        raise UserError(f"{path}: the head has no {' and no '.join(missing)}, so it cannot score; {REMEDY}")
    check_head(tensors["weight"], tensors["bias"], str(path), tensors.get("initial"))
    for name in ("shift", "scale"):
        if not bool(torch.isfinite(tensors[name]).all()):
            raise UserError(f"{path}: {name} is {tensors[name].tolist()}, which is not finite; {REMEDY}")
    return tensors


def n_heads(folder: str | Path) -> int:
    """The number of members of a saved reward model; 1 for a third-party one without our head."""
    if head_role(folder) is None:
        return 1
    return int(read_head(folder)["weight"].shape[0])


def check_head(weight: Tensor, bias: Tensor, where: str, initial: Tensor | None = None) -> None:
    """Raises `UserError` for a head that cannot score: not finite, or still equal to its random initial weight.

    weight: (heads, width); bias: (heads,); initial: the weight before the first step, if known.
    """
    if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise UserError(f"{where}: the score head is not finite: the run diverged; lower optim.learning_rate")
    if initial is not None and bool((weight.cpu() == initial.cpu()).all(1).any()):
        raise UserError(f"{where}: the score head still has its random initial weight, so it was not trained; {REMEDY}")


def load_scalar_model(model: sections.Model, dtype: torch.dtype = torch.float32, n_tokens: int = 0) -> ScalarModel:
    """Loads a reward model that `align.rm` wrote, with a new LoRA adapter if `model` has one.

    A third-party classifier becomes its trunk, with its score matrix as the head.
    """
    if is_classifier(model.path, load_config(model)):
        weight = score_weight(model)
        scalar = ScalarModel(load_trunk(model, dtype, n_tokens))
        scalar.head.weight.data.copy_(weight)
        return scalar
    heads = int(read_head(model.path)["weight"].shape[0])
    scalar = ScalarModel(load_trunk(model, dtype, n_tokens), heads)
    scalar.load_head(model.path)
    return scalar


def score_batch(scorer: Any, answers: list[list[int]], device: Any) -> Tensor:
    """The score of each answer, read at its last token. Returns (n_answers,), or (n_answers, heads) for an ensemble."""
    ids = pad_right(answers).to(device)
    last = torch.tensor([len(answer) - 1 for answer in answers], device=device)
    is_read = torch.arange(ids.shape[1], device=device) == last[:, None]
    return scorer(ids, is_read)


def score_all(scorer: Any, answers: list[list[int]], max_tokens: int, device: Any) -> list[float]:
    """Scores without gradients, in micro-batches, in the order given. An ensemble gives the mean of its members."""
    return [
        members[0] if len(members) == 1 else sum(members) / len(members)
        for members in score_members(scorer, answers, max_tokens, device)
    ]


def score_members(scorer: Any, answers: list[list[int]], max_tokens: int, device: Any) -> list[list[float]]:
    """The scores of each answer by all members: one list per answer, with one number per head."""
    scores: list[list[float]] = [[] for _ in answers]
    scorer.eval()
    with torch.no_grad():
        for micro in micro_batches([len(answer) for answer in answers], max_tokens):
            found = score_batch(scorer, [answers[i] for i in micro], device)
            for index, members in zip(micro, found.view(len(micro), -1).tolist(), strict=True):
                scores[index] = members
    return scores
