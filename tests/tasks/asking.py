"""What the tests of tasks share: a loaded model, the same one without us, a stand-in that says what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from tiny import N_POSITIONS

from align import sections
from align.generation.text_model import Completion, TextModel

PROMPTS = Path(__file__).parents[2] / "data/prompts"


def text_model_of(path: str, plain: bool = True, max_tokens: int = N_POSITIONS) -> TextModel:
    return TextModel(sections.Model(path=path), max_tokens, plain)


def hugging_face(path: str) -> tuple[Any, Any]:
    """The same model with nothing of ours around it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(path)


@torch.no_grad()
def cross_entropy(model: Any, ids: Sequence[int], n_given: int) -> float:
    """Sum of -log p over ids[n_given:], by the logits and nothing else."""
    whole = torch.tensor([list(ids)])
    logits = model(whole[:, :-1]).logits[0, n_given - 1 :]
    return float(F.cross_entropy(logits.double(), whole[0, n_given:], reduction="sum"))


class Parrot:
    """Stands for a model whose words and likelihoods are known; counts what it is asked."""

    def __init__(
        self,
        say: Callable[[Any, int], str | None] = lambda asked, seed: "",
        like: Callable[[str], float] = lambda text: -1.0,
        plain: bool = True,
        max_tokens: int = 64,
    ) -> None:
        self.say, self.like, self.plain, self.max_tokens = say, like, plain, max_tokens
        self.asked: list[Any] = []
        self.how: list[Any] = []
        self.tokenizer = SimpleNamespace()

    def answer(self, asked: Sequence[Any], how: Any, seed: int, stop: str | None = None) -> list[Completion | None]:
        self.asked += asked
        self.how.append((how, seed, stop))
        texts = [self.say(one, seed) for one in asked]
        return [None if text is None else Completion(text, [], [], True) for text in texts]

    def prompt_ids(self, asked: Sequence[str]) -> list[list[int]]:
        return [[0, *one.encode()] for one in asked]  # bytes, after BOS

    def logprobs(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        self.asked += [bytes(given[1:]).decode() for given, _ in rows]
        found = []
        for _, scored in rows:
            each = self.like(bytes(scored).decode()) / len(scored)
            found.append([each] * len(scored))
        return found
