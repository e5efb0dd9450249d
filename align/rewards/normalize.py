"""Normalise a trained reward model's scores, since its loss leaves their offset undetermined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from align.config import Section
from align.errors import UserError
from align.text.rankings import Ranked

if TYPE_CHECKING:
    from align.models.scalar import ScalarModel


class Samples(Section):
    """The answers for `normalize: samples`: sampled from model.path at prompts of the rankings."""

    n: int = Field(256, gt=1)
    """Number of answers (lm-human-preferences: 256)."""
    max_tokens: int = Field(53, gt=0)
    """Longest answer (N+: 53); EOS is appended to answers without one."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature (InstructGPT: 1; lm-human-preferences: 0.5 or 0.7)."""


def normalize(
    recipe: Any, model: ScalarModel, tokenizer: Any, training: list[Ranked], accelerator: Any
) -> dict[str, float]:
    """Normalise the scores as the recipe says; shift and scale are stored in the model and returned."""
    import torch

    from align.models.scalar import score_members

    if recipe.normalize == "none":
        return {}
    by_samples = recipe.normalize == "samples"
    answers = sampled(recipe, tokenizer, training) if by_samples else demonstrated(recipe, tokenizer, training)
    members = score_members(model, answers, recipe.train.micro_batch_tokens, accelerator.device)
    scores = torch.tensor(members, dtype=torch.float64)
    model.normalize(scores[:, 0] if model.heads == 1 else scores, variance=by_samples)
    found = {"shift": float(model.shift.mean())}
    return found | ({"scale": float(model.scale.mean())} if by_samples else {})


def demonstrated(recipe: Any, tokenizer: Any, training: list[Ranked]) -> list[list[int]]:
    """Up to 1000 demonstrations as tokens; without demonstrations, up to 1000 best training answers."""
    from align.text.encode import encode_conversations
    from align.text.load import load

    if recipe.demonstrations is None:
        return [row.answers[row.ranks.index(min(row.ranks))] for row in training[:1000]]
    data = recipe.data.of_other_rows(recipe.demonstrations, limit=1000)
    conversations = load(data, "conversations", recipe.seed).train
    encoded, _ = encode_conversations(tokenizer, conversations, recipe.data.max_tokens, "drop")
    return [row.ids for row in encoded]


def sampled(recipe: Any, tokenizer: Any, training: list[Ranked]) -> list[list[int]]:
    """Answers sampled from `model.path` to prompts of the training rankings, as tokens with their end."""
    from align.generation.sampling import Sampling
    from align.generation.text_model import TextModel
    from align.text.batches import rows_of_step
    from align.text.encode import encode_prompt, encode_response
    from align.text.ends import ends_of
    from align.text.template import share_date

    room = recipe.data.max_tokens - recipe.samples.max_tokens
    fitting = [row.prompt for row in training if row.n_prompt <= room]
    if not fitting:
        raise UserError(
            f"samples.max_tokens = {recipe.samples.max_tokens}: no prompt leaves that much room in data.max_tokens = "
            f"{recipe.data.max_tokens}; lower samples.max_tokens or raise data.max_tokens"
        )
    how = Sampling(recipe.samples.max_tokens, recipe.samples.temperature)
    data = recipe.data
    text_model = TextModel(recipe.model, data.max_tokens, template=data.template, options=data.template_options)
    share_date(text_model.tokenizer, tokenizer)
    prompts = [fitting[i] for i in rows_of_step(1, len(fitting), recipe.samples.n, recipe.seed)]
    completions = text_model.sample(prompts, how, text_model.rng(recipe.seed))
    answers = [completion.ids[:-1] if completion.ended else completion.ids for completion in completions]
    turn = ends_of(tokenizer).turn
    found = [[*completion.prompt_ids, *ids, turn] for completion, ids in zip(completions, answers, strict=True)]
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if completion.thoughts:  # PPO scores such an answer by its text, too
            found[index] = encode_prompt(tokenizer, prompt) + encode_response(tokenizer, prompt, completion.text)
    return found
