"""Loaded models that stream answers token by token, and the figures of a finished answer."""

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

READ_AT_ONCE = 16384  # tokens per pass of the reward model
AT_ONCE = 64  # positions compared at once
WINDOW = 8  # previous tokens decoded with a new one, so that its spaces are right

Conversation = Sequence["Message"]


class Thought(str):
    """A piece of the thoughts before an answer."""


class StreamedAnswer(NamedTuple):
    """A complete answer, or the part that exists of a stopped one."""

    text: str  # without thoughts, special tokens and surrounding space
    thoughts: str
    prompt_ids: list[int]
    ids: list[int]
    rest: str  # text that was in no piece: bytes that form no complete character
    end: str  # eos; length: max_tokens reached; room: no positions left; stopped


class Figures(NamedTuple):
    """Figures of each token of an answer, in nats, at temperature 1."""

    logprobs: list[float]
    reference: list[float] | None  # the reference's log probabilities; None if its vocabulary differs
    kl: list[float] | None  # KL(model || reference) over the whole vocabulary at each token


class StreamingModel:
    """A model that streams answers; `TextModel` loads it and formats its prompts."""

    def __init__(self, name: str, settings: sections.ComparedModel, most_tokens: int) -> None:
        self.name = name
        plain, options = settings.asked == "plain", settings.template_options
        self.text_model = TextModel(settings, most_tokens, plain, settings.template, options)
        self.tokenizer, self.max_tokens = self.text_model.tokenizer, self.text_model.max_tokens
        self.eos = [*ends_of(self.tokenizer).ids]
        if self.text_model.plain:  # in a plain document the answer is one line
            self.eos += self.tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]

    def prompt_ids(self, messages: Conversation) -> list[int]:
        """The conversation as this model's tokens. Raises `UserError` if its template refuses the messages."""
        return self.text_model.prompt_ids([messages])[0]

    def answer(
        self, messages: Conversation, how: Sampling, seed: int, is_stopped: Callable[[], bool]
    ) -> Iterator[str | StreamedAnswer]:
        """Yields the text of thoughts and answer in pieces, one per token, then the complete answer.

        If a character takes several tokens, all except its last one give "". Raises `UserError` if the prompt leaves no
        room for an answer.
        """
        prompt = self.prompt_ids(messages)
        room = self.max_tokens - len(prompt)
        if room < 1:
            raise UserError(
                f"The conversation has {len(prompt)} tokens; the limit with the answer is {self.max_tokens}. Start a "
                "new conversation or ask a shorter question."
            )
        ids: list[int] = []
        decoded = DecodedAnswer("")
        pieces = StreamDecoder(self.tokenizer)
        allowed = how._replace(max_tokens=min(how.max_tokens, room))
        text_model = self.text_model
        tokens = stream(text_model.model, prompt, allowed, self.eos, text_model.never_sampled, text_model.rng(seed))
        for token in tokens:
            ids.append(token)
            piece = "" if token in self.eos else pieces.next(token)
            if not decoded.text:  # thoughts come first: after the answer's first words, everything is answer
                decoded = decode_answer(self.tokenizer, ids, prompt)
            is_thought = not decoded.text and bool(decoded.thoughts or piece.strip())  # thought marks belong to neither
            yield Thought(piece) if is_thought else piece
            if is_stopped():
                break
        has_ended = bool(ids) and ids[-1] in self.eos
        cut = "stopped" if len(ids) < allowed.max_tokens else "length" if room >= how.max_tokens else "room"
        decoded = decode_answer(self.tokenizer, ids, prompt)
        yield StreamedAnswer(decoded.text, decoded.thoughts, prompt, ids, pieces.rest(), "eos" if has_ended else cut)

    @torch.no_grad()
    def logits(self, prompt: list[int], ids: list[int]) -> torch.Tensor:
        """The logits that each answer token was drawn from, in one pass: (n_tokens, vocabulary) at temperature 1."""
        row = torch.tensor([[*prompt, *ids]], device=self.text_model.accelerator.device)
        is_answer = torch.arange(row.shape[1], device=row.device)[None] >= len(prompt)
        found: torch.Tensor = LanguageModel(self.text_model.model, self.text_model.never_sampled)(row, is_answer)
        return found[:, : rows_needed(self.tokenizer)].float()

    def same_vocabulary(self, other: StreamingModel) -> bool:
        """Whether both have the same vocabulary, so that each can score the other's answers."""
        return self.tokenizer.get_vocab() == other.tokenizer.get_vocab()


class StreamDecoder:
    """Decodes tokens as they arrive. Bytes of an incomplete character wait for the rest."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._text = ""  # the part of `_ids` that was already given out as text

    def next(self, token: int) -> str:
        """The text that a token adds."""
        self._ids.append(token)
        text = self._decoded()
        if text.endswith("�") and len(self._ids) < 4 * WINDOW:
            return ""
        piece = text[len(self._text) :]
        self._ids = self._ids[-WINDOW:]
        self._text = self._decoded()
        return piece

    def rest(self) -> str:
        """The text still waiting."""
        return self._decoded()[len(self._text) :]

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class StreamingModels:
    """All models of a recipe, loaded once in its order, and its reward model."""

    def __init__(self, recipe: Recipe, report: Callable[[str], None] = lambda _: None) -> None:
        self.by_name: dict[str, StreamingModel] = {}
        for name, settings in recipe.models.items():
            report(f"loading {name} from {settings.path}")
            self.by_name[name] = StreamingModel(name, settings, recipe.conversation_tokens)
        self.reference = None if recipe.kl_reference is None else self.by_name[recipe.kl_reference]
        self.reward: Any = None
        if recipe.reward is not None:
            from align.rewards.model import ModelReward

            report(f"loading the reward model from {recipe.reward}")
            self.reward = ModelReward(recipe.reward, None, accelerator("fp32").device, READ_AT_ONCE)

    def measure(self, model: StreamingModel, messages: Conversation, answered: StreamedAnswer) -> Figures:
        """The model's and the reference's figures of each token; each formats the prompt in its own way."""
        own = model.logits(answered.prompt_ids, answered.ids)
        ids = torch.tensor(answered.ids, device=own.device)
        logprobs = token_logprobs(own, ids).tolist()
        reference = self.reference
        if reference is None or not model.same_vocabulary(reference):
            return Figures(logprobs, None, None)
        prompt = reference.prompt_ids(messages)
        if len(prompt) + len(answered.ids) > reference.max_tokens:
            return Figures(logprobs, None, None)
        others = reference.logits(prompt, answered.ids)
        parts = zip(own.split(AT_ONCE), others.split(AT_ONCE), strict=True)
        kl = torch.cat([divergences(p, q) for p, q in parts])
        return Figures(logprobs, token_logprobs(others, ids).tolist(), kl.tolist())

    def score(self, messages: Conversation, text: str) -> float:
        """The reward model's score. Raises `RewardError`."""
        found: list[float] = self.reward.score([list(messages)], [text], [])
        return found[0]
