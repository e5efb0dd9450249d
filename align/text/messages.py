"""Messages: as rows have them, and as `data.system`, `same_role`, `first_assistant` and `thoughts` want them."""

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
_CALLERS = ("function_call", "tool_call")  # LLaMA-Factory, ms-swift: turns whose content is the call

MERGED = "a system turn was put before the next user's turn (data.system=merge)"
SYSTEM_DROPPED = "a system turn was left out (data.system=drop)"
JOINED = "turns of one speaker in a row were joined (data.same_role=join)"
FIRST_DROPPED = "an assistant's turn before the first user's was left out (data.first_assistant=drop)"
UNASKED = "the assistant's turn before the first user's is context, not learned (data.first_assistant=keep)"
INLINED = "thoughts were written into the answer (data.thoughts=inline)"
THOUGHTS_DROPPED = "thoughts were left out (data.thoughts=drop)"


class Handling(NamedTuple):
    """What a recipe's data section says of turns; see `align.sections.Data`."""

    system: str = "keep"
    same_role: str = "refuse"
    first_assistant: str = "keep"
    thoughts: str = "keep"
    margins: str = "column"

    @classmethod
    def of(cls, data: Data) -> Handling:
        asked = cls(*(getattr(data, name) for name in cls._fields))
        return AS_THEY_ARE if asked == AS_THEY_ARE else asked


AS_THEY_ARE = Handling()


def messages_of(value: Any, name: str) -> Messages:
    """A list of turns. A system turn that is empty is none."""
    if not (isinstance(value, list) and value):
        hint = "; a list that stands in a string is a text" if isinstance(value, str) else ""
        raise BadRow(f"{name} must be a list of turns, found {shown(value)}{hint}")
    turns = [_plain(turn) or message_of(turn, f"turn {n} of {name}") for n, turn in enumerate(value, start=1)]
    return tuple([turn for turn in turns if turn.content or turn.role != "system"])


def _plain(turn: Any) -> Message | None:
    """The turn that nearly all are, read without the checks of others: a role, and ASCII with no space around it."""
    if type(turn) is not dict or len(turn) != 2:
        return None
    text, role = turn.get("content"), turn.get("role")
    if type(text) is not str or not text.isascii() or text[:1].isspace() or text[-1:].isspace() or not text:
        return None
    return Message(role, text) if role in ("user", "assistant", "system") else None


def message_of(turn: Any, where: str) -> Message:
    """One turn. Raises `BadRow` that says what is wrong with it."""
    if not isinstance(turn, dict):
        raise BadRow(f"{where} must be an object with role and content, found {shown(turn)}")
    said_by = turn.get("role") or turn.get("from")
    role = ROLES.get(said_by) if isinstance(said_by, str) else None
    if role is None:
        raise BadRow(f"{where} has the role {shown(said_by)}; the roles are system, user, assistant and tool")
    content = turn.get("content") if turn.get("content") is not None else turn.get("value")
    if said_by in _CALLERS:
        more = _more(turn, role, f"{where} ({said_by})")
        return Message(role, "", **more | {"calls": calls_of(content, f"{where} ({said_by})")})
    if role == "tools":
        return tools_of(content, f"{where} (tools)")
    name = f"{where} ({said_by})"
    more = _more(turn, role, name) if len(turn) > 2 or content is None else {}
    if content is None and role != "system" and not more.get("calls"):
        raise BadRow(f"{name} has no content")
    if role in ("system", "tool") or more.get("calls"):
        return Message(role, trimmed(string(joined_parts(content or "", where), name, may_be_empty=True)), **more)
    return Message(role, turn_text(joined_parts(content, where), name), **more)


def _more(turn: Values, role: Role, where: str) -> dict[str, Any]:
    """What a turn says beside its role and content, as fields of a `Message`."""
    if ROLES.get(turn.get("from") or "", role) != role:
        raise BadRow(f"{where}: role and from differ; leave one of them")
    if keys.MESSAGE_NAMES.isdisjoint(turn.keys() - _CONTENT - _ROLES) and not turn.keys() >= _CONTENT:
        return {}
    told = keys.found(turn, keys.IN_MESSAGES, own=_ROLES, where=f"{where}: ")
    more: dict[str, Any] = {"learned": _learned(told, role, where)}
    for field, meaning in _FIELDS.items():
        name, value = told.get(meaning, keys.NOTHING)
        if name and field in ("thoughts", "calls") and role != "assistant":
            raise BadRow(f"{where} has {name}, which only the assistant has")
        if name:
            more[field] = (calls_of if field == "calls" else turn_text)(value, f"{where}: {name}")
    return more


