"""Chat templates: finds out what a tokenizer's template needs, renders messages with it, explains its errors.

Published templates differ in their inputs. Some need a content as parts, `[{"type": "text", "text": ...}]`; thoughts
have several keys; arguments of calls are an object or JSON; some silently skip a message with an unknown role. The
needs of a template are found by rendering made-up messages once. Real messages are looked for in the rendered text.
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
THOUGHT_MARKS = (  # the marks around thoughts in a content
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
)
_KEPT = "_align_template"  # an attribute of the tokenizer, not saved
_DATE = "_align_date"
_USER, _ANSWER, _THOUGHT, _TOOL = "zquserqz", "zqanswerqz", "zqthoughtqz", "zqtoolqz"  # occur in no template


class Marks(NamedTuple):
    """The marks that a template writes around thoughts, without surrounding space."""

    opening: str  # before the thoughts, possibly in the generation prompt
    closing: str  # between thoughts and answer
    lead: str  # before an answer without thoughts


class Template:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.chat_template is None:
            raise UserError("this tokenizer has no chat template; use align.text.tokenizer.load_tokenizer to load it")
        self._tokenizer = tokenizer
        self._parts = False
        self._arguments_as_text = False
        self.thoughts_key = ""  # the key for thoughts; "parts" if they are parts of the content; "" if it reads none
        self._try_contents()
        self._try_thoughts()
        self._try_calls()

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Template:
        """The template of a tokenizer. Its needs are found once for each tokenizer and template."""
        kept: dict[str, Template] = vars(tokenizer).setdefault(_KEPT, {})
        key = str(tokenizer.chat_template)
        if key not in kept:
            kept[key] = cls(tokenizer)
        found = kept[key]
        found._tokenizer = tokenizer  # a copied tokenizer has a copy of the cache
        return found

    def write(self, turns: Messages, add_generation_prompt: bool) -> str:
        """Renders messages as one text. Raises `UserError` with reason and remedies if the template refuses them."""
        try:
            return self._rendered(turns, add_generation_prompt)
        except Exception as error:  # templates raise errors of Jinja, of Python, and their own
            raise _refused(turns, error) from None

    def _rendered(self, turns: Messages, add_generation_prompt: bool) -> str:
        tools, messages = split_tools(turns)
        text = self._tokenizer.get_chat_template(tools=tools)
        date = vars(self._tokenizer).get(_DATE)
        written = self._tokenizer.apply_chat_template(
            [self._given(turn) for turn in messages],
            tools=tools,
            chat_template=_dated(text, date) if date and "strftime_now" in text else text,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return str(written)

    def _given(self, turn: Message) -> dict[str, Any]:
        """A message in the form that this template needs."""
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
        self._parts = False  # the error is raised when a real message is rendered

    def _try_thoughts(self) -> None:
        messages = (Message("user", _USER), Message("assistant", _ANSWER, _THOUGHT))
        for self.thoughts_key in (*THOUGHTS_KEYS, "parts"):
            written = self._tried(*messages)
            if _ANSWER in written.partition(_THOUGHT)[2] and "'type'" not in written:  # parts, printed as a list
                return
        self.thoughts_key = ""

    def _try_calls(self) -> None:
        """Some templates add arguments to a string and fail for an object; some write an object as Python does."""
        called = {"name": _TOOL, "arguments": {_ANSWER: "x"}}
        calls = json.dumps([{"id": "abcdefghi", "type": "function", "function": called}])  # Mistral's ids have nine
        messages = (Message("user", _USER), Message("assistant", "", calls=calls))
        for self._arguments_as_text in (False, True):
            written = self._tried(*messages)
            if _ANSWER in written and f"'{_ANSWER}'" not in written:
                return
        self._arguments_as_text = False

    def _tried(self, *turns: Message, add_generation_prompt: bool = False) -> str:
        """Renders made-up messages; "" if the template refuses them."""
        try:
            return self._rendered(turns, add_generation_prompt)
        except Exception:
            return ""

    @cached_property
    def writes_tools(self) -> bool:
        """Whether the template writes tools."""
        described = {"name": _TOOL, "description": _TOOL, "parameters": {"type": "object", "properties": {}}}
        tools = json.dumps([{"type": "function", "function": described}])
        return _TOOL in self._tried(Message("tools", tools), Message("user", _USER))

    def closer_of(self, between: bool = False) -> str:
        """The text after an answer at the end; with `between`, the text between an answer and the next user message."""
        turns = [Message("user", _USER), Message("assistant", _ANSWER)]
        written = self._tried(*turns, *turns[: int(between)])
        _, answer, after = written.rpartition(_ANSWER)
        return after.partition(_USER)[0] if answer else ""

    @cached_property
    def marks(self) -> Marks:
        """The marks around thoughts. If the template reads no thoughts: the marks that are tokens of its tokenizer."""
        user = Message("user", _USER)
        prompt = self._tried(user, add_generation_prompt=True)
        plain = self._tried(user, Message("assistant", _ANSWER))
        lead = plain.removeprefix(prompt).partition(_ANSWER)[0] if plain.startswith(prompt) else ""
        if self.thoughts_key:
            written = self._tried(user, Message("assistant", _ANSWER, _THOUGHT))
            before, _, after = written.partition(_THOUGHT)
            opening = before[n_shared(prompt, before) :].strip() or opened_by(before)
            return Marks(opening, after.partition(_ANSWER)[0].strip(), lead.strip())
        known = {token.content for token in self._tokenizer.added_tokens_decoder.values()}
        for opening, closing in THOUGHT_MARKS:
            if {opening, closing} <= known or opened_by(prompt) == opening:
                return Marks(opening, closing, lead.strip())
        return Marks("", "", lead.strip())


def fix_date(tokenizer: PreTrainedTokenizerBase, date: datetime.date) -> None:
    """Sets the date for templates that write today's date (`strftime_now`), as long as the tokenizer is in memory."""
    vars(tokenizer)[_DATE] = datetime.datetime.combine(date, datetime.time())


