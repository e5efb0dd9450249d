"""A model that answers: prompts as turns in, answers as text and tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from align import sections
from align.errors import UserError
from align.models.language import LanguageModel, token_logprobs, unspeakable
from align.models.load import load_causal_lm, max_positions
from align.rl.rollouts import Rollouts
from align.rl.sampling import Answer, Sampling, sample
from align.text.encode import decode_response, encode_prompts
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator as make_accelerator
from align.train.state import generator

if TYPE_CHECKING:
    from align.text.records import Message


class Reply(NamedTuple):
    """An answer with the tokens that it came from."""

    text: str
    prompt_ids: list[int]
    ids: list[int]  # of the answer, EOS included if said
    ended: bool


class Speaker:
    """A loaded model with its tokenizer. Its answers follow from the seed and the order in which it is asked."""

    def __init__(self, model: sections.Model, how: Any, max_tokens: int, seed: int, plain: bool = False) -> None:
        self.tokenizer = load_tokenizer(model.path, model.trust_remote_code)
        self.accelerator = make_accelerator("fp32")
        loaded = load_causal_lm(model.model_copy(update={"adapter": "none"}), n_tokens=len(self.tokenizer))
        self.model = loaded.to(self.accelerator.device).eval()
        self.unspeakable = unspeakable(self.tokenizer, self.model)
        self.how = Sampling(how.max_tokens, how.temperature, how.top_k, how.top_p, how.batch_tokens)
        self.plain = plain
        self.room = min(max_tokens, max_positions(loaded.config) or max_tokens) - how.max_tokens
        self.randomness = generator(self.accelerator.device, seed)

    def prompt_ids(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Prompts as this model reads them: through its chat template, or plainly as the start of a document.

        Raises `UserError` for a prompt that leaves no room for an answer.
        """
        if self.plain:
            texts = [f" {prompt[-1].content}\n" for prompt in prompts]
            ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            ids = [[self.tokenizer.bos_token_id or self.tokenizer.eos_token_id, *row] for row in ids]
        else:
            ids = encode_prompts(self.tokenizer, prompts)
        longest = max(ids, key=len)
        if len(longest) > self.room:
            raise UserError(
                f"a prompt has {len(longest)} tokens and there is room for {self.room} before an answer of "
                f"{self.how.max_tokens}: {self.tokenizer.decode(longest)[:80]!r}; lower sampling.max_tokens"
            )
        return ids

    def answer(self, prompts: Sequence[Sequence[Message]]) -> list[Reply]:
        """One answer to each prompt."""
        ids = self.prompt_ids(prompts)
        eos = [self.tokenizer.eos_token_id]
        if self.plain:  # a document goes on after the answer; the answer is one line of it
            eos += self.tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]
        answers = sample(self.model, ids, self.how, eos, self.unspeakable, self.randomness)
        return [
            Reply(decode_response(self.tokenizer, answer.tokens), row, answer.tokens, answer.ended)
            for row, answer in zip(ids, answers, strict=True)
        ]

    @torch.no_grad()
    def logprobs(self, rows: Sequence[tuple[list[int], list[int]]], max_tokens: int = 16384) -> list[float]:
        """log p(answer | prompt) at temperature 1 of each (prompt ids, answer ids)."""
        answers = [Answer(ids, [], True) for _, ids in rows]
        rollouts = Rollouts.of([prompt for prompt, _ in rows], answers, self.accelerator.device)
        lm = LanguageModel(self.model, self.unspeakable)
        found = rollouts.for_each_token(lambda ids, marks: token_logprobs(lm(ids, marks), ids[marks]), max_tokens)
        return found.sum(1).tolist()
