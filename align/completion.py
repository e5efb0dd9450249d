"""Shell completion: commands, recipe files, and the recipe's keys with their values.

    eval "$(align completion bash)"        in ~/.bashrc; zsh in the same way in ~/.zshrc
    align completion fish | source         in ~/.config/fish/config.fish

The script asks `align completion reply WORD ...` for what fits the last word. Stages read their recipes themselves,
without argparse, so the libraries that complete for argparse do not fit here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

from align.commands import COMMANDS, entry, shown
from align.errors import UserError, exit_on_user_error

BASH = """\
_align() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$' \\t' words word
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[${#words[@]}-1]}
    IFS=$'\\n'
    COMPREPLY=($(align completion reply "${words[@]:1}" 2>/dev/null))
    # Bash parts words at "=" and replaces only what follows it.
    [[ $word == *=* && $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
}
complete -o nospace -F _align align"""

ZSH = """\
_align() {
    local -a found
    found=(${(f)"$(align completion reply "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    compadd -Q -S '' -- "${found[@]}"
}
compdef _align align"""

FISH = """\
complete -c align -f -a '(align completion reply (commandline -opc)[2..] (commandline -ct) | string trim -r)'"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def main() -> None:
    """Prints a shell's script, or what fits the words that are typed so far."""
    words = sys.argv[1:]
    if words[:1] == ["reply"]:
        print("\n".join(reply(words[1:])))
        return
    if "-h" in words or "--help" in words:
        print((__doc__ or "").strip())
        return
    if len(words) != 1 or words[0] not in SCRIPTS:
        raise UserError(f"which shell? usage: align completion {'|'.join(SCRIPTS)}")
    print(SCRIPTS[words[0]])


def reply(words: list[str]) -> list[str]:
    """What can stand in place of the last word; a space follows where the word is then whole."""
    *before, begun = words or [""]
    if not before:
        found = [f"{shown(name)} " for name in COMMANDS]
    else:
        name = before[0].replace("-", "_")
        found = list(_candidates(name, before[1:], begun)) if name in COMMANDS else []
    return [candidate for candidate in found if candidate.startswith(begun)]


def _candidates(name: str, before: list[str], begun: str) -> Iterator[str]:
    module = entry(COMMANDS[name])
    if hasattr(module, "parser"):
        yield from _options(module.parser(), before)
        yield from _files(begun)
    elif name == "completion":
        yield from (f"{shell} " for shell in SCRIPTS)
    elif "=" in begun:
        yield from _values(name, begun)
    else:
        yield from ("--dry-run ", "--help ")
        if name == "demo" or any("=" not in word for word in before):
            yield from (f"{key}=" for key, _ in _keys(name))
        else:
            yield from _files(begun)


def _keys(name: str) -> Iterator[tuple[str, object]]:
    """The keys of a command's recipe with their types."""
    from align.config import keys

    module, kind = COMMANDS[name].recipe or ("align.pipeline", "Recipe")
    for key, field, _ in keys(getattr(import_module(module), kind)):
        yield key, field.annotation


def _values(name: str, begun: str) -> Iterator[str]:
    """The values of a key that has few; files for one that may name a file."""
    key, _, value = begun.partition("=")
    kind = dict(_keys(name)).get(key)
    choices = ("true", "false") if kind is bool else [word for word in get_args(kind) if isinstance(word, str)]
    named = _files(value) if kind is str or str in get_args(kind) else ()
    yield from (f"{key}={word}" for word in ([f"{choice} " for choice in choices] or named))


def _options(parser: argparse.ArgumentParser, before: list[str]) -> Iterator[str]:
    """The subcommands and options of a command that argparse reads."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and before and before[0] in action.choices:
            yield from _options(action.choices[before[0]], before[1:])
            return
        yield from (f"{word} " for word in (action.option_strings or action.choices or ()))


def _files(begun: str) -> Iterator[str]:
    """Folders and files that begin so; a folder ends in / and is completed further."""
    folder, slash, _ = begun.rpartition("/")
    place = Path(folder + slash or ".")
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if not path.name.startswith("."):
            yield f"{folder}{slash}{path.name}" + ("/" if path.is_dir() else " ")


if __name__ == "__main__":
    exit_on_user_error(main)