def share_date(tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> None:
    """Copies the fixed date of `other` to a tokenizer, such as a reward model's in the same run."""
    if date := vars(other).get(_DATE):
        vars(tokenizer)[_DATE] = date


@lru_cache
def _dated(template: str, date: datetime.datetime) -> str:
    """A template in which `strftime_now` is a macro with a fixed date."""
    known = "".join(f" | replace('%{one}', '{date.strftime('%' + one)}')" for one in _DIRECTIVES.split())
    return "{% macro strftime_now(format) %}{{ format" + known + " }}{% endmacro %}{{ '' }}" + template


def use_template(
    tokenizer: PreTrainedTokenizerBase, file: str | None = None, options: dict[str, Any] | None = None
) -> None:
    """Sets a tokenizer's template from a file, and values of its variables. `save_pretrained` saves both.

    Options are written before the template as defaults, so a variable that is passed still wins.
    Raises `UserError` for a missing file, an invalid template, or an option that the template does not read.
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


# strftime's directives without time zones. A dash writes numbers without a leading zero.
_DIRECTIVES = "a A b B c C d D e F G h H I j m M p r R S T u U V w W x X y Y -d -e -m -y -H -I -j -M -S"
_ALWAYS_GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now"}
_ALWAYS_GIVEN |= {"bos_token", "eos_token", "pad_token", "unk_token"}


def _template_in(file: str) -> str:
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.template: cannot read {file}: {error}; give a text file with a chat template") from None
    _variables(text, f"data.template: {file}")
    return text


def _variables(template: str, where: str) -> set[str]:
    """The variables that a template reads. Raises `UserError` for one that is not valid Jinja."""
    from jinja2 import TemplateSyntaxError, meta
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        return set(meta.find_undeclared_variables(_compile_jinja_template(template).environment.parse(template)))
    except TemplateSyntaxError as error:
        raise UserError(f"{where}, line {error.lineno}: not a valid Jinja template: {error.message}") from None


def _literal(value: Any) -> str:
    """A value as a Jinja literal: JSON, except for none."""
    return "none" if value is None else json.dumps(value)


def split_tools(turns: Messages) -> tuple[list[Any] | None, Messages]:
    """The tools of a conversation, and its messages without the one that holds them."""
    if turns and turns[0].role == "tools":
        return json.loads(turns[0].content), turns[1:]
    return None, turns


def _refused(turns: Messages, error: Exception) -> UserError:
    roles = [turn.role for turn in turns if turn.role != "tools"]
    not_system = [role for role in roles if role != "system"]
    helps = []
    if "system" in roles:
        helps.append("data.system=merge (or drop) if it does not support system messages")
    if any(one == other for one, other in pairwise(not_system)):
        helps.append("data.same_role=join if roles must alternate")
    if not_system[:1] == ["assistant"]:
        helps.append("data.first_assistant=drop if the user must begin")
    helps.append("data.template with a template of your own")
    reason = " ".join(str(error).split()) or type(error).__name__
    if not type(error).__module__.startswith("jinja2") or "undefined" in reason:
        reason = f"{reason} ({type(error).__name__})"
    listed = ", ".join(roles) or "none"
    return UserError(f"the chat template refuses these messages ({listed}): {reason}; try {'; '.join(helps)}")


def opened_by(prompt: str) -> str:
    """The opening thought mark at the end of a generation prompt, or ""."""
    return next((opening for opening, _ in THOUGHT_MARKS if prompt.rstrip().endswith(opening)), "")


def answer_parts(content: str) -> list[str]:
    """The texts of a content between thought marks. A template must write each of them."""
    return [text for part in _MARK.split(content) if (text := part.strip())]


_MARK = re.compile("|".join(re.escape(mark) for pair in THOUGHT_MARKS for mark in pair))
