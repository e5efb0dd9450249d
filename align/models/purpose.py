"""The purpose of a model folder: language model, reward model or value model. Checked before anything is loaded.

All three may have the same trunk, and with tied embeddings no weight is missing if one is loaded as another. So the
folder says it: in the metadata of score_head.safetensors (`role`), in an adapter's `task_type`, in the `architectures`
of config.json.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from align.errors import UserError
from align.text.tokenizer import stored_at

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Purpose = Literal["generate", "reward"]
HeadRole = Literal["reward", "value"]

HEAD_FILE = "score_head.safetensors"
REMEDY = "train one with `align rm`"
SCORES = re.compile("Classification|Reward")  # in the names of classes that give scores


def check_purpose(path: str, config: PretrainedConfig, to: Purpose, key: str) -> None:
    """Raises `UserError`, which names `key`, if the model at `path` has another purpose than `to`."""
    role, kind = head_role(path), _kind(path, config)
    if to == "generate" and kind:
        raise UserError(
            f"{key} = {path!r}: this is {kind}, not a language model; give a language model, such as the one that this "
            "model was trained from"
        )
    if to == "reward" and role == "value":
        raise UserError(
            f"{key} = {path!r}: this is {kind}, not a reward model: it predicts a policy's future reward; give the "
            "reward model of that run, or use this one as ppo.critic"
        )
    if to == "reward" and kind and not role and adapter_settings(path):
        raise UserError(
            f"{key} = {path!r}: this is {kind}; merge it into its base (merge_and_unload) and give the merged model"
        )
    if to == "reward" and not kind:
        raise not_a_reward_model(path)
    n_scores = (
        1 if role or getattr(config, "auto_map", None) else config.num_labels or 1
    )  # own code: known when it runs
    if to == "reward" and n_scores > 1:
        raise many_scores(f"{key} = {path!r}", n_scores)


def not_a_reward_model(path: str | Path) -> UserError:
    """The error for a folder without a score head."""
    return UserError(
        f"{str(path)!r}: no {HEAD_FILE} there, so this is not a reward model; {REMEDY}, or give a sequence classifier"
    )


def many_scores(where: str, n: int) -> UserError:
    """The error for a classifier with several labels."""
    return UserError(
        f"{where}: this classifier gives {n} scores to an answer, but a reward is one; use a model with num_labels 1, "
        "or combine the scores in a function of yours and set reward.function"
    )


def head_role(path: str | Path) -> HeadRole | None:
    """The role in the metadata of a folder's score head; None if there is no head.

    An older head without a role is a value head if it is in a run's critic/ or critic_adapter/.
    """
    from safetensors import SafetensorError, safe_open

    file = _file_of(path, HEAD_FILE)
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            role = (opened.metadata() or {}).get("role")
    except SafetensorError:  # reported when the head is read
        return "reward"
    if role is None and (file.parent.parent / "recipe.yaml").is_file():
        role = "value" if file.parent.name in ("critic", "critic_adapter") else "reward"
    return "value" if role == "value" else "reward"


def is_classifier(path: str | Path, config: PretrainedConfig) -> bool:
    """Whether a model without our head is a classifier of its own class."""
    return head_role(path) is None and bool(_scoring_class(config))


def _kind(path: str, config: PretrainedConfig) -> str:
    """The kind of a model that is not a language model, for messages; "" for a language model."""
    if role := head_role(path):
        return f"a reward model ({HEAD_FILE})" if role == "reward" else f"a value model, PPO's critic ({HEAD_FILE})"
    task = str(adapter_settings(path).get("task_type"))
    if task.endswith("_CLS"):
        return f"an adapter of a classifier (task_type {task})"
    name = _scoring_class(config)
    return f"a classifier ({name} in config.json)" if name else ""


def _scoring_class(config: PretrainedConfig) -> str:
    return next((name for name in config.architectures or [] if SCORES.search(name)), "")


def adapter_settings(path: str | Path) -> dict[str, Any]:
    """The contents of adapter_config.json; empty if there is none."""
    file = _file_of(path, "adapter_config.json")
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _file_of(path: str | Path, name: str) -> Path:
    """A file in a model's folder. For a .gguf file or a whole hub model the path does not exist."""
    return Path(path if str(path).endswith(".gguf") else stored_at(path)[0]) / name
