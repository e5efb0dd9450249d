"""Another language model as a judge, at an OpenAI-compatible address: POST <url>/chat/completions.

It reads both answers twice, each of them first once, and only what it says both times counts: language models prefer
what they read first (Zheng et al. 2023, 2306.05685). If the two verdicts differ it is a tie. How often that happens is
kept in `Verdict.orders`, for `align.stats.preferences.order_bias`. Equal answers are a tie without being asked about.

A reply without a verdict is asked about once more; then this prompt has none, and so has a prompt that the server
refuses (too long, or filtered). A server that refuses everything, or is still down after all retries, ends the judging.
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
from align.judges.verdicts import Prompts, Said, Verdict
from align.rewards.http import Refused, Server, Unanswered, shown
from align.shipped import own_or_shipped

if TYPE_CHECKING:
    from align.text.records import Message

OUTCOMES = {"A": 1.0, "B": 0.0, "C": 0.5}  # for the answer shown as A
ABOUT_THIS_PROMPT = (200, 400, 413, 422)  # statuses of a refusal; 200: the reply was too large
ENOUGH = 3  # prompts that fail one after another, and the judge is down
QUOTED = 4000  # characters of a reply without verdict that it is shown again


class _Failed(Exception):
    """No verdict on this prompt."""

    def __init__(self, trouble: str, again: bool = False) -> None:
        super().__init__(trouble)
        self.again = again  # the trouble may pass


class LlmJudge:
    """A language model that compares two answers.

    Args:
        name: where the judge stands in the recipe, for messages: judges.gpt.
        settings: its keys.
    """

    def __init__(self, name: str, settings: Llm) -> None:
        self.name, self.settings = f"{name}.llm", settings
        if not own_or_shipped(settings.template).is_file():
            raise UserError(
                f"{self.name}.template = {settings.template}: no such file; name one that says how to judge"
            )
        self.template = read_template(settings.template)
        self._key = _key(self.name, settings.key_env)
        self._asked: dict[str, Any] = {"model": settings.model, "temperature": 0, "max_tokens": settings.max_tokens}
        self._asked = {key: value for key, value in (self._asked | settings.body).items() if value is not None}
        of = [settings.url, self._asked, self.template.model_dump()]
        self.fingerprint = f"llm {hashlib.blake2b(json.dumps(of, sort_keys=True).encode(), digest_size=16).hexdigest()}"
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else None
        try:
            self._server = Server(f"{settings.url}/chat/completions", settings.timeout_s, settings.retries, headers)
        except httpx.InvalidURL as error:
            raise UserError(f"{self.name}.url = {settings.url!r} is no address: {error}") from None
        self._lock = threading.Lock()
        self._n_silent = 0  # prompts that were not answered, one after another
        self._n_refused = 0
        self._has_replied = False
        self._ended: JudgeError | None = None

    def compare(self, prompts: Prompts, first: Said, second: Said) -> list[Verdict]:
        """The verdicts. Raises `JudgeError` if the server is down, or refuses the key, the model or everything."""
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
            ahead = self._outcome(prompt, first, second)
            behind = 1 - self._outcome(prompt, second, first)
        except _Failed as failure:
            return Verdict(None, str(failure), again=failure.again)
        return Verdict(ahead if ahead == behind else 0.5, orders=(ahead, behind))

    def _outcome(self, prompt: Sequence[Message], answer_a: str, answer_b: str) -> float:
        """1 if the judge prefers the answer that it is shown as A."""
        turns = question(self.template, prompt, answer_a, answer_b)
        reply, why = self._reply(turns)
        found = verdict_in(reply)
        if found is None:
            turns += [{"role": "assistant", "content": reply[-QUOTED:]}] if reply.strip() else []
            reply, why = self._reply([*turns, {"role": "user", "content": self.template.again}])
            found = verdict_in(reply)
        if found is None:
            cut = f"; it was cut at {self.name}.max_tokens (now {self.settings.max_tokens})" if why == "length" else ""
            raise _Failed(f"answered nonsense: {self._safe(repr(reply[-100:]) if reply else 'nothing')}{cut}")
        return OUTCOMES[found]

    def _reply(self, turns: list[dict[str, str]]) -> tuple[str, str]:
        """What it said, and why it ended there."""
        try:
            content = self._server.ask(self._asked | {"messages": turns}).content
        except Unanswered as silence:
            raise self._silent(str(silence)) from None
        except Refused as refusal:
            if refusal.status in ABOUT_THIS_PROMPT:
                raise self._refused(str(refusal)) from None
            raise self._end(f"{refusal}{self._remedy(refusal.status)}") from None
        try:
            choice = json.loads(content)["choices"][0]
            reply, why = choice["message"].get("content") or "", str(choice.get("finish_reason"))
            if not isinstance(reply, str):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._refused(f"answered {shown(content)}, which is no chat completion") from None
        with self._lock:
            self._n_silent, self._has_replied = 0, True
        return reply, why

    def _silent(self, trouble: str) -> Exception:
        with self._lock:
            self._n_silent += 1
            is_down = self._n_silent >= ENOUGH or trouble.startswith("cannot be reached")
        if not is_down:
            return _Failed(self._safe(trouble), again=True)
        return self._end(
            f"{trouble}. See that {self.settings.url} runs and answers, then raise timeout_s (now "
            f"{self.settings.timeout_s:g}) or retries (now {self.settings.retries}), or lower concurrency (now "
            f"{self.settings.concurrency})"
        )

    def _refused(self, trouble: str) -> Exception:
        with self._lock:
            self._n_refused += 1
            refuses_all = self._n_refused >= ENOUGH and not self._has_replied
        if not refuses_all:
            return _Failed(self._safe(trouble))
        return self._end(
            f"refuses every prompt: {trouble}. See that url and model are right, and that body and max_tokens are keys "
            "that this server takes"
        )

    def _remedy(self, status: int) -> str:
        variable = self.settings.key_env
        refuses_key = (
            f". It refuses the key in {variable}" if variable else ". Name the variable with its key as key_env"
        )
        known = {401: refuses_key, 403: refuses_key}
        known[404] = (
            f". Is {self.settings.model!r} a model there, and does /chat/completions follow {self.settings.url}?"
        )
        return known.get(status, ". See the server's own log")

    def _end(self, trouble: str) -> JudgeError:
        self._ended = JudgeError(self._safe(f"{self.name} {trouble}"))
        return self._ended

    def _safe(self, text: str) -> str:
        """A message without the key, should the server repeat it."""
        return text.replace(self._key, "***") if self._key else text


def _key(name: str, variable: str | None) -> str:
    if variable is None:
        return ""
    if not (key := os.environ.get(variable, "").strip()):
        raise UserError(f"{name}.key_env = {variable}: no such variable in the environment; set it to the key")
    return key
