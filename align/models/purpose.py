"""What a model's folder is for: to speak, to reward answers, or to value states. Asked before anything is loaded.

All three may have the same trunk, and where embeddings are tied no weight is missing when one is taken for another. So
it stands in the folder: in the metadata of score_head.safetensors (`role`), in an adapter's `task_type`, in the
`architectures` of config.json.
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
REMEDY = "train one with python -m align.rm"
SCORES = re.compile("Classification|Reward")  # in the names of classes that score what they read


def check_purpose(path: str, config: PretrainedConfig, to: Purpose, key: str) -> None:
    """Raises `UserError` for a model at `path`, which `key` gave, that is made for something else than `to`."""
    role, kind = head_role(path), _kind(path, config)
    if to == "generate" and kind:
        raise UserError(
            f"{key} = {path!r}: this is {kind}, not a language model; give one that writes, such as the model that "
            "this one was trained from"
        )
    if to == "reward" and role == "value":
        raise UserError(
            f"{key} = {path!r}: this is {kind}, not a reward model: it tells what a policy will yet earn; give the "
            "reward model of that run, or set it as ppo.critic"
        )
    if to == "reward" and kind and not role and adapter_settings(path):
        raise UserError(f"{key} = {path!r}: this is {kind}; merge it into its base (merge_and_unload), and give that")
    if to == "reward" and not kind:
        raise not_a_reward_model(path)
    n_scores = 1 if role or getattr(config, "auto_map", None) else config.num_labels or 1  # its own code is to be asked
    if to == "reward" and n_scores > 1:
        raise many_scores(f"{key} = {path!r}", n_scores)


def not_a_reward_model(path: str | Path) -> UserError:
    """What to say of a folder without a head."""
    return UserError(
        f"{str(path)!r}: no {HEAD_FILE} there, so this is no reward model; {REMEDY}, or give a sequence classifier"
    )


def many_scores(where: str, n: int) -> UserError:
    """What to say of a classifier with several labels."""
    return UserError(
        f"{where}: this classifier gives an answer {n} scores, and a reward is one; take a model with num_labels 1, or "
        "make one number of them in a function of yours and give that (reward.function)"
    )


def head_role(path: str | Path) -> HeadRole | None:
    """What the score head in a folder says; None where there is none.

    One that was written before heads said so is a value model's if it stands in the run's critic/ or critic_adapter/.
    """
    from safetensors import SafetensorError, safe_open

    file = _beside(path, HEAD_FILE)
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            said = (opened.metadata() or {}).get("role")
    except SafetensorError:  # told where it is read
        return "reward"
    if said is None and (file.parent.parent / "recipe.yaml").is_file():
        said = "value" if file.parent.name in ("critic", "critic_adapter") else "reward"
    return "value" if said == "value" else "reward"


def is_classifier(path: str | Path, config: PretrainedConfig) -> bool:
    """Whether a model without a head of ours is one whose own class scores."""
    return head_role(path) is None and bool(_scoring_class(config))


def _kind(path: str, config: PretrainedConfig) -> str:
    """What a model is that does not speak; "" if nothing says so."""
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
    """What adapter_config.json says; nothing where there is none."""
    file = _beside(path, "adapter_config.json")
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _beside(path: str | Path, name: str) -> Path:
    """A file of a model's folder; where a .gguf file or a hub's whole model is named, one that is not there."""
    return Path(path if str(path).endswith(".gguf") else stored_at(path)[0]) / name
