"""A tokenizer's chat template, asked with what it was found to want, and told in words when it refuses.

Published templates differ in more than their words. Some want a content as parts, `[{"type": "text", "text": ...}]`;
thoughts go by several keys; calls want their arguments as an object or as JSON; some write nothing of a turn that they
do not know. What a template wants is tried once on made-up turns. What it wrote of real turns is looked for.
"""

from __future__ import annotations

import datetime
import json
import re
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from align.errors import UserError
from align.text.records import Message
from align.text.values import n_shared

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = tuple[Message, ...]

THOUGHTS_KEYS = ("reasoning_content", "thinking", "reasoning", "thought")
THOUGHT_MARKS = (  # how thoughts are written in a content
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
)
_KEPT = "_align_template"  # in the tokenizer's memory, not in its files
_DATE = "_align_date"
_USER, _ANSWER, _THOUGHT, _TOOL = "zquserqz", "zqanswerqz", "zqthoughtqz", "zqtoolqz"  # stand in no template


class Marks(NamedTuple):
    """What a template writes around thoughts. All are stripped of the space around them."""

    opening: str  # before the thoughts, also where the generation prompt has it
    closing: str  # between thoughts and answer
    lead: str  # before an answer without thoughts


class Template:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.chat_template is None:
            raise UserError("this tokenizer has no chat template; load it with align.text.tokenizer.load_tokenizer")
        self._tokenizer = tokenizer
        self._parts = False
        self._arguments_as_text = False
        self.thoughts_key = ""  # the key that it reads thoughts from; "parts" for parts of the content; "" for none
        self._try_contents()
        self._try_thoughts()
        self._try_calls()

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Template:
        """The template as it was found, tried once for each tokenizer and template."""
        kept: dict[str, Template] = vars(tokenizer).setdefault(_KEPT, {})
        key = str(tokenizer.chat_template)
        if key not in kept:
            kept[key] = cls(tokenizer)
        found = kept[key]
        found._tokenizer = tokenizer  # a copy of a tokenizer has a copy of what was found
        return found

    def write(self, turns: Messages, add_generation_prompt: bool) -> str:
        """The turns as one text. Raises `UserError` that says why the template refuses them, and what helps."""
        try:
            return self._rendered(turns, add_generation_prompt)
        except Exception as error:  # templates fail with errors of Jinja, of Python, and of their own
            raise _refused(turns, error) from None

    def _rendered(self, turns: Messages, add_generation_prompt: bool) -> str:
        tools, said = taken_off(turns)
        text = self._tokenizer.get_chat_template(tools=tools)
        date = vars(self._tokenizer).get(_DATE)
        written = self._tokenizer.apply_chat_template(
            [self._given(turn) for turn in said],
            tools=tools,
            chat_template=_dated(text, date) if date and "strftime_now" in text else text,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return str(written)

    def _given(self, turn: Message) -> dict[str, Any]:
        """A turn as this template wants it."""
        if not (self._parts or any(turn[2:6])):
            return {"role": turn.role, "content": turn.content}
        given = turn.as_dict()
        given.pop("weight", None)
        thoughts = given.pop("reasoning_content", "")
        parts = [{"type": "text", "text": turn.content}] if self._parts else None
        if thoughts and self.thoughts_key == "parts":
            parts = [{"type": "thinking", "thinking": thoughts}, {"type": "text", "text": turn.content}]
        elif thoughts and self.thoughts_key:
            given[self.thoughts_key] = thoughts
        if parts is not None:
            given["content"] = parts
        if self._arguments_as_text:
            for call in given.get("tool_calls", ()):
                called = call.get("function", call)
                called["arguments"] = json.dumps(called.get("arguments"), ensure_ascii=False)
        return given

    def _try_contents(self) -> None:
        for self._parts in (False, True):
            if _USER in self._tried(Message("user", _USER)):
                return
        self._parts = False  # what it refuses is told where it is asked

    def _try_thoughts(self) -> None:
        asked = (Message("user", _USER), Message("assistant", _ANSWER, _THOUGHT))
        for self.thoughts_key in (*THOUGHTS_KEYS, "parts"):
            written = self._tried(*asked)
            if _ANSWER in written.partition(_THOUGHT)[2] and "'type'" not in written:  # parts, printed as a list
                return
        self.thoughts_key = ""

    def _try_calls(self) -> None:
        """Some templates add arguments to a text, and fail with an object; some would write it as Python does."""
        called = {"name": _TOOL, "arguments": {_ANSWER: "x"}}
        calls = json.dumps([{"id": "abcdefghi", "type": "function", "function": called}])  # Mistral's ids have nine
        asked = (Message("user", _USER), Message("assistant", "", calls=calls))
        for self._arguments_as_text in (False, True):
            written = self._tried(*asked)
            if _ANSWER in written and f"'{_ANSWER}'" not in written:
                return
        self._arguments_as_text = False

    def _tried(self, *turns: Message, add_generation_prompt: bool = False) -> str:
        """What it writes of made-up turns; "" where it refuses them."""
        try:
            return self._rendered(turns, add_generation_prompt)
        except Exception:
            return ""

    @cached_property
    def writes_tools(self) -> bool:
        """Whether it writes the tools that it is given."""
        described = {"name": _TOOL, "description": _TOOL, "parameters": {"type": "object", "properties": {}}}
        tools = json.dumps([{"type": "function", "function": described}])
        return _TOOL in self._tried(Message("tools", tools), Message("user", _USER))

    def closer_of(self, between: bool = False) -> str:
        """What it writes after an answer; with `between`, after one that another turn of the user follows."""
        turns = [Message("user", _USER), Message("assistant", _ANSWER)]
        written = self._tried(*turns, *turns[: int(between)])
        _, answer, after = written.rpartition(_ANSWER)
        return after.partition(_USER)[0] if answer else ""

    @cached_property
    def marks(self) -> Marks:
        """What stands around thoughts. Where it reads none, markers that its tokenizer has a token for."""
        asked = Message("user", _USER)
        prompt = self._tried(asked, add_generation_prompt=True)
        plain = self._tried(asked, Message("assistant", _ANSWER))
        lead = plain.removeprefix(prompt).partition(_ANSWER)[0] if plain.startswith(prompt) else ""
        if self.thoughts_key:
            written = self._tried(asked, Message("assistant", _ANSWER, _THOUGHT))
            before, _, after = written.partition(_THOUGHT)
            opening = before[n_shared(prompt, before) :].strip() or opened_by(before)
            return Marks(opening, after.partition(_ANSWER)[0].strip(), lead.strip())
        known = {token.content for token in self._tokenizer.added_tokens_decoder.values()}
        for opening, closing in THOUGHT_MARKS:
            if {opening, closing} <= known or opened_by(prompt) == opening:
                return Marks(opening, closing, lead.strip())
        return Marks("", "", lead.strip())


def fix_date(tokenizer: PreTrainedTokenizerBase, date: datetime.date) -> None:
    """Templates that write today's date (`strftime_now`) write this one, as long as the tokenizer is in memory."""
    vars(tokenizer)[_DATE] = datetime.datetime.combine(date, datetime.time())


def share_date(tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> None:
    """The date that was fixed for a tokenizer holds for another one of the same run, a reward model's."""
    if date := vars(other).get(_DATE):
        vars(tokenizer)[_DATE] = date


@lru_cache
def _dated(template: str, date: datetime.datetime) -> str:
    """A template for which `strftime_now` is a macro that knows one moment."""
    known = "".join(f" | replace('%{one}', '{date.strftime('%' + one)}')" for one in _DIRECTIVES.split())
    return "{% macro strftime_now(format) %}{{ format" + known + " }}{% endmacro %}{{ '' }}" + template


def use_template(
    tokenizer: PreTrainedTokenizerBase, file: str | None = None, options: dict[str, Any] | None = None
) -> None:
    """Gives a tokenizer the template in a file, and values of its variables; `save_pretrained` keeps both.

    Options are written before the template, as defaults: who passes a variable still decides.
    Raises `UserError` for a file that is not there or no template, and for an option that the template does not read.
    """
    if file is not None:
        tokenizer.chat_template = _template_in(file)
    if not options:
        return
    given = tokenizer.chat_template
    templates = given if isinstance(given, dict) else {"default": given}
    read = set().union(*(_variables(text, "the chat template") for text in templates.values()))
    if unknown := sorted(set(options) - read):
        known = ", ".join(sorted(read - _ALWAYS_GIVEN)) or "none"
        raise UserError(f"data.template_options: this template does not read {', '.join(unknown)}; it reads {known}")
    defaults = "".join(
        f"{{% set {name} = {name} if {name} is defined else {_literal(value)} %}}" for name, value in options.items()
    )
    with_options = {name: defaults + "{{ '' }}" + text for name, text in templates.items()}  # '' keeps a line's start
    tokenizer.chat_template = with_options if isinstance(given, dict) else with_options["default"]


# Of strftime, but for zones, which a day has not. Those with a dash write numbers without a zero before them.
_DIRECTIVES = "a A b B c C d D e F G h H I j m M p r R S T u U V w W x X y Y -d -e -m -y -H -I -j -M -S"
_ALWAYS_GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now"}
_ALWAYS_GIVEN |= {"bos_token", "eos_token", "pad_token", "unk_token"}


def _template_in(file: str) -> str:
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.template: cannot read {file}: {error}; name a text file with a chat template") from None
    _variables(text, f"data.template: {file}")
    return text


def _variables(template: str, where: str) -> set[str]:
    """The variables that a template reads. Raises `UserError` for one that is not valid Jinja."""
    from jinja2 import TemplateSyntaxError, meta
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        return set(meta.find_undeclared_variables(_compile_jinja_template(template).environment.parse(template)))
    except TemplateSyntaxError as error:
        raise UserError(f"{where}, line {error.lineno}: no valid Jinja template: {error.message}") from None


def _literal(value: Any) -> str:
    """A value as Jinja writes it, whose words are JSON's but for one."""
    return "none" if value is None else json.dumps(value)


def taken_off(turns: Messages) -> tuple[list[Any] | None, Messages]:
    """The tools of a conversation, and its turns without the one that holds them."""
    if turns and turns[0].role == "tools":
        return json.loads(turns[0].content), turns[1:]
    return None, turns


def _refused(turns: Messages, error: Exception) -> UserError:
    roles = [turn.role for turn in turns if turn.role != "tools"]
    spoken = [role for role in roles if role != "system"]
    helps = []
    if "system" in roles:
        helps.append("data.system=merge (or drop), if it has no system turns")
    if any(one == other for one, other in pairwise(spoken)):
        helps.append("data.same_role=join, if turns must alternate")
    if spoken[:1] == ["assistant"]:
        helps.append("data.first_assistant=drop, if the user must begin")
    helps.append("data.template, a template of your own")
    reason = " ".join(str(error).split()) or type(error).__name__
    if not type(error).__module__.startswith("jinja2") or "undefined" in reason:
        reason = f"{reason} ({type(error).__name__})"
    listed = ", ".join(roles) or "no turn"
    return UserError(f"the chat template refuses these turns ({listed}): {reason}; try {'; '.join(helps)}")


def opened_by(prompt: str) -> str:
    """The mark of a thought that a generation prompt ends with, or ""."""
    return next((opening for opening, _ in THOUGHT_MARKS if prompt.rstrip().endswith(opening)), "")


def answer_parts(content: str) -> list[str]:
    """A content without the marks around thoughts: each text that a template must have written somewhere."""
    return [said for part in _MARK.split(content) if (said := part.strip())]


_MARK = re.compile("|".join(re.escape(mark) for pair in THOUGHT_MARKS for mark in pair))
