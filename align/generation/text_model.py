"""TextModel: a model with its tokenizer. Completes messages or text; scores the log probability of given tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from align import sections
from align.errors import UserError
from align.generation.sampling import Sampling, sample
from align.models.language import LanguageModel, never_sampled, token_logprobs
from align.models.load import load_causal_lm, load_config, max_positions
from align.text.batches import micro_batches, pad_right
from align.text.encode import decode_answer, encode_prompts
from align.text.ends import ends_of
from align.text.tokenizer import load_tokenizer, rows_needed
from align.train.machine import accelerator as make_accelerator
from align.train.state import generator

if TYPE_CHECKING:
    from align.text.records import Message

PromptLike = Sequence["Message"] | str  # messages, or a text to continue
Row = tuple[list[int], list[int]]  # context tokens, and tokens to score

MOST_LOGITS = 2**27  # at once, half a gigabyte in fp32
MOST_TOKENS = 4096  # at once; larger batches have more padding


class Completion(NamedTuple):
    """A completion as text and tokens. Thoughts are separate from the answer."""

    text: str
    prompt_ids: list[int]
    ids: list[int]  # of the answer, its end token included
    ended: bool
    thoughts: str = ""


class TextModel:
    """A loaded model with its tokenizer, in fp32.

    Messages go through its chat template. A base model (`plain`) was trained on none: it reads the last message as the
    first line of a document, and its answer is the next line. A text is used unchanged, after BOS.
    """

    def __init__(
        self,
        model: sections.Model,
        max_tokens: int,
        plain: bool = False,
        template: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """`max_tokens` bounds prompt and answer together, and so do the model's positions."""
        self.tokenizer: Any = load_tokenizer(model.path, model.trust_remote_code, template, options)
        self.accelerator = make_accelerator("fp32")
        loaded = load_causal_lm(model.model_copy(update={"adapter": "none"}), n_tokens=rows_needed(self.tokenizer))
        self.model = loaded.to(self.accelerator.device).eval()
        self.never_sampled = never_sampled(self.tokenizer, self.model)
        n_rows, n_own = loaded.get_output_embeddings().weight.shape[0], load_config(model).get_text_config().vocab_size
        self.added = range(n_own, n_rows)  # tokens that were added to the model, such as a pad token
        self.plain = plain
        self.max_tokens = min(max_tokens, max_positions(loaded.config) or max_tokens)

    def prompt_ids(self, prompts: Sequence[PromptLike]) -> list[list[int]]:
        """Prompts as this model's tokens. Raises `UserError` for messages that its template refuses."""
        return prompt_ids(self.tokenizer, prompts, self.plain)

    def rng(self, *seeds: int) -> torch.Generator:
        """A generator on the model's device, for `sample`."""
        return generator(self.accelerator.device, *seeds)

    def answer(
        self, prompts: Sequence[PromptLike], how: Sampling, seed: int | tuple[int, ...], stop: str | None = None
    ) -> list[Completion | None]:
        """One completion per prompt, cut before `stop`; None for a prompt that leaves no room for an answer."""
        ids, seeds = self.prompt_ids(prompts), (seed,) if isinstance(seed, int) else seed
        fitting = [index for index, row in enumerate(ids) if len(row) + how.max_tokens <= self.max_tokens]
        answers: list[Completion | None] = [None] * len(ids)
        found = self._answers([prompts[i] for i in fitting], [ids[i] for i in fitting], how, self.rng(*seeds), stop)
        for index, completion in zip(fitting, found, strict=True):
            answers[index] = completion
        return answers

    def sample(self, prompts: Sequence[PromptLike], how: Sampling, rng: torch.Generator) -> list[Completion]:
        """One completion per prompt, drawn with `rng`. Raises `UserError` if a prompt leaves no room."""
        ids = self.prompt_ids(prompts)
        longest, room = max(ids, key=len), self.max_tokens - how.max_tokens
        if len(longest) > room:
            raise UserError(
                f"a prompt has {len(longest)} tokens and there is room for {room} before an answer of "
                f"{how.max_tokens}: {self.tokenizer.decode(longest)[:80]!r}; lower sampling.max_tokens"
            )
        return self._answers(prompts, ids, how, rng, None)

    def _answers(
        self,
        prompts: Sequence[PromptLike],
        ids: list[list[int]],
        how: Sampling,
        rng: torch.Generator,
        stop: str | None,
    ) -> list[Completion]:
        if not ids:
            return []
        eos = [*ends_of(self.tokenizer).ids]
        if stop == "\n" or (self.plain and not isinstance(prompts[0], str)):  # the answer is one line of a document
            eos += self._tokens("\n")[-1:]
        elif stop and len(self._tokens(stop)) == 1:
            eos += self._tokens(stop)
        answers = sample(self.model, ids, how, eos, self.never_sampled, rng)
        decoded = [decode_answer(self.tokenizer, answer.tokens, row) for row, answer in zip(ids, answers, strict=True)]
        return [
            Completion(_before(one.text, stop), row, answer.tokens, answer.ended, one.thoughts)
            for one, row, answer in zip(decoded, ids, answers, strict=True)
        ]

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def logprobs(self, rows: Sequence[Row]) -> list[list[float]]:
        """log p of each scored token given those before it, at temperature 1. Every row needs some context tokens.

        These are the model's own: tokens that are never sampled, such as pad, keep their probability.
        """
        if not any(scored for _, scored in rows):
            return [[] for _ in rows]
        lm = LanguageModel(self.model, self.added)
        at_once = min(MOST_TOKENS, MOST_LOGITS // self.model.get_output_embeddings().weight.shape[0])
        found: list[list[float]] = [[] for _ in rows]
        for part in micro_batches([len(given) + len(scored) for given, scored in rows], at_once):
            ids = pad_right([[*rows[i][0], *rows[i][1]] for i in part]).to(self.accelerator.device)
            is_scored = pad_right([[0] * len(rows[i][0]) + [1] * len(rows[i][1]) for i in part]).bool().to(ids.device)
            numbers = iter(token_logprobs(lm(ids, is_scored), ids[is_scored]).float().tolist())
            for i in part:
                found[i] = list(islice(numbers, len(rows[i][1])))
        return found


def prompt_ids(tokenizer: Any, prompts: Sequence[PromptLike], plain: bool) -> list[list[int]]:
    """Prompts as tokens: messages through the chat template, or as the start of a document; texts after BOS."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    texts: dict[int, str] = {}
    messages: dict[int, Sequence[Message]] = {}
    for index, one in enumerate(prompts):
        if isinstance(one, str):
            texts[index] = one
        elif plain:
            texts[index] = f" {one[-1].content}\n"
        else:
            messages[index] = one
    chat_ids = encode_prompts(tokenizer, list(messages.values())) if messages else []
    text_ids = tokenizer(list(texts.values()), add_special_tokens=False)["input_ids"] if texts else []
    ids = dict(zip(messages, chat_ids, strict=True)) | {
        i: [start, *row] for i, row in zip(texts, text_ids, strict=True)
    }
    return [ids[index] for index in range(len(prompts))]


def _before(text: str, stop: str | None) -> str:
    return text if stop is None else text.partition(stop)[0].rstrip()
