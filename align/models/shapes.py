"""Model shapes by name, to estimate the memory of a run without a model: `--dry-run --model-shape 7B`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align import sections
from align.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# GPT-2 small and XL (Radford et al. 2019, table 2: 124,439,808 and 1,557,611,200 parameters), GPT-3 6.7B and 13B (Brown
# et al. 2020, table 2.1), as in align/gpt/presets.py.
SIZES = {"124M": "gpt2", "1.5B": "gpt2-xl", "7B": "gpt3-6.7b", "13B": "gpt3-13b"}


def model_shape(name: str) -> PretrainedConfig:
    """The configuration of a size, a preset, or a model folder (its weights are not read).

    Raises `UserError` for any other name.
    """
    from align.gpt import PRESETS, preset
    from align.models.load import load_config

    if name in SIZES or name in PRESETS:
        return preset(SIZES.get(name, name))
    if (Path(name) / "config.json").is_file():
        return load_config(sections.Model(path=name))
    raise UserError(
        f"--model-shape {name}: unknown; give a size ({', '.join(SIZES)}), a preset ({', '.join(PRESETS)}), or a "
        "folder with a config.json"
    )
