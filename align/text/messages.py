"""Reads messages from rows, and applies data.system, data.same_role, data.first_assistant and data.thoughts."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from align.text import keys
from align.text.records import Message, Role
from align.text.values import BadRow, Messages, Values, joined_parts, shown, string, trimmed, turn_text

if TYPE_CHECKING:
    from align.sections import Data

ROLES: dict[str, Role] = {"user": "user", "human": "user", "prompter": "user", "system": "system"}
ROLES |= {"developer": "system", "tools": "tools"}
ROLES |= dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "function_call", "tool_call"), "assistant")
ROLES |= dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response", "tool_result"), "tool")
_CALLERS = ("function_call", "tool_call")  # LLaMA-Factory, ms-swift: messages whose content is the call

MERGED = "a system message was merged into the next user message (data.system=merge)"
SYSTEM_DROPPED = "a system message was left out (data.system=drop)"
JOINED = "consecutive messages of one role were joined (data.same_role=join)"
FIRST_DROPPED = "an assistant message before the first user message was left out (data.first_assistant=drop)"
UNASKED = "the assistant message before the first user message is context, not learned (data.first_assistant=keep)"
INLINED = "thoughts were written into the answer (data.thoughts=inline)"
THOUGHTS_DROPPED = "thoughts were left out (data.thoughts=drop)"


class Handling(NamedTuple):
    """The keys of a recipe's data section that change messages; see `align.sections.Data`."""

    system: str = "keep"
    same_role: str = "refuse"
    first_assistant: str = "keep"
    thoughts: str = "keep"
    margins: str = "column"

    @classmethod
    def of(cls, data: Data) -> Handling:
        handling = cls(*(getattr(data, name) for name in cls._fields))
        return AS_THEY_ARE if handling == AS_THEY_ARE else handling


AS_THEY_ARE = Handling()


def messages_of(value: Any, name: str) -> Messages:
    """A list of messages. Empty system messages are left out."""
    if not (isinstance(value, list) and value):
        hint = "; a list inside a string is read as text" if isinstance(value, str) else ""
        raise BadRow(f"{name} must be a list of messages, found {shown(value)}{hint}")
    turns = [_plain(turn) or message_of(turn, f"message {n} of {name}") for n, turn in enumerate(value, start=1)]
    return tuple([turn for turn in turns if turn.content or turn.role != "system"])


def _plain(turn: Any) -> Message | None:
    """Fast path for the usual message: a role and ASCII content without surrounding space. None for any other."""
    if type(turn) is not dict or len(turn) != 2:
        return None
    text, role = turn.get("content"), turn.get("role")
    if type(text) is not str or not text.isascii() or text[:1].isspace() or text[-1:].isspace() or not text:
        return None
    return Message(role, text) if role in ("user", "assistant", "system") else None


def message_of(turn: Any, where: str) -> Message:
    """One message. Raises `BadRow` with the reason if it is malformed."""
    if not isinstance(turn, dict):
        raise BadRow(f"{where} must be an object with role and content, found {shown(turn)}")
    role_name = turn.get("role") or turn.get("from")
    role = ROLES.get(role_name) if isinstance(role_name, str) else None
    if role is None:
        raise BadRow(f"{where} has the role {shown(role_name)}; the roles are system, user, assistant and tool")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if role_name in _CALLERS:
        more = _more(turn, role, f"{where} ({role_name})")
        return Message(role, "", **more | {"calls": calls_of(content, f"{where} ({role_name})")})
    if role == "tools":
        return tools_of(content, f"{where} (tools)")
    name = f"{where} ({role_name})"
    more = _more(turn, role, name) if len(turn) > 2 or content is None else {}
    if content is None and role != "system" and not more.get("calls"):
        raise BadRow(f"{name} has no content")
    if role in ("system", "tool") or more.get("calls"):
        return Message(role, trimmed(string(joined_parts(content or "", where), name, may_be_empty=True)), **more)
    return Message(role, turn_text(joined_parts(content, where), name), **more)