_CONTENT = frozenset(("content", "value"))
_ROLES = frozenset(("role", "from"))
_FIELDS = {"thoughts": "reasoning_content", "calls": "tool_calls", "name": "name", "call_id": "tool_call_id"}


def _learned(told: dict[str, tuple[str, Any]], role: Role, where: str) -> bool:
    mark = keys.marked(told, f"{where}: ")
    label = keys.yes_or_no(told.get("label", keys.NOTHING)[1])
    if mark and role != "assistant":
        raise BadRow(f"{where} is marked to be learned; only the assistant's turns are")
    return mark is not False and label is not False


def calls_of(value: Any, where: str) -> str:
    """Tool calls as OpenAI writes them, as JSON; of a list, one call, or the JSON of either."""
    value = parsed_json(value, where)
    calls = [_function(call, where) for call in (value if isinstance(value, list) else [value])]
    if not calls:
        raise BadRow(f"{where} calls no tool, found {shown(value)}")
    for call in calls:
        function = call["function"]
        given = parsed_json(function.get("arguments") or {}, f"{where}: arguments")
        if not isinstance(given, dict):
            raise BadRow(f"{where}: arguments must be an object with their names, found {shown(given)}")
        call["function"] = function | {"arguments": given}
    return written(calls, where)


def tools_of(value: Any, where: str) -> Message:
    """A row's tools as the turn that holds them: function schemas as OpenAI writes them."""
    tools = parsed_json(value, where)
    return Message(
        "tools", written([_function(tool, where) for tool in (tools if isinstance(tools, list) else [tools])], where)
    )


def _function(given: Any, where: str) -> dict[str, Any]:
    """A call or a schema with its `type` around it, which older forms lack."""
    if isinstance(given, dict) and isinstance(given.get("function"), dict):
        given = {"type": "function", **{name: value for name, value in given.items() if value is not None}}
    elif isinstance(given, dict) and "name" in given:
        given = {"type": "function", "function": given}
    else:
        raise BadRow(f"{where} must be objects with a function and its name, found {shown(given)}")
    if not isinstance(given["function"].get("name"), str):
        raise BadRow(f"{where}: a function has no name, found {shown(given)}")
    return given


def parsed_json(value: Any, where: str) -> Any:
    """What the JSON in a string says; anything else as it is."""
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
        raise BadRow(f"{where} has a number that JSON cannot say, found {shown(value)}") from None


def handled(prompt: Messages, answers: Messages, how: Handling) -> tuple[Messages, Messages, tuple[str, ...]]:
    """A prompt and its answers as the recipe wants them, and what was changed, a line for each rule.

    Raises `BadRow` for turns that cannot be changed so.
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
    """Messages that can be a prompt. Raises `BadRow` for others."""
    if not turns or turns[-1].role not in ("user", "tool"):
        found = f"it ends with the {turns[-1].role}'s" if turns else "there is none"
        help = "; data.same_role=join makes one turn of two" if found.endswith("assistant's") else ""
        raise BadRow(f"a prompt ends with a turn of the user, or of a tool; {found}{help}")
    return turns


def begins_unasked(turns: Messages) -> bool:
    """Whether the assistant speaks before anybody has asked: then the writer teaches no model to do so."""
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
        raise BadRow("no turn of the user comes after the system turn that data.system=merge is to put before it")
    return tuple(kept), answers


def _joined(prompt: Messages, answers: Messages, how: Handling) -> tuple[Messages, Messages]:
    runs = [list(run) for _, run in groupby(enumerate(prompt), lambda at: _speaker(at[0], at[1]))]
    prompt = tuple(_one([turn for _, turn in run]) for run in runs)
    if answers and prompt and prompt[-1].role == "assistant":
        return prompt[:-1], tuple(_one([prompt[-1], answer]) for answer in answers)
    return prompt, answers


def _speaker(place: int, turn: Message) -> object:
    return turn.role if turn.role != "tool" else place  # each result of a tool is a turn of its own


def _one(turns: list[Message]) -> Message:
    """Some turns of one speaker as one."""
    if len(turns) == 1:
        return turns[0]
    if len({turn.learned for turn in turns}) > 1:
        raise BadRow("of two turns of the assistant in a row one is learned and one is not: they cannot be joined")
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
