"""The models of an evaluation as one asks them: the cache answers where it can; where it cannot, the model is loaded.

Prompts go in portions, each of which is a function of the model, the portion, its number and the seed, whatever was
asked before: that is what makes an evaluation resumable. One model is in memory at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from align import sections
from align.errors import UserError
from align.evals.cache import Cache
from align.models.fingerprint import fingerprint
from align.text.records import plain as as_row

if TYPE_CHECKING:
    from align.generation.sampling import Sampling
    from align.generation.text_model import Asked, Reply, Row, TextModel

PORTION = 256  # prompts; a kill loses at most the answers to so many
LOGPROBS = 256  # rows
SILENCE_S = 10.0  # between lines of progress


class EvalModels:
    """All models by name."""

    def __init__(
        self, models: Mapping[str, sections.PromptedModel], plain: Mapping[str, bool], n: int, cache: Cache
    ) -> None:
        """`plain` says of each model whether it is a base model; `n` is the longest prompt and answer in tokens."""
        self.cache, self.date = cache, date.today()  # which some templates write: one day for all portions
        self._by_name = {name: EvalModel(name, model, plain[name], n, cache, self) for name, model in models.items()}
        self._speaking: tuple[EvalModel, TextModel] | None = None

    def __getitem__(self, name: str) -> EvalModel:
        return self._by_name[name]

    def text_model(self, voice: EvalModel) -> TextModel:
        """The voice's loaded model; whichever was loaded before it leaves the memory first."""
        from align.generation.text_model import TextModel
        from align.text.template import fix_date

        if self._speaking is None or self._speaking[0] is not voice:
            self._speaking = None
            template, options = voice.model.template, voice.model.template_options
            text_model = TextModel(voice.model, voice.max_tokens, voice.plain, template, options)
            fix_date(text_model.tokenizer, self.date)
            self._speaking = voice, text_model
        return self._speaking[1]


class EvalModel:
    """One model: a `TextModel` that remembers what it said."""

    def __init__(
        self, name: str, model: sections.PromptedModel, plain: bool, max_tokens: int, cache: Cache, voices: EvalModels
    ) -> None:
        self.name, self.model, self.plain, self.cache = name, model, plain, cache
        self._voices, self._most = voices, max_tokens

    @cached_property
    def max_tokens(self) -> int:
        """The longest prompt and answer together: what was asked for, or the model's positions if they are fewer."""
        from align.models.load import load_config, max_positions

        return min(self._most, max_positions(load_config(self.model)) or self._most)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that its words depend on, but for what it is asked."""
        packages = {package: version(package) for package in ("torch", "transformers")}
        found = {"model": fingerprint(self.model), "plain": self.plain, "max_tokens": self.max_tokens} | packages
        return found if self.plain else found | self._wording()

    def _wording(self) -> dict[str, Any]:
        """How it is asked, where that is not one of our own templates; and on which day, if that is written."""
        from align.text.chat import is_ours

        template = self.tokenizer.chat_template
        if is_ours(template):
            return {}
        dated = {"date": self._voices.date.isoformat()} if "strftime_now" in str(template) else {}
        return {"template": template} | dated

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, for which the model itself is not needed."""
        from align.text.template import fix_date

        found = tokenizer_of(self.model)
        fix_date(found, self._voices.date)
        return found

    def prompt_ids(self, asked: Sequence[Asked]) -> list[list[int]]:
        """As `TextModel.prompt_ids`."""
        from align.generation.text_model import prompt_ids

        return prompt_ids(self.tokenizer, asked, self.plain)

    def answer(self, asked: Sequence[Asked], how: Sampling, seed: int, stop: str | None = None) -> list[Reply | None]:
        """One answer to each, as `TextModel.answer`."""
        return [reply for portion in self.answers(asked, how, seed, stop) for reply in portion]

    def answers(
        self, asked: Sequence[Asked], how: Sampling, seed: int, stop: str | None = None, portion: int = PORTION
    ) -> Iterator[list[Reply | None]]:
        """The same portion by portion, so that only one needs to be in memory."""
        from align.generation.text_model import Reply

        progress = Progress(self.name, len(asked))
        for number, first in enumerate(range(0, len(asked), portion)):
            now = asked[first : first + portion]
            of = {"answers": self.identity, "how": how._asdict(), "seed": seed, "number": number, "stop": stop}
            of["asked"] = [one if isinstance(one, str) else as_row(tuple(one)) for one in now]
            rows = self.cache.rows(of, partial(self._answered, now, how, (seed, number), stop))
            yield [None if row is None else Reply(*row) for row in rows]
            progress.show(first + len(now))

    def logprobs(self, rows: Sequence[Row]) -> list[list[float]]:
        """log p of each scored token, as `TextModel.logprobs`."""
        found: list[list[float]] = []
        for first in range(0, len(rows), LOGPROBS):
            now = rows[first : first + LOGPROBS]
            of = {"logprobs": self.identity, "rows": [[list(given), list(scored)] for given, scored in now]}
            found += self.cache.rows(of, partial(self._scored, now))
        return found

    def _answered(self, asked: Sequence[Asked], how: Sampling, seed: tuple[int, int], stop: str | None) -> list[Any]:
        return self._voices.text_model(self).answer(asked, how, seed, stop)

    def _scored(self, rows: Sequence[Row]) -> list[list[float]]:
        return self._voices.text_model(self).logprobs(rows)


def tokenizer_of(model: sections.PromptedModel) -> Any:
    """The tokenizer of a model, with the template that it is asked with."""
    from align.text.tokenizer import load_tokenizer

    return load_tokenizer(model.path, model.trust_remote_code, model.template, model.template_options)


def check_template(model: sections.PromptedModel, key: str) -> None:
    """Raises `UserError` that names the key of a recipe, if a model cannot be asked with the template given for it."""
    if model.template is None and not model.template_options:
        return
    try:
        tokenizer_of(model)
    except UserError as error:
        raise UserError(str(error).replace("data.template", f"{key}.template")) from None


class Progress:
    """A line now and then about work that takes long."""

    def __init__(self, what: str, n: int) -> None:
        self.what, self.n = what, n
        self.started = self.shown = time.monotonic()

    def show(self, done: int) -> None:
        """Tells that so many are done, unless something was told a moment ago."""
        now = time.monotonic()
        if now - self.shown > SILENCE_S:
            self.shown = now
            left_s = (now - self.started) / done * (self.n - done)
            print(f"{self.what} {done:,}/{self.n:,}  {left_s:.0f} s left", flush=True)