def _more(turn: Values, role: Role, where: str) -> dict[str, Any]:
    """The other keys of a message as fields of `Message`."""
    if ROLES.get(turn.get("from") or "", role) != role:
        raise BadRow(f"{where}: role and from differ; remove one of them")
    if keys.MESSAGE_NAMES.isdisjoint(turn.keys() - _CONTENT - _ROLES) and not turn.keys() >= _CONTENT:
        return {}
    found = keys.found(turn, keys.IN_MESSAGES, own=_ROLES, where=f"{where}: ")
    more: dict[str, Any] = {"learned": _learned(found, role, where)}
    for field, meaning in _FIELDS.items():
        name, value = found.get(meaning, keys.NOTHING)
        if name and field in ("thoughts", "calls") and role != "assistant":
            raise BadRow(f"{where} has {name}, which only assistant messages may have")
        if name:
            more[field] = (calls_of if field == "calls" else turn_text)(value, f"{where}: {name}")
    return more


_CONTENT = frozenset(("content", "value"))
_ROLES = frozenset(("role", "from"))
_FIELDS = {"thoughts": "reasoning_content", "calls": "tool_calls", "name": "name", "call_id": "tool_call_id"}


def _learned(found: dict[str, tuple[str, Any]], role: Role, where: str) -> bool:
    mark = keys.marked(found, f"{where}: ")
    label = keys.yes_or_no(found.get("label", keys.NOTHING)[1])
    if mark and role != "assistant":
        raise BadRow(f"{where} is marked to be learned; only assistant messages can be")
    return mark is not False and label is not False


def calls_of(value: Any, where: str) -> str:
    """Tool calls in OpenAI's form, as JSON. `value` is a list, one call, or the JSON of either."""
    value = parsed_json(value, where)
    calls = [_function(call, where) for call in (value if isinstance(value, list) else [value])]
    if not calls:
        raise BadRow(f"{where} calls no tool, found {shown(value)}")
    for call in calls:
        function = call["function"]
        given = parsed_json(function.get("arguments") or {}, f"{where}: arguments")
        if not isinstance(given, dict):
            raise BadRow(f"{where}: arguments must be an object, found {shown(given)}")
        call["function"] = function | {"arguments": given}
    return written(calls, where)


def tools_of(value: Any, where: str) -> Message:
    """A row's tools as a message of the role tools: function schemas in OpenAI's form."""
    tools = parsed_json(value, where)
    return Message(
        "tools", written([_function(tool, where) for tool in (tools if isinstance(tools, list) else [tools])], where)
    )


def _function(given: Any, where: str) -> dict[str, Any]:
    """A call or a schema with the `type` that older forms lack."""
    if isinstance(given, dict) and isinstance(given.get("function"), dict):
        given = {"type": "function", **{name: value for name, value in given.items() if value is not None}}
    elif isinstance(given, dict) and "name" in given:
        given = {"type": "function", "function": given}
    else:
        raise BadRow(f"{where} must be objects with a named function, found {shown(given)}")
    if not isinstance(given["function"].get("name"), str):
        raise BadRow(f"{where}: a function has no name, found {shown(given)}")
    return given


