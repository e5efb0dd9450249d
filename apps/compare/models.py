"""Loaded models that answer a token at a time, and what can be measured of an answer afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from align.errors import UserError
from align.generation.sampling import Sampling, stream
from align.generation.text_model import TextModel
from align.models.language import LanguageModel, divergences, token_logprobs
from align.text.encode import DecodedAnswer, decode_answer
from align.text.ends import ends_of
from align.text.tokenizer import rows_needed
from align.train.machine import accelerator

if TYPE_CHECKING:
    from align import sections
    from align.text.records import Message
    from apps.compare.recipe import Recipe

READ_AT_ONCE = 16384  # tokens that go through a reward model together
AT_ONCE = 64  # positions whose distributions are compared together
WINDOW = 8  # tokens that are decoded with a new one, for its spaces

Asked = Sequence["Message"]


class Thought(str):
    """A piece of what a model thinks before it answers."""


class Answered(NamedTuple):
    """A whole answer, or as much as there is of one that was stopped."""

    text: str  # without thoughts, special tokens and the space around it
    thoughts: str
    prompt_ids: list[int]
    ids: list[int]
    rest: str  # text that no piece had: bytes that make no whole character
    end: str  # eos; length: as long as was allowed; room: no positions left; stopped


class Figures(NamedTuple):
    """Of each token of an answer, in nats and at temperature 1."""

    logprobs: list[float]
    reference: list[float] | None  # of the same tokens by the reference; None where its vocabulary is another
    kl: list[float] | None  # KL(model || reference) of the whole distribution that the token was drawn from


class StreamingModel:
    """A model that answers; `TextModel` says how it is loaded and asked."""

    def __init__(self, name: str, settings: sections.ComparedModel, most_tokens: int) -> None:
        self.name = name
        plain, options = settings.asked == "plain", settings.template_options
        self.text_model = TextModel(settings, most_tokens, plain, settings.template, options)
        self.tokenizer, self.max_tokens = self.text_model.tokenizer, self.text_model.max_tokens
        self.eos = [*ends_of(self.tokenizer).ids]
        if self.text_model.plain:  # a document goes on after the answer; the answer is one line of it
            self.eos += self.tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]

    def prompt_ids(self, asked: Asked) -> list[int]:
        """The turns as this model reads them. Raises `UserError` for turns that its template refuses."""
        return self.text_model.prompt_ids([asked])[0]

    def answer(
        self, asked: Asked, how: Sampling, seed: int, is_stopped: Callable[[], bool]
    ) -> Iterator[str | Answered]:
        """The pieces of the thoughts' and the answer's text, one for each token, then the whole.

        A character may take several tokens: all but the last of them come with "". Raises `UserError` for a prompt
        that leaves no room.
        """
        prompt = self.prompt_ids(asked)
        room = self.max_tokens - len(prompt)
        if room < 1:
            raise UserError(
                f"The conversation has {len(prompt)} tokens, and {self.max_tokens} is the most, with the answer; begin "
                "a new one, or ask a shorter question."
            )
        ids: list[int] = []
        said = DecodedAnswer("")
        pieces = Pieces(self.tokenizer)
        allowed = how._replace(max_tokens=min(how.max_tokens, room))
        text_model = self.text_model
        tokens = stream(text_model.model, prompt, allowed, self.eos, text_model.never_sampled, text_model.rng(seed))
        for token in tokens:
            ids.append(token)
            piece = "" if token in self.eos else pieces.next(token)
            if not said.text:  # thoughts come first: what follows the first words of the answer is all answer
                said = decode_answer(self.tokenizer, ids, prompt)
            is_thought = not said.text and bool(said.thoughts or piece.strip())  # a mark is no part of either
            yield Thought(piece) if is_thought else piece
            if is_stopped():
                break
        has_ended = bool(ids) and ids[-1] in self.eos
        cut = "stopped" if len(ids) < allowed.max_tokens else "length" if room >= how.max_tokens else "room"
        said = decode_answer(self.tokenizer, ids, prompt)
        yield Answered(said.text, said.thoughts, prompt, ids, pieces.rest(), "eos" if has_ended else cut)

    @torch.no_grad()
    def logits(self, prompt: list[int], ids: list[int]) -> torch.Tensor:
        """What each token of an answer was drawn from, in one pass: (n_tokens, vocabulary) at temperature 1."""
        row = torch.tensor([[*prompt, *ids]], device=self.text_model.accelerator.device)
        is_answer = torch.arange(row.shape[1], device=row.device)[None] >= len(prompt)
        found: torch.Tensor = LanguageModel(self.text_model.model, self.text_model.never_sampled)(row, is_answer)
        return found[:, : rows_needed(self.tokenizer)].float()

    def reads_like(self, other: StreamingModel) -> bool:
        """Whether both have the same tokens, so that one can say how likely the other's answer is."""
        return self.tokenizer.get_vocab() == other.tokenizer.get_vocab()


class Pieces:
    """Tokens in, text out. Bytes of a character that is not whole yet wait for the rest of it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._told = ""  # of what `_ids` stand for

    def next(self, token: int) -> str:
        """The text that a token adds."""
        self._ids.append(token)
        text = self._decoded()
        if text.endswith("�") and len(self._ids) < 4 * WINDOW:
            return ""
        piece = text[len(self._told) :]
        self._ids = self._ids[-WINDOW:]
        self._told = self._decoded()
        return piece

    def rest(self) -> str:
        """What still waits."""
        return self._decoded()[len(self._told) :]

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class StreamingModels:
    """All models of a recipe, loaded once and in its order, and its reward model."""

    def __init__(self, recipe: Recipe, told: Callable[[str], None] = lambda _: None) -> None:
        self.by_name: dict[str, StreamingModel] = {}
        for name, settings in recipe.models.items():
            told(f"loading {name} from {settings.path}")
            self.by_name[name] = StreamingModel(name, settings, recipe.conversation_tokens)
        self.reference = None if recipe.kl_reference is None else self.by_name[recipe.kl_reference]
        self.reward: Any = None
        if recipe.reward is not None:
            from align.rewards.model import ModelReward

            told(f"loading the reward model from {recipe.reward}")
            self.reward = ModelReward(recipe.reward, None, accelerator("fp32").device, READ_AT_ONCE)

    def measure(self, voice: StreamingModel, asked: Asked, answered: Answered) -> Figures:
        """What the model and the reference think of each token; each reads the prompt in its own form."""
        own = voice.logits(answered.prompt_ids, answered.ids)
        ids = torch.tensor(answered.ids, device=own.device)
        logprobs = token_logprobs(own, ids).tolist()
        reference = self.reference
        if reference is None or not voice.reads_like(reference):
            return Figures(logprobs, None, None)
        prompt = reference.prompt_ids(asked)
        if len(prompt) + len(answered.ids) > reference.max_tokens:
            return Figures(logprobs, None, None)
        others = reference.logits(prompt, answered.ids)
        parts = zip(own.split(AT_ONCE), others.split(AT_ONCE), strict=True)
        kl = torch.cat([divergences(p, q) for p, q in parts])
        return Figures(logprobs, token_logprobs(others, ids).tolist(), kl.tolist())

    def score(self, asked: Asked, text: str) -> float:
        """The reward model's score. Raises `RewardError`."""
        found: list[float] = self.reward.score([list(asked)], [text], [])
        return found[0]
