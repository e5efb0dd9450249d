"""Writes the pages that are made from the code: docs/commands/, a page for each command, and docs/files.md.

    python docs/pages.py

`make docs` runs it; tests/test_docs.py fails when a committed page is stale.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from align.commands import COMMANDS, GROUPS, Command, entry, shown
from align.config import Described, Section, described

ROOT = Path(__file__).parents[1]
MADE = "<!-- Made by docs/pages.py; do not edit. -->"
FIRST_COMMENT = {
    ".py": re.compile(r'(?:r?"""|#\s*)(.+?)(?:"""|\n)'),
    ".js": re.compile(r"//\s*(.+)"),
    ".css": re.compile(r"/\*\s*(.+?)\s*(?:\*/|\n)"),
    ".j2": re.compile(r"\{#-?\s*(.+?)\s*(?:-?#\}|\n)"),
}


def main() -> None:
    """Writes every page and removes those of commands that are gone."""
    made = pages()
    for old in set((ROOT / "docs" / "commands").glob("*.md")) - set(made):
        old.unlink()
    for path, text in made.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """The text of each page by its path."""
    docs = ROOT / "docs"
    commands = {docs / "commands" / f"{name}.md": command_page(name, command) for name, command in COMMANDS.items()}
    return {docs / "commands" / "README.md": index(), **commands, docs / "files.md": file_map()}


# ---- commands ----
def index() -> str:
    """The list of all commands, in the order of the pipeline."""
    lines = ["# Commands", "", MADE, ""]
    lines += [
        "`align COMMAND` and `python -m MODULE` are the same. The page of a command lists every key of its recipe.",
        "",
    ]
    for title, group in GROUPS.items():
        lines += [f"## {title}", "", "| command | what it does | module |", "|---|---|---|"]
        lines += [f"| [`align {shown(name)}`]({name}.md) | {c.meaning} | `{c.module}` |" for name, c in group.items()]
        lines += [""]
    return "\n".join(lines)


def command_page(name: str, command: Command) -> str:
    """What a command does, how it is called, its options, and every key of its recipe."""
    module = entry(command)
    said = module.DEMO_HELP if command.main == "demo" else module.__doc__ or ""
    lines = [f"# align {shown(name)}", "", MADE, "", command.meaning, ""]
    if command.main == "main":
        lines += [f"`align {shown(name)}` and `python -m {command.module}` are the same.", ""]
    lines += [re.sub(r"(?m)^usage: ", "    ", said.strip()), "", *recipe_file(name), *guides(name)]
    if hasattr(module, "parser"):
        lines += options(module.parser(), f"align {shown(name)}")
    if command.recipe:
        kind: type[Section] = getattr(import_module(command.recipe[0]), command.recipe[1])
        lines += ["## Keys of the recipe", "", *key_tables(kind)]
    return "\n".join(lines).rstrip() + "\n"


def recipe_file(name: str) -> Iterator[str]:
    """A link to the recipe to copy, if there is one."""
    for path in (f"recipes/{name}.yaml", f"recipes/{name}_app.yaml", f"recipes/demo/{name}.yaml"):
        if (ROOT / path).exists():
            yield from (f"A recipe to copy: [{path}](../../{path}).", "")
            return


def guides(name: str) -> Iterator[str]:
    """Links to the guides that use the command in a block of commands."""
    found = []
    for path in sorted((ROOT / "docs" / "guides").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf"^(?:align|python -m align\.) ?{shown(name)}\b", text, flags=re.MULTILINE):
            found.append(f"[{text.partition(chr(10))[0].removeprefix('# ')}](../guides/{path.name})")
    if found:
        yield from (f"Guides that use it: {', '.join(found)}.", "")


def options(parser: argparse.ArgumentParser, called: str) -> Iterator[str]:
    """The options of a command, or of each of its sub-commands."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield from ("## Options", "", *option_table(parser))
        return
    for name, sub in below[0].choices.items():
        words = " ".join(word(action) for action in sub._actions if action.required or not action.option_strings)
        yield from (f"## {called} {name}", "", f"{sub.description[0].upper()}{sub.description[1:]}.", "")
        yield from (f"    {called} {name} {words}", "", *option_table(sub))


def word(action: argparse.Action) -> str:
    """What stands for an argument in a command to copy."""
    name = str(action.metavar or action.dest)
    if action.option_strings:
        return f"{action.option_strings[0]} {name.upper()}"
    return {"*": f"[{name} ...]", "+": f"{name} ..."}.get(str(action.nargs), name)


def option_table(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options as a table: flag, default, meaning."""
    actions = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    if not actions:
        return
    yield from ("| option | default | meaning |", "|---|---|---|")
    for action in actions:
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        default = (
            "required" if action.required else "" if action.default in (None, False, []) else f"`{action.default}`"
        )
        yield f"| `{action.option_strings[0]}{value}` | {default} | {cell((action.help or '') % vars(action))} |"
    yield ""


def key_tables(kind: type[Section]) -> Iterator[str]:
    """A table of keys for each section of a recipe; keys outside of sections come last, as in the recipe."""
    groups: dict[str, list[Described]] = {}
    for row in described(kind):
        groups.setdefault(row.key.partition(".")[0] if "." in row.key else "", []).append(row)
    plain = groups.pop("", [])
    for title, rows in [*groups.items(), ("", plain)]:
        if rows:
            yield from (f"### {title}" if title else "### Keys outside of sections", "", *key_table(rows))


def key_table(rows: list[Described]) -> Iterator[str]:
    yield from ("| key | values | default | meaning |", "|---|---|---|---|")
    for row in rows:
        default = "required" if row.default is None else f"`{row.default or chr(34) * 2}`"
        yield f"| `{row.key}` | {cell(choices(row.kind))} | {cell(default)} | {cell(row.meaning)} |"
    yield ""


def choices(kind: str) -> str:
    """`a | b | c` in words."""
    return re.sub(r", (\S+)$", r" or \1", kind.replace(" | ", ", ")) if " | " in kind else kind


def cell(text: str) -> str:
    """Text that neither ends a table's cell nor is taken for HTML or for a link."""
    if "`" in text:
        return text.replace("|", "\\|")
    return re.sub(r"([|\[*])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


# ---- files ----
def file_map() -> str:
    """Every file of the code with the first line of its docstring or comment, room by room."""
    lines = ["# Map of files", "", MADE, ""]
    lines += ["The first line of each file. [architecture.md](architecture.md) says what the rooms are for.", ""]
    for room in [*rooms("align"), *rooms("apps")]:
        found = {path: first_line(path) for path in sorted(room.iterdir()) if path.suffix in FIRST_COMMENT}
        if found:
            title = room.relative_to(ROOT).as_posix()
            lines += [f"## {title}", "", "| file | what |", "|---|---|"]
            lines += [
                f"| [`{path.name}`](../{title}/{path.name}) | {cell(line)} |" for path, line in found.items() if line
            ]
            lines += [""]
    return "\n".join(lines)


def rooms(top: str) -> list[Path]:
    """A package and all folders below it."""
    below = sorted(path for path in (ROOT / top).rglob("*") if path.is_dir() and path.name != "__pycache__")
    return [ROOT / top, *below]


def first_line(path: Path) -> str:
    """The first line that says what a file is; "" for an empty `__init__.py`."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    found = FIRST_COMMENT[path.suffix].search(text)
    return found[1] if found else ""


if __name__ == "__main__":
    main()
