"""LLM judge: a language model at an OpenAI-compatible address compares two answers. POST <url>/chat/completions.

The judge reads both answers in both orders, and a verdict counts only if both agree, since language models prefer the
answer that they read first (Zheng et al. 2023, 2306.05685). If the two verdicts differ, it is a tie. `Verdict.orders`
records both, for `align.stats.preferences.order_bias`. Equal answers are a tie without a request.

After a reply without a verdict the judge is asked once more; then the prompt has no verdict. The same holds for a
prompt that the server refuses (too long, or filtered). If a server refuses everything, or is down after all retries,
the judge stops.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx

from align.errors import JudgeError, UserError
from align.judges.settings import Llm
from align.judges.template import question, read_template, verdict_in
from align.judges.verdicts import ModelAnswers, Prompts, Verdict
from align.rewards.http import NoResponse, RequestRefused, Server, excerpt
from align.shipped import own_or_shipped

if TYPE_CHECKING:
    from align.text.records import Message

OUTCOMES = {"A": 1.0, "B": 0.0, "C": 0.5}  # outcome for the answer shown as A
ABOUT_THIS_PROMPT = (200, 400, 413, 422)  # status codes that concern one prompt; 200: the reply was too large
ENOUGH = 3  # consecutive failed prompts after which the judge counts as down
QUOTED = 4000  # characters of a reply without verdict that are sent back


class _Failed(Exception):
    """No verdict on this prompt."""

    def __init__(self, error: str, again: bool = False) -> None:
        super().__init__(error)
        self.again = again  # the error may pass


class LlmJudge:
    """A language model that compares two answers.

    Args:
        name: the judge's key in the recipe, for messages: judges.gpt.
        settings: its recipe section.
    """

    def __init__(self, name: str, settings: Llm) -> None:
        self.name, self.settings = f"{name}.llm", settings
        if not own_or_shipped(settings.template).is_file():
            raise UserError(
                f"{self.name}.template = {settings.template}: no such file; give one such as data/prompts/judge.yaml"
            )
        self.template = read_template(settings.template)
        self._key = _key(self.name, settings.key_env)
        self._request: dict[str, Any] = {"model": settings.model, "temperature": 0, "max_tokens": settings.max_tokens}
        self._request = {key: value for key, value in (self._request | settings.body).items() if value is not None}
        of = [settings.url, self._request, self.template.model_dump()]
        self.fingerprint = f"llm {hashlib.blake2b(json.dumps(of, sort_keys=True).encode(), digest_size=16).hexdigest()}"
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else None
        try:
            self._server = Server(f"{settings.url}/chat/completions", settings.timeout_s, settings.retries, headers)
        except httpx.InvalidURL as error:
            raise UserError(f"{self.name}.url = {settings.url!r} is not a valid address: {error}") from None
        self._lock = threading.Lock()
        self._n_silent = 0  # consecutive prompts without a response
        self._n_refused = 0
        self._has_replied = False
        self._ended: JudgeError | None = None

    def compare(self, prompts: Prompts, first: ModelAnswers, second: ModelAnswers) -> list[Verdict]:
        """One verdict per prompt. Raises `JudgeError` if the server is down or refuses the key, the model or all."""
        rows = list(zip(prompts, first.texts, second.texts, strict=True))
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            waiting = [pool.submit(self._verdict, *row) for row in rows]
            try:
                return [one.result() for one in waiting]
            except BaseException:  # Ctrl-C too
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _verdict(self, prompt: Sequence[Message], first: str, second: str) -> Verdict:
        if self._ended is not None:
            raise self._ended
        if first == second:
            return Verdict(0.5)
        try:
            shown_first = self._outcome(prompt, first, second)
            shown_second = 1 - self._outcome(prompt, second, first)
        except _Failed as failure:
            return Verdict(None, str(failure), again=failure.again)
        return Verdict(shown_first if shown_first == shown_second else 0.5, orders=(shown_first, shown_second))

    def _outcome(self, prompt: Sequence[Message], answer_a: str, answer_b: str) -> float:
        """1 if the judge prefers the answer shown as A, 0 for B, 0.5 for a tie."""
        messages = question(self.template, prompt, answer_a, answer_b)
        reply, finish_reason = self._reply(messages)
        found = verdict_in(reply)
        if found is None:
            messages += [{"role": "assistant", "content": reply[-QUOTED:]}] if reply.strip() else []
            reply, finish_reason = self._reply([*messages, {"role": "user", "content": self.template.again}])
            found = verdict_in(reply)
        if found is None:
            cut = (
                f"; it was cut at {self.name}.max_tokens (now {self.settings.max_tokens})"
                if finish_reason == "length"
                else ""
            )
            raise _Failed(f"answered nonsense: {self._safe(repr(reply[-100:]) if reply else 'nothing')}{cut}")
        return OUTCOMES[found]

    def _reply(self, messages: list[dict[str, str]]) -> tuple[str, str]:
        """What it said, and finish_reason it ended there."""
        try:
            content = self._server.post(self._request | {"messages": messages}).content
        except NoResponse as no_response:
            raise self._unanswered(str(no_response)) from None
        except RequestRefused as refusal:
            if refusal.status in ABOUT_THIS_PROMPT:
                raise self._refused(str(refusal)) from None
            raise self._end(f"{refusal}{self._remedy(refusal.status)}") from None
        try:
            choice = json.loads(content)["choices"][0]
            reply, finish_reason = choice["message"].get("content") or "", str(choice.get("finish_reason"))
            if not isinstance(reply, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._refused(f"answered {excerpt(content)}, which is no chat completion") from None
        with self._lock:
            self._n_silent, self._has_replied = 0, True
        return reply, finish_reason

    def _unanswered(self, error: str) -> Exception:
        with self._lock:
            self._n_silent += 1
            is_down = self._n_silent >= ENOUGH or error.startswith("cannot be reached")
        if not is_down:
            return _Failed(self._safe(error), again=True)
        return self._end(
            f"{error}. Check that {self.settings.url} runs and responds; then raise timeout_s (now "
            f"{self.settings.timeout_s:g}) or retries (now {self.settings.retries}), or lower concurrency (now "
            f"{self.settings.concurrency})"
        )

    def _refused(self, error: str) -> Exception:
        with self._lock:
            self._n_refused += 1
            refuses_all = self._n_refused >= ENOUGH and not self._has_replied
        if not refuses_all:
            return _Failed(self._safe(error))
        return self._end(
            f"refuses every prompt: {error}. Check url and model, and that the server accepts the keys in "
            "body and max_tokens"
        )

    def _remedy(self, status: int) -> str:
        variable = self.settings.key_env
        refuses_key = (
            f". It refuses the key in {variable}"
            if variable
            else ". Set key_env to the environment variable with its key"
        )
        known = {401: refuses_key, 403: refuses_key}
        known[404] = f". Check the model {self.settings.model!r} and the address {self.settings.url}/chat/completions"
        return known.get(status, ". See the server's own log")

    def _end(self, error: str) -> JudgeError:
        self._ended = JudgeError(self._safe(f"{self.name} {error}"))
        return self._ended

    def _safe(self, text: str) -> str:
        """The message with the API key masked, in case the server repeats it."""
        return text.replace(self._key, "***") if self._key else text


def _key(name: str, variable: str | None) -> str:
    if variable is None:
        return ""
    if not (key := os.environ.get(variable, "").strip()):
        raise UserError(f"{name}.key_env = {variable}: no such variable in the environment; set it to the key")
    return key
