"""Writes a JSON schema for each command's recipe, so editors complete keys, show descriptions and mark mistakes.

    align schema [FOLDER=recipes/schema]

The first line of a recipe names its schema for YAML plugins: `# yaml-language-server: $schema=schema/sft.json`.
The schemas are generated from the recipe classes. Run this again after a change to one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from align.commands import COMMANDS, program
from align.config import Section
from align.errors import UserError, check_place, exit_on_user_error

FOLDER = "recipes/schema"

# Where each command's recipe class lives: module, class.
RECIPES = {name: command.recipe for name, command in COMMANDS.items() if command.recipe}

Schema = dict[str, Any]


def main() -> None:
    """Parses the command line and writes."""
    words = sys.argv[1:]
    if "-h" in words or "--help" in words:
        print((__doc__ or "").strip())
        return
    if len(words) > 1 or any(word.startswith("-") for word in words):
        raise UserError(f"at most one folder; usage: {program('align.schema')} [FOLDER={FOLDER}]")
    for path in write_schemas(Path(*words or [FOLDER])):
        print(f"wrote {path}")


def write_schemas(folder: Path) -> list[Path]:
    """Writes `<command>.json` for every command into `folder`. Returns the files."""
    check_place(folder, key="folder")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{command}.json" for command in RECIPES]
    for path in paths:
        path.write_text(json.dumps(schema_of(path.stem), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths


def schema_of(command: str) -> Schema:
    """The JSON schema (draft 2020-12) of a command's recipe."""
    kind = recipe_class(command)
    whole = kind.model_json_schema()
    definitions = whole.pop("$defs", {})
    schema: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{RECIPES[command][0].split('.')[0]}.{command}",
    }
    schema |= _section(kind, None, whole, definitions)
    _drop_titles(definitions)
    if used := _used(schema, definitions):
        schema["$defs"] = {name: definitions[name] for name in definitions if name in used}
    return schema


def recipe_class(command: str) -> type[Section]:
    """The class of a command's recipe."""
    module, name = RECIPES[command]
    found: type[Section] = getattr(import_module(module), name)
    return found


def _section(kind: type[Section], given: Section | None, found: Schema, definitions: Schema) -> Schema:
    """Pydantic's schema of a section, with its sub-sections inlined.

    A stage has its own defaults for shared sections, in the instance `given`; a shared definition could not show them.
    A section with a default is still required if one of its keys is.
    """
    properties: Schema = {}
    required = []
    for name, field in kind.model_fields.items():
        chosen = given is not None and name in given.model_fields_set
        default = getattr(given, name) if chosen else field.default
        inner = _section_of(field)
        if inner is not None:
            below = definitions[found["properties"][name]["$ref"].rsplit("/", 1)[-1]]
            value = _section(inner, default if isinstance(default, Section) else None, below, definitions)
            value["description"] = found["properties"][name].get("description", value.get("description", ""))
            is_required = field.is_required() or "required" in value
        else:
            value = {key: item for key, item in found["properties"][name].items() if key != "title"}
            value |= {"default": given.model_dump(mode="json")[name]} if given is not None and chosen else {}
            is_required = field.is_required() and not chosen
        properties[name] = value
        required += [name] if is_required else []
    schema: Schema = {"type": "object", "description": found.get("description", ""), "properties": properties}
    return schema | ({"required": required} if required else {}) | {"additionalProperties": False}


def _section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a key holds, if it holds one."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _drop_titles(definitions: Schema) -> None:
    """Removes the titles that pydantic makes from the names of keys."""
    for definition in definitions.values():
        for value in definition.get("properties", {}).values():
            value.pop("title", None)


def _used(schema: Schema, definitions: Schema) -> set[str]:
    """The definitions that a schema refers to, directly or indirectly."""
    used: set[str] = set()
    waiting = [schema]
    while waiting:
        new = set(_references(waiting.pop())) - used
        used |= new
        waiting += [definitions[name] for name in new]
    return used


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rsplit("/", 1)[-1]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)


if __name__ == "__main__":
    exit_on_user_error(main)