def parsed_json(value: Any, where: str) -> Any:
    """Parses a string as JSON; returns any other value unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{where} must be JSON ({error}), found {shown(value)}") from None


def written(value: Any, where: str) -> str:
    try:
        return string(json.dumps(value, ensure_ascii=False, default=str, allow_nan=False), where)
    except ValueError:
        raise BadRow(f"{where} has a number that JSON cannot express, found {shown(value)}") from None


def handled(prompt: Messages, answers: Messages, how: Handling) -> tuple[Messages, Messages, tuple[str, ...]]:
    """Applies the recipe's rules to a prompt and its answers. Also returns one note for each rule that changed them.

    Raises `BadRow` if a rule cannot be applied.
    """
    before = (prompt, answers)
    notes: list[str] = []
    for rule, step in _STEPS.items():
        if getattr(how, rule) not in _NO_STEP:
            prompt, answers = step(prompt, answers, how)
            if (prompt, answers) != before:
                before, notes = (prompt, answers), [*notes, _NOTES[getattr(how, rule), rule]]
    return prompt, answers, tuple(notes)


def answerable(turns: Messages) -> Messages:
    """Returns the messages of a prompt. Raises `BadRow` unless the last one is from the user or a tool."""
    if not turns or turns[-1].role not in ("user", "tool"):
        found = f"this one ends with {turns[-1].role}" if turns else "this one is empty"
        help = "; data.same_role=join joins two messages of one role" if found.endswith("assistant") else ""
        raise BadRow(f"a prompt must end with a user or tool message; {found}{help}")
    return turns


def begins_unasked(turns: Messages) -> bool:
    """Whether the assistant speaks before any user message. Such a message is never a training target."""
    return next((turn.role for turn in turns if turn.role not in ("system", "tools")), "") == "assistant"


def _first_dropped(prompt: Messages, answers: Messages, how: Handling) -> tuple[Messages, Messages]:
    first = next((n for n, turn in enumerate(prompt) if turn.role == "user"), len(prompt))
    return (*(turn for turn in prompt[:first] if turn.role != "assistant"), *prompt[first:]), answers


def _system_changed(prompt: Messages, answers: Messages, how: Handling) -> tuple[Messages, Messages]:
    kept: list[Message] = []
    waiting: list[str] = []
    for turn in prompt:
        if turn.role == "system":
            waiting += [turn.content] if how.system == "merge" else []
        elif turn.role == "user" and waiting:
            kept.append(turn._replace(content="\n\n".join([*waiting, turn.content])))
            waiting = []
        else:
            kept.append(turn)
    if waiting:
        raise BadRow("data.system=merge: no user message follows the system message")
    return tuple(kept), answers


def _joined(prompt: Messages, answers: Messages, how: Handling) -> tuple[Messages, Messages]:
    runs = [list(run) for _, run in groupby(enumerate(prompt), lambda at: _group(at[0], at[1]))]
    prompt = tuple(_one([turn for _, turn in run]) for run in runs)
    if answers and prompt and prompt[-1].role == "assistant":
        return prompt[:-1], tuple(_one([prompt[-1], answer]) for answer in answers)
    return prompt, answers


def _group(place: int, turn: Message) -> object:
    return turn.role if turn.role != "tool" else place  # results of tools are never joined


def _one(turns: list[Message]) -> Message:
    """Joins consecutive messages of one role."""
    if len(turns) == 1:
        return turns[0]
    if len({turn.learned for turn in turns}) > 1:
        raise BadRow("two consecutive assistant messages cannot be joined: one is learned and the other is not")
    content = "\n\n".join(turn.content for turn in turns if turn.content)
    thoughts = "\n\n".join(turn.thoughts for turn in turns if turn.thoughts)
    calls = [call for turn in turns if turn.calls for call in json.loads(turn.calls)]
    return turns[0]._replace(content=content, thoughts=thoughts, calls=written(calls, "calls") if calls else "")


def _thoughts_changed(prompt: Messages, answers: Messages, how: Handling) -> tuple[Messages, Messages]:
    changed = tuple(_thoughts_out(turn, how.thoughts) for turn in (*prompt, *answers))
    return changed[: len(prompt)], changed[len(prompt) :]


def _thoughts_out(turn: Message, how: str) -> Message:
    if not turn.thoughts:
        return turn
    begin = f"<think>\n{turn.thoughts}\n</think>\n\n" if how == "inline" else ""
    return turn._replace(content=f"{begin}{turn.content}", thoughts="")


_NO_STEP = ("keep", "refuse", "column")
_STEPS: dict[str, Callable[[Messages, Messages, Handling], tuple[Messages, Messages]]] = {
    "first_assistant": _first_dropped,
    "system": _system_changed,
    "same_role": _joined,
    "thoughts": _thoughts_changed,
}
_NOTES = {
    ("drop", "first_assistant"): FIRST_DROPPED,
    ("merge", "system"): MERGED,
    ("drop", "system"): SYSTEM_DROPPED,
    ("join", "same_role"): JOINED,
    ("inline", "thoughts"): INLINED,
    ("drop", "thoughts"): THOUGHTS_DROPPED,
}
