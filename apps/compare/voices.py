"""Loaded models that answer a token at a time, and what can be measured of an answer afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from align.errors import UserError
from align.models.language import LanguageModel, divergences, token_logprobs, unspeakable
from align.models.load import load_causal_lm, max_positions
from align.rl.sampling import Sampling, stream
from align.text.encode import decode_response, encode_prompts
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator
from align.train.state import generator

if TYPE_CHECKING:
    from align.text.records import Message
    from apps.compare.recipe import Contestant, Recipe

READ_AT_ONCE = 16384  # tokens that go through a reward model together
WINDOW = 8  # tokens that are decoded with a new one, for its spaces

Asked = Sequence["Message"]


class Answered(NamedTuple):
    """A whole answer, or as much as there is of one that was stopped."""

    text: str  # without special tokens and the space around it
    prompt_ids: list[int]
    ids: list[int]
    end: str  # eos; length: as long as was allowed; room: no positions left; stopped


class Figures(NamedTuple):
    """Of each token of an answer, in nats and at temperature 1."""

    logprobs: list[float]
    reference: list[float] | None  # of the same tokens by the reference; None where its vocabulary is another
    kl: list[float] | None  # KL(model || reference) of the whole distribution that the token was drawn from


class Voice:
    """A model that answers."""

    def __init__(self, name: str, settings: Contestant) -> None:
        self.name, self.plain = name, settings.asked == "plain"
        self.tokenizer = load_tokenizer(settings.path, settings.trust_remote_code)
        self.device = accelerator("fp32").device
        whole = settings.model_copy(update={"adapter": "none"})
        loaded: Any = load_causal_lm(whole, n_tokens=len(self.tokenizer))
        self.model = loaded.to(self.device).eval().requires_grad_(False)
        self.unspeakable = unspeakable(self.tokenizer, self.model)
        self.n_positions = max_positions(self.model.config)
        self.eos = [self.tokenizer.eos_token_id]
        if self.plain:  # a document goes on after the answer; the answer is one line of it
            self.eos += self.tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]

    def prompt_ids(self, asked: Asked) -> list[int]:
        """The turns as this model reads them: through its chat template, or the last one plainly."""
        if not self.plain:
            return encode_prompts(self.tokenizer, [asked])[0]
        first = self.tokenizer.eos_token_id if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id
        return [first, *self.tokenizer(f" {asked[-1].content}\n", add_special_tokens=False)["input_ids"]]

    def answer(
        self, asked: Asked, how: Sampling, seed: int, is_stopped: Callable[[], bool]
    ) -> Iterator[str | Answered]:
        """The pieces of the answer's text, one for each token, then the whole.

        A character may take several tokens: all but the last of them come with "". Raises `UserError` for a prompt
        that leaves no room.
        """
        prompt = self.prompt_ids(asked)
        room = how.max_tokens if self.n_positions is None else self.n_positions - len(prompt)
        if room < 1:
            raise UserError(
                f"the conversation has {len(prompt)} tokens, and this model reads {self.n_positions} with its answer; "
                "begin a new one, or ask a shorter question"
            )
        ids: list[int] = []
        pieces = Pieces(self.tokenizer)
        allowed = how._replace(max_tokens=min(how.max_tokens, room))
        randomness = generator(self.device, seed)
        for token in stream(self.model, prompt, allowed, self.eos, self.unspeakable, randomness):
            ids.append(token)
            yield "" if token in self.eos else pieces.next(token)
            if is_stopped():
                break
        has_ended = bool(ids) and ids[-1] in self.eos
        cut = "stopped" if len(ids) < allowed.max_tokens else "length" if room >= how.max_tokens else "room"
        yield Answered(decode_response(self.tokenizer, ids), prompt, ids, "eos" if has_ended else cut)

    @torch.no_grad()
    def logits(self, prompt: list[int], ids: list[int]) -> torch.Tensor:
        """What each token of an answer was drawn from, in one pass: (n_tokens, vocabulary) at temperature 1."""
        row = torch.tensor([[*prompt, *ids]], device=self.device)
        is_answer = torch.arange(row.shape[1], device=self.device)[None] >= len(prompt)
        found: torch.Tensor = LanguageModel(self.model, self.unspeakable)(row, is_answer)
        return found[:, : len(self.tokenizer)].float()

    def reads_like(self, other: Voice) -> bool:
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

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Voices:
    """All models of a recipe, loaded once and in its order, and its reward model."""

    def __init__(self, recipe: Recipe, told: Callable[[str], None] = lambda _: None) -> None:
        self.by_name: dict[str, Voice] = {}
        for name, settings in recipe.models.items():
            told(f"loading {name} from {settings.path}")
            self.by_name[name] = Voice(name, settings)
        self.reference = None if recipe.kl_reference is None else self.by_name[recipe.kl_reference]
        self.reward: Any = None
        if recipe.reward is not None:
            from align.rl.rewards import ModelReward

            told(f"loading the reward model from {recipe.reward}")
            self.reward = ModelReward(recipe.reward, None, accelerator("fp32").device, READ_AT_ONCE)

    def measure(self, voice: Voice, asked: Asked, answered: Answered) -> Figures:
        """What the model and the reference think of each token; each reads the prompt in its own form."""
        own = voice.logits(answered.prompt_ids, answered.ids)
        ids = torch.tensor(answered.ids, device=own.device)
        logprobs = token_logprobs(own, ids).tolist()
        reference = self.reference
        if reference is None or not voice.reads_like(reference):
            return Figures(logprobs, None, None)
        prompt = reference.prompt_ids(asked)
        if reference.n_positions is not None and len(prompt) + len(answered.ids) > reference.n_positions:
            return Figures(logprobs, None, None)
        others = reference.logits(prompt, answered.ids)
        return Figures(logprobs, token_logprobs(others, ids).tolist(), divergences(own, others).tolist())

    def score(self, asked: Asked, text: str) -> float:
        """The reward model's score. Raises `RewardError`."""
        found: list[float] = self.reward.score([list(asked)], [text], [])
        return found[0]
