"""Models of an evaluation: completions and log probabilities, from the cache if known, else from the loaded model.

Prompts are answered in portions. A portion depends only on the model, its prompts, its number and the seed, so an
evaluation can resume. One model is in memory at a time.
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
    from align.generation.text_model import Completion, PromptLike, Row, TextModel

PORTION = 256  # prompts; an interrupted run loses at most these answers
LOGPROBS = 256  # rows
SILENCE_S = 10.0  # between lines of progress


class EvalModels:
    """All models by name."""

    def __init__(
        self, models: Mapping[str, sections.PromptedModel], plain: Mapping[str, bool], n: int, cache: Cache
    ) -> None:
        """`plain`: whether each model is a base model. `n`: most tokens of prompt and answer together."""
        self.cache, self.date = cache, date.today()  # some chat templates write the date: one day for all portions
        self._by_name = {name: EvalModel(name, model, plain[name], n, cache, self) for name, model in models.items()}
        self._loaded: tuple[EvalModel, TextModel] | None = None

    def __getitem__(self, name: str) -> EvalModel:
        return self._by_name[name]

    def text_model(self, model: EvalModel) -> TextModel:
        """Load a model; the one loaded before leaves memory first."""
        from align.generation.text_model import TextModel
        from align.text.template import fix_date

        if self._loaded is None or self._loaded[0] is not model:
            self._loaded = None
            template, options = model.model.template, model.model.template_options
            text_model = TextModel(model.model, model.max_tokens, model.plain, template, options)
            fix_date(text_model.tokenizer, self.date)
            self._loaded = model, text_model
        return self._loaded[1]


class EvalModel:
    """One model: a `TextModel` whose results are cached."""

    def __init__(
        self, name: str, model: sections.PromptedModel, plain: bool, max_tokens: int, cache: Cache, models: EvalModels
    ) -> None:
        self.name, self.model, self.plain, self.cache = name, model, plain, cache
        self._models, self._max_tokens = models, max_tokens

    @cached_property
    def max_tokens(self) -> int:
        """Most tokens of prompt and answer together; at most the model's positions."""
        from align.models.load import load_config, max_positions

        return min(self._max_tokens, max_positions(load_config(self.model)) or self._max_tokens)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that its completions depend on, except the prompts."""
        packages = {package: version(package) for package in ("torch", "transformers")}
        found = {"model": fingerprint(self.model), "plain": self.plain, "max_tokens": self.max_tokens} | packages
        return found if self.plain else found | self._wording()

    def _wording(self) -> dict[str, Any]:
        """The chat template, unless it is one of ours; and the date, if the template writes it."""
        from align.text.chat import is_ours

        template = self.tokenizer.chat_template
        if is_ours(template):
            return {}
        dated = {"date": self._models.date.isoformat()} if "strftime_now" in str(template) else {}
        return {"template": template} | dated

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer; the model need not be loaded."""
        from align.text.template import fix_date

        found = tokenizer_of(self.model)
        fix_date(found, self._models.date)
        return found

    def prompt_ids(self, prompts: Sequence[PromptLike]) -> list[list[int]]:
        """As `TextModel.prompt_ids`."""
        from align.generation.text_model import prompt_ids

        return prompt_ids(self.tokenizer, prompts, self.plain)

    def answer(
        self, prompts: Sequence[PromptLike], how: Sampling, seed: int, stop: str | None = None
    ) -> list[Completion | None]:
        """One completion per prompt, as `TextModel.answer`."""
        return [completion for portion in self.answers(prompts, how, seed, stop) for completion in portion]

    def answers(
        self, prompts: Sequence[PromptLike], how: Sampling, seed: int, stop: str | None = None, portion: int = PORTION
    ) -> Iterator[list[Completion | None]]:
        """The same, portion by portion, so that only one portion is in memory."""
        from align.generation.text_model import Completion

        progress = Progress(self.name, len(prompts))
        for number, first in enumerate(range(0, len(prompts), portion)):
            now = prompts[first : first + portion]
            of = {"answers": self.identity, "how": how._asdict(), "seed": seed, "number": number, "stop": stop}
            of["prompts"] = [one if isinstance(one, str) else as_row(tuple(one)) for one in now]
            rows = self.cache.rows(of, partial(self._answered, now, how, (seed, number), stop))
            yield [None if row is None else Completion(*row) for row in rows]
            progress.show(first + len(now))

    def logprobs(self, rows: Sequence[Row]) -> list[list[float]]:
        """log p of each scored token, as `TextModel.logprobs`."""
        found: list[list[float]] = []
        for first in range(0, len(rows), LOGPROBS):
            now = rows[first : first + LOGPROBS]
            of = {"logprobs": self.identity, "rows": [[list(given), list(scored)] for given, scored in now]}
            found += self.cache.rows(of, partial(self._scored, now))
        return found

    def _answered(
        self, prompts: Sequence[PromptLike], how: Sampling, seed: tuple[int, int], stop: str | None
    ) -> list[Any]:
        return self._models.text_model(self).answer(prompts, how, seed, stop)

    def _scored(self, rows: Sequence[Row]) -> list[list[float]]:
        return self._models.text_model(self).logprobs(rows)


def tokenizer_of(model: sections.PromptedModel) -> Any:
    """A model's tokenizer, with the recipe's template."""
    from align.text.tokenizer import load_tokenizer

    return load_tokenizer(model.path, model.trust_remote_code, model.template, model.template_options)


def check_template(model: sections.PromptedModel, key: str) -> None:
    """Raise `UserError`, naming `key`, if the model's tokenizer cannot use its template."""
    if model.template is None and not model.template_options:
        return
    try:
        tokenizer_of(model)
    except UserError as error:
        raise UserError(str(error).replace("data.template", f"{key}.template")) from None


class Progress:
    """Prints progress of long work, at most every `SILENCE_S` seconds."""

    def __init__(self, what: str, n: int) -> None:
        self.what, self.n = what, n
        self.started = self.shown = time.monotonic()

    def show(self, done: int) -> None:
        """Print the number done, unless a line was printed recently."""
        now = time.monotonic()
        if now - self.shown > SILENCE_S:
            self.shown = now
            left_s = (now - self.started) / done * (self.n - done)
            print(f"{self.what} {done:,}/{self.n:,}  {left_s:.0f} s left", flush=True)
