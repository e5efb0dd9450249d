"""A model that is asked: turns or a text in, answers as text and tokens out; and how likely it finds a given text."""

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

Asked = Sequence["Message"] | str  # turns, or a text that the model goes on with
Row = tuple[list[int], list[int]]  # tokens that are given, and tokens that are scored

MOST_LOGITS = 2**27  # at once, half a gigabyte in fp32
MOST_TOKENS = 4096  # at once; rows of more would be padded more


class Reply(NamedTuple):
    """An answer with the tokens that it came from. What the model thought before it, if it did, is apart from it."""

    text: str
    prompt_ids: list[int]
    ids: list[int]  # of the answer, its end included if said
    ended: bool
    thoughts: str = ""


class TextModel:
    """A loaded model with its tokenizer, in fp32.

    Turns go through its chat template. A base model (`plain`) has none that it knows: it reads the last turn as the
    first line of a document, and its answer is the next line. A text is read as it is, after BOS, whatever the model.
    """

    def __init__(
        self,
        model: sections.Model,
        max_tokens: int,
        plain: bool = False,
        template: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """`max_tokens` bounds prompt and answer together, as the model's positions do."""
        self.tokenizer: Any = load_tokenizer(model.path, model.trust_remote_code, template, options)
        self.accelerator = make_accelerator("fp32")
        loaded = load_causal_lm(model.model_copy(update={"adapter": "none"}), n_tokens=rows_needed(self.tokenizer))
        self.model = loaded.to(self.accelerator.device).eval()
        self.never_sampled = never_sampled(self.tokenizer, self.model)
        n_rows, n_own = loaded.get_output_embeddings().weight.shape[0], load_config(model).get_text_config().vocab_size
        self.added = range(n_own, n_rows)  # tokens that the model did not have, such as a pad token
        self.plain = plain
        self.max_tokens = min(max_tokens, max_positions(loaded.config) or max_tokens)

    def prompt_ids(self, asked: Sequence[Asked]) -> list[list[int]]:
        """What is asked as this model's tokens. Raises `UserError` for turns that its template refuses."""
        return prompt_ids(self.tokenizer, asked, self.plain)

    def randomness(self, *seeds: int) -> torch.Generator:
        """A generator on the model's device, for `sample`."""
        return generator(self.accelerator.device, *seeds)

    def answer(
        self, asked: Sequence[Asked], how: Sampling, seed: int | tuple[int, ...], stop: str | None = None
    ) -> list[Reply | None]:
        """One answer to each, cut before `stop`; None for a prompt that leaves no room for an answer."""
        ids, seeds = self.prompt_ids(asked), (seed,) if isinstance(seed, int) else seed
        fitting = [index for index, row in enumerate(ids) if len(row) + how.max_tokens <= self.max_tokens]
        answers: list[Reply | None] = [None] * len(ids)
        found = self._answers(
            [asked[i] for i in fitting], [ids[i] for i in fitting], how, self.randomness(*seeds), stop
        )
        for index, reply in zip(fitting, found, strict=True):
            answers[index] = reply
        return answers

    def sample(self, asked: Sequence[Asked], how: Sampling, randomness: torch.Generator) -> list[Reply]:
        """One answer to each, drawn from `randomness` as it stands. Raises `UserError` where one leaves no room."""
        ids = self.prompt_ids(asked)
        longest, room = max(ids, key=len), self.max_tokens - how.max_tokens
        if len(longest) > room:
            raise UserError(
                f"a prompt has {len(longest)} tokens and there is room for {room} before an answer of "
                f"{how.max_tokens}: {self.tokenizer.decode(longest)[:80]!r}; lower sampling.max_tokens"
            )
        return self._answers(asked, ids, how, randomness, None)

    def _answers(
        self,
        asked: Sequence[Asked],
        ids: list[list[int]],
        how: Sampling,
        randomness: torch.Generator,
        stop: str | None,
    ) -> list[Reply]:
        if not ids:
            return []
        eos = [*ends_of(self.tokenizer).ids]
        if stop == "\n" or (self.plain and not isinstance(asked[0], str)):  # a line of a document that goes on
            eos += self._tokens("\n")[-1:]
        elif stop and len(self._tokens(stop)) == 1:
            eos += self._tokens(stop)
        answers = sample(self.model, ids, how, eos, self.never_sampled, randomness)
        said = [decode_answer(self.tokenizer, answer.tokens, row) for row, answer in zip(ids, answers, strict=True)]
        return [
            Reply(_before(one.text, stop), row, answer.tokens, answer.ended, one.thoughts)
            for one, row, answer in zip(said, ids, answers, strict=True)
        ]

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def logprobs(self, rows: Sequence[Row]) -> list[list[float]]:
        """log p of each scored token, given those before it, at temperature 1. Something must be given in each row.

        As the model itself has it: tokens that are never sampled, such as pad, keep the probability that it gives them.
        """
        if not any(scored for _, scored in rows):
            return [[] for _ in rows]
        lm = LanguageModel(self.model, self.added)
        at_once = min(MOST_TOKENS, MOST_LOGITS // self.model.get_output_embeddings().weight.shape[0])
        found: list[list[float]] = [[] for _ in rows]
        for part in micro_batches([len(given) + len(scored) for given, scored in rows], at_once):
            ids = pad_right([[*rows[i][0], *rows[i][1]] for i in part]).to(self.accelerator.device)
            marks = pad_right([[0] * len(rows[i][0]) + [1] * len(rows[i][1]) for i in part]).bool().to(ids.device)
            numbers = iter(token_logprobs(lm(ids, marks), ids[marks]).float().tolist())
            for i in part:
                found[i] = list(islice(numbers, len(rows[i][1])))
        return found


def prompt_ids(tokenizer: Any, asked: Sequence[Asked], plain: bool) -> list[list[int]]:
    """What is asked as tokens: turns by the chat template, or as the start of a document; texts after BOS."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    texts: dict[int, str] = {}
    turns: dict[int, Sequence[Message]] = {}
    for index, one in enumerate(asked):
        if isinstance(one, str):
            texts[index] = one
        elif plain:
            texts[index] = f" {one[-1].content}\n"
        else:
            turns[index] = one
    written = encode_prompts(tokenizer, list(turns.values())) if turns else []
    read = tokenizer(list(texts.values()), add_special_tokens=False)["input_ids"] if texts else []
    ids = dict(zip(turns, written, strict=True)) | {i: [start, *row] for i, row in zip(texts, read, strict=True)}
    return [ids[index] for index in range(len(asked))]


def _before(text: str, stop: str | None) -> str:
    return text if stop is None else text.partition(stop)[0].rstrip()
