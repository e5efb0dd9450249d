"""The command line: `align COMMAND ...` runs the same code as `python -m align.COMMAND ...`."""

from __future__ import annotations

import difflib
import sys

from align.commands import COMMANDS, GROUPS, entry, shown
from align.errors import UserError, exit_on_user_error


def main() -> None:
    """Runs the command that is the first word of the command line."""
    exit_on_user_error(run)


def run() -> None:
    """Runs the command. Raises `UserError` for one that does not exist."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return
    if words[0] == "--version":
        from align import __version__

        print(f"align {__version__}")
        return
    command = COMMANDS[known(words[0])]
    sys.argv = [f"align {words[0]}", *words[1:]]
    if status := getattr(entry(command), command.main)():
        raise SystemExit(status)


def known(word: str) -> str:
    """The name of a command in the table; `serve-rm` and `serve_rm` are the same."""
    name = word.replace("-", "_")
    if name in COMMANDS:
        return name
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    advice = f"did you mean `align {shown(near[0])}`?" if near else "`align --help` lists the commands"
    raise UserError(f"there is no command {word!r}; {advice}")


def overview() -> str:
    """What `align` alone prints: all commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = ["usage: align COMMAND ...     `align COMMAND --help` lists what a command takes"]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {shown(name):<{width}}  {command.meaning}" for name, command in group.items())]
    return "\n".join(lines)
