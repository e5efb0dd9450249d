"""Three families of random models behind the tiny tokenizer, and files of questions that they are asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import N_POSITIONS, World, special_ids, write_rows


@pytest.fixture(scope="session")
def llama(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama whose embedding has seven rows more than its tokenizer has tokens, as many published ones have."""
    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer) + 7,
        max_position_embeddings=N_POSITIONS,
        initializer_range=0.3,
        **sizes,
        **special_ids(tokenizer),
    )
    folder = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=["ours", "gpt2", "llama"])
def path(request: pytest.FixtureRequest, world: World, llama: str) -> str:
    """A model of each family in turn."""
    return {"ours": world.base, "gpt2": world.gpt2, "llama": llama}[request.param]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Writes rows to a file of this test and gives its path."""

    def write(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
        return write_rows(tmp_path / name, rows)

    return write
