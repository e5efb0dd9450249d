"""Before a run starts: does it fit the model, and what will it cost? What `--dry-run` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align.config import to_yaml
from align.errors import UserError
from align.models.load import max_positions
from align.models.memory import Role, estimate, table
from align.train.machine import resolve_precision

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def check_positions(config: PretrainedConfig, max_tokens: int, key: str = "model.path") -> None:
    """Raises `UserError` if sequences may be longer than the model that `key` names has positions for."""
    limit = max_positions(config)
    if limit is not None and max_tokens > limit:
        raise UserError(
            f"data.max_tokens = {max_tokens}: this model has {limit} positions ({key}); "
            f"give data.max_tokens={limit} or less"
        )


def print_plan(
    recipe: Any, config: PretrainedConfig, roles: Mapping[str, Role], rows: Mapping[str, Sequence[Any]]
) -> None:
    """Prints the resolved recipe, row and token counts, and estimated memory. Rows have `.ids` or are lists of ids."""
    print(to_yaml(recipe))
    for name, sequences in rows.items():
        n_tokens = sum(len(getattr(row, "ids", row)) for row in sequences)
        print(f"{name}: {len(sequences):,} sequences, {n_tokens:,} tokens")
    kinds = {
        role: "lora" if kind == "train" and recipe.model.adapter == "lora" else kind for role, kind in roles.items()
    }
    train = recipe.train.model_copy(update={"precision": resolve_precision(recipe.train.precision)})
    print(f"precision: {train.precision}")
    print(table([estimate(config, train, role, kind, recipe.model) for role, kind in kinds.items()]))
