"""Saves a reward model as Hugging Face's sequence classifier, which scores without this package.

    model = AutoModelForSequenceClassification.from_pretrained("runs/rm/model")
    scores = model(input_ids).logits[:, 0]  # rows end in EOS and are padded on the right with the tokenizer's pad

The head of these classes has no bias. The scale is folded into the head's weight. If the trunk ends in a LayerNorm, the
constant is folded exactly into its bias: with W the head's weight, d is added to the bias such that W d is the
constant. A trunk that ends in an RMSNorm (Llama, Qwen) has no such bias: its stock scores differ by one constant,
`score_shift` in config.json, which changes no comparison.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from align.gpt.stock import as_stock
from align.models.load import fit_vocabulary, round_to
from align.models.scalar import ScalarModel

SAME = ""  # the note if the stock scores equal ours


@torch.no_grad()
def save_as_classifier(
    model: ScalarModel, pad_token_id: int, folder: str | Path, dtype: torch.dtype = torch.float32
) -> str:
    """Writes the trunk with its score head as a sequence classifier, or without it if Hugging Face has no class for it.

    The class looks for padding, so the embedding gets a row for it. The weights are written in `dtype`.

    Changes `model` into an equivalent form: scale 1, and shift and bias 0 if the trunk can take them. Returns a note
    about the stock class's scores; "" if they equal ours.
    """
    fit_vocabulary(model.trunk, pad_token_id + 1)
    _fold_scale(model)
    classifier = _classifier(model, pad_token_id)
    if classifier is None:
        _write(model.trunk, folder, dtype)
        return "Hugging Face has no sequence classifier for this architecture: `model/` is the trunk alone."
    classifier.score.weight = nn.Parameter(model.head.weight.detach().clone())
    _fold_shift(model, pad_token_id)
    round_to(classifier, dtype)
    constant = model.shift - model.head.bias if model.heads > 1 else model.shift - model.head.bias[0]
    if not _scores_equal(model, classifier, constant, pad_token_id, torch.finfo(dtype).eps):
        _write(model.trunk, folder, dtype)
        return "Hugging Face's classifier of this architecture gives other scores: `model/` is the trunk alone."
    note = SAME
    if bool(constant.any()):
        classifier.config.score_shift = constant.tolist()
        shown = ", ".join(f"{value:.6g}" for value in constant.flatten().tolist())
        note = (
            f"The stock class has no bias: subtract {shown} (`score_shift` in config.json) from its scores to get the "
            "scores of `score_head.safetensors`. Comparisons between answers do not need it."
        )
    _write(classifier, folder, dtype)
    return note


def _write(model: Any, folder: str | Path, dtype: torch.dtype) -> None:
    written = as_stock(model)
    round_to(written, dtype)
    written.save_pretrained(folder)


def _classifier(model: ScalarModel, pad_token_id: int) -> Any:
    """Hugging Face's classifier around this trunk, or None if there is no such class with a linear `score`."""
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(model.trunk.config)
    config.num_labels = model.heads
    config.problem_type = "regression"
    config.pad_token_id = pad_token_id
    config.get_text_config().pad_token_id = pad_token_id
    try:
        with torch.device("meta"):  # its own trunk is not used
            classifier: Any = AutoModelForSequenceClassification.from_config(config)
    except (ValueError, AttributeError):  # no such class, or one that needs more than a trunk
        return None
    prefix, score = classifier.base_model_prefix, getattr(classifier, "score", None)
    if not isinstance(score, nn.Linear) or score.bias is not None or not hasattr(classifier, prefix):
        return None
    if score.weight.shape != model.head.weight.shape or type(getattr(classifier, prefix)) is not type(model.trunk):
        return None
    setattr(classifier, prefix, model.trunk)
    return classifier.eval()


def _fold_scale(model: ScalarModel) -> None:
    """Folds the scale of score = (W h + b - shift) / scale into weight, bias and shift."""
    model.head.weight.div_(model.scale.reshape(-1, 1))
    model.head.bias.div_(model.scale)
    model.shift.div_(model.scale)
    model.scale.fill_(1.0)


def _fold_shift(model: ScalarModel, pad_token_id: int) -> None:
    """Folds b - shift into the bias of the trunk's last LayerNorm, if any. Undoes it if the scores change."""
    wanted = model.head.bias - model.shift  # (heads,)
    norm = _last_layer_norm(model)
    if norm is None or not bool(wanted.any()):
        return
    before = norm.bias.detach().clone()
    probe = _probe(model, pad_token_id)
    expected = model(*probe)
    kept = model.head.bias.detach().clone(), model.shift.clone()
    weight = model.head.weight.detach().cpu().double()
    added = torch.linalg.pinv(weight) @ wanted.cpu().double()  # (width,): the shortest d with W d = wanted
    norm.bias += added.to(norm.bias)
    model.head.bias.zero_()
    model.shift.zero_()
    if not _close(model(*probe), expected):
        norm.bias.copy_(before)
        model.head.bias.copy_(kept[0])
        model.shift.copy_(kept[1])


def _last_layer_norm(model: ScalarModel) -> Any:
    """The last LayerNorm with a bias outside the layers. The caller checks that the trunk really ends in it."""
    found = [
        module
        for name, module in model.trunk.named_modules()
        if isinstance(module, nn.LayerNorm) and not any(part.isdigit() for part in name.split("."))
    ]
    fitting = [norm for norm in found if norm.bias is not None and norm.bias.shape[0] == model.head.in_features]
    return fitting[-1] if fitting else None


def _scores_equal(model: ScalarModel, classifier: Any, constant: Tensor, pad_token_id: int, eps: float) -> bool:
    """Whether the stock class gives our scores up to the constant, on a full row and on a padded one.

    `eps` is the precision of its weights: its head is rounded, ours is fp32.
    """
    ids, is_read = _probe(model, pad_token_id)
    found = classifier(input_ids=ids).logits.float()  # (2, heads)
    return _close(found - constant, model(ids, is_read).view(2, -1), max(1e-3, 4 * eps))


def _probe(model: ScalarModel, pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Two rows of ids, the second padded, and a mask of the last token of each that is not padding."""
    config = model.trunk.config.get_text_config()
    width = min(8, getattr(config, "max_position_embeddings", None) or 8)
    words = [token for token in range(min(config.vocab_size, 4 * width)) if token != pad_token_id]
    row = torch.tensor([words[(3 * i + 1) % len(words)] for i in range(width)])
    ids = torch.stack([row, row.flip(0)]).to(model.head.weight.device)
    ids[1, width // 2 + 1 :] = pad_token_id
    is_read = torch.zeros_like(ids, dtype=torch.bool)
    is_read[0, -1] = is_read[1, width // 2] = True
    return ids, is_read


def _close(found: Tensor, expected: Tensor, tolerance: float = 1e-3) -> bool:
    return bool(torch.allclose(found, expected, atol=tolerance, rtol=tolerance))
