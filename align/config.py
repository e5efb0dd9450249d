"""Strict recipes: a YAML file and `key=value` overrides become a pydantic model. All mistakes are reported at once.

A stage declares its recipe as a `Section`. The string below a key describes it in `--help` and in the JSON schema.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from align.commands import program
from align.errors import UserError


class Section(BaseModel):
    """A group of keys. Unknown keys are errors. Keys that are not given keep the default of their section."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def defaults(cls, **given: Any) -> Self:
        """A default that sets some keys of a shared section and leaves the others as they are, required ones too."""
        return cls.model_construct(**given)  # type: ignore[return-value]

    @model_validator(mode="before")
    @classmethod
    def _none_is_null(cls, given: Any) -> Any:
        """Reads `none`, as --help writes it, as YAML's null for every key that may be empty."""
        if not isinstance(given, dict):
            return given
        empty = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {name: None if value == "none" and name in empty else value for name, value in given.items()}

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        completed = dict(given)
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Section) and isinstance(given.get(name, {}), dict):
                completed[name] = merged(field.default.model_dump(exclude_unset=True), given.get(name, {}))
        return completed


SIZING = ("--device-memory", "--model-shape")

RecipeType = TypeVar("RecipeType", bound=Section)


class DryRun(NamedTuple):
    """The options of a training stage's `--dry-run`."""

    device_memory: float | None = None  # bytes of a GPU; by default this machine's
    model_shape: str | None = None  # a size, preset or folder instead of the recipe's models and data


class Command(NamedTuple):
    """The words after `align <stage>`."""

    recipe_path: str  # "" if none was given
    overrides: list[str]
    dry_run: DryRun | None


def parse_command(
    recipe_class: type[RecipeType], stage: str, argv: list[str] | None = None, needs_file: bool = True
) -> tuple[RecipeType, bool]:
    """The recipe of a command line, and whether `--dry-run` was given.

    Without `needs_file`, all keys may be given on the command line, without a recipe file.
    Prints help and exits 0 on `--help`. Raises one `UserError` that lists every mistake in the recipe.
    """
    recipe, dry_run = _parse(recipe_class, stage, argv, (), needs_file)
    return recipe, dry_run is not None


def parse_training(
    recipe_class: type[RecipeType], stage: str, argv: list[str] | None = None
) -> tuple[RecipeType, DryRun | bool]:
    """`parse_command` for a training stage: `--dry-run` also takes `--device-memory` and `--model-shape`."""
    recipe, dry_run = _parse(recipe_class, stage, argv, SIZING, needs_file=True)
    return recipe, dry_run or False


def _parse(
    recipe_class: type[RecipeType], stage: str, argv: list[str] | None, sizing: tuple[str, ...], needs_file: bool
) -> tuple[RecipeType, DryRun | None]:
    argv = sys.argv[1:] if argv is None else argv
    if "-h" in argv or "--help" in argv:
        print(help_text(recipe_class, stage, sizing))
        raise SystemExit(0)
    command = _split(argv, stage, sizing, needs_file)
    return read_recipe(recipe_class, command.recipe_path, *command.overrides), command.dry_run


def read_recipe(recipe_class: type[RecipeType], path: str | Path, *overrides: str) -> RecipeType:
    """The checked recipe in a YAML file, with overrides such as `"optim.batch_size=8"`; path "" is no file.

    Raises `UserError` that tells every mistake in the recipe at once.
    """
    below = read_yaml(path) if str(path) else {}
    return build(recipe_class, merged(below, _overrides(list(overrides))), str(path) or "command line")


def build(recipe_class: type[RecipeType], given: dict[str, Any], name: str) -> RecipeType:
    """Validates plain data as a recipe. Raises one `UserError` with all mistakes: key, value and remedy of each."""
    try:
        return recipe_class.model_validate(given)
    except ValidationError as error:
        problems = _problems(error.errors(), recipe_class, given)
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise UserError("\n  ".join([f"{name}: {count} in this recipe", *problems])) from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `UserError` for a missing file, broken YAML, or a key given twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this recipe ({error})") from None
    try:
        given = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, found {type(given).__name__}")
    return given


def to_yaml(recipe: Section) -> str:
    """The recipe as YAML, with every key, in the order of declaration."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _module(stage: str) -> str:
    """The module for `python -m`: an app is given by its full path, a stage by its name."""
    return stage if stage.startswith("apps.") else f"align.{stage}"


def help_text(recipe_class: type[Section], stage: str, sizing: tuple[str, ...] = ()) -> str:
    """The text of `--help`: usage, then every key with its type, default and description."""
    module = sys.modules[recipe_class.__module__]
    lines = [
        f"usage: {program(_module(stage))} RECIPE.yaml [key.sub=value ...] [--dry-run] [--help]",
        *(["       --dry-run [--device-memory 24GB] [--model-shape 124M|1.5B|7B|13B|PRESET|FOLDER]"] if sizing else []),
        "",
        (module.__doc__ or "").strip().split("\n\n")[0],
        "",
        "Keys of the recipe (type = default; the rest are required):",
    ]
    rows = described(recipe_class)
    width = max(len(row.key) for row in rows)
    for row in rows:
        lines.append(f"  {row.key:<{width}}  {row.kind}{'' if row.default is None else f' = {row.default}'}")
        lines.extend(f"  {'':<{width}}    {line}" for line in row.meaning.splitlines())
    return "\n".join(lines)


class Described(NamedTuple):
    """A key as `--help` and the docs show it."""

    key: str  # dotted; NAME stands for a name of the user's own
    kind: str  # its choices or its type
    default: str | None  # None if the key is required
    meaning: str


def described(recipe_class: type[Section]) -> list[Described]:
    """Every key of a recipe with its type, default and meaning, in the order of declaration."""
    return [
        Described(key, _kind(field), _default(field, default), field.description or "")
        for key, field, default in _with_named(keys(recipe_class))
    ]


def keys(
    section: type[Section], prefix: str = "", given: Section | None = None
) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Yields (dotted key, field, default) for every key of a recipe, with the stage's own defaults."""
    for name, field in section.model_fields.items():
        chosen = given is not None and name in given.model_fields_set
        default = getattr(given, name) if chosen else field.default
        inner = _section_of(field)
        if inner is None:
            yield prefix + name, field, default
        else:
            yield from keys(inner, f"{prefix}{name}.", default if isinstance(default, Section) else None)


def _with_named(listed: Iterator[tuple[str, FieldInfo, Any]]) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Adds the keys below a mapping of named sections, such as judges.NAME.votes."""
    for key, field, default in listed:
        yield key, field, default
        kind = field.annotation
        if get_origin(kind) is dict and isinstance(inner := get_args(kind)[1], type) and issubclass(inner, Section):
            yield from _with_named(keys(inner, f"{key}.NAME."))


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses repeated keys: plain YAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"the key {key!r} is given twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _split(argv: list[str], stage: str, sizing: tuple[str, ...], needs_file: bool) -> Command:
    flags: dict[str, str] = {}
    words: list[str] = []
    left = iter(argv)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag in sizing:
            flags[flag] = value if equals else next(left, "")
        elif word.startswith("--"):
            flags[word] = ""
        else:
            words.append(word)
    known = ("--dry-run", *sizing)
    if unknown := [flag for flag in flags if flag not in known]:
        raise UserError(
            f"unknown option {unknown[0]}; the options are {', '.join(known)} and --help (write a key as key.sub=value)"
        )
    if not needs_file and (not words or "=" in words[0]):
        return Command("", words, _dry_run(flags))
    if not words or "=" in words[0]:
        raise UserError(
            f"no recipe given. Usage: {program(_module(stage))} RECIPE.yaml [key.sub=value ...] [--dry-run]"
        )
    return Command(words[0], words[1:], _dry_run(flags))


def _dry_run(flags: dict[str, str]) -> DryRun | None:
    if "--dry-run" not in flags:
        if flags:
            raise UserError(f"{next(iter(flags))} needs --dry-run. Add --dry-run")
        return None
    for flag in SIZING:
        if flag in flags and not flags[flag]:
            raise UserError(f"{flag} needs a value, such as {'24GB' if flag == '--device-memory' else '7B'}")
    memory = flags.get("--device-memory")
    return DryRun(None if memory is None else memory_bytes(memory), flags.get("--model-shape"))


def memory_bytes(text: str) -> float:
    """`24GB` as bytes; also GiB, MB and MiB. Raises `UserError` for anything else."""
    units = {"GB": 1e9, "GiB": 2.0**30, "MB": 1e6, "MiB": 2.0**20}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)", text)
    if found is None or float(found[1]) == 0:
        raise UserError(f"--device-memory {text}: give a number and a unit ({', '.join(units)}), such as 24GB")
    return float(found[1]) * units[found[2]]


def _overrides(words: list[str]) -> dict[str, Any]:
    """`["optim.batch_size=8"]` as `{"optim": {"batch_size": 8}}`; a value is read as YAML."""
    given: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(f"{word!r}: an override is written key.sub=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"{word!r}: the value is not valid YAML: {error}") from None
        for part in reversed(key.split(".")):
            value = {part: value}
        given = merged(given, value)
    return given


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merges two nested mappings. Values of `above` win."""
    whole = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = merged(whole[key], value) if both else value
    return whole


def _section_of(field: FieldInfo) -> type[Section] | None:
    candidates = [field.annotation, *get_args(field.annotation)]
    found = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, Section)]
    is_mapping = getattr(field.annotation, "__origin__", None) in (dict, list, tuple)
    return found[0] if found and not is_mapping else None


def _kind(field: FieldInfo) -> str:
    args = get_args(field.annotation)
    is_choice = args and all(isinstance(arg, str) for arg in args)
    return " | ".join(map(str, args)) if is_choice else _type_name(field.annotation)


def _default(field: FieldInfo, default: Any) -> str | None:
    if default is PydanticUndefined and field.default_factory is not None:
        default = field.default_factory()  # type: ignore[call-arg]
    if default is PydanticUndefined:
        return None
    if isinstance(default, bool):
        return str(default).lower()  # as YAML writes it
    return "none" if default is None else str(default)


def _type_name(kind: Any) -> str:
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    plain = re.sub(r"\b(typing|(align|apps)(\.\w+)*)\.", "", str(kind))  # module paths do not help a reader
    return plain.replace("NoneType", "none").replace("None", "none")


def _problems(errors: list[ErrorDetails], recipe_class: type[Section], given: dict[str, Any]) -> list[str]:
    """One line for each wrong key. Complaints of a union's alternatives are joined by 'or'."""
    complaints: dict[str, list[str]] = {}
    for error in errors:
        path = _real_path(error["loc"], given, recipe_class, missing=error["type"] == "missing")
        complaints.setdefault(path, []).append(_complaint(error, path, recipe_class))
    return [f"{path or 'recipe'}{' or '.join(dict.fromkeys(found))}" for path, found in complaints.items()]


def _real_path(loc: tuple[int | str, ...], given: Any, recipe_class: type[Section], missing: bool) -> str:
    """The dotted key of a pydantic location, without the union alternatives that pydantic adds to it."""
    parts: list[str] = []
    for index, part in enumerate(loc):
        is_last_missing = missing and index == len(loc) - 1
        here = isinstance(given, dict) and part in given
        here = here or (isinstance(given, list) and isinstance(part, int) and part < len(given))
        if here:
            given = given[part]
        elif not (is_last_missing or (index == 0 and part in recipe_class.model_fields)):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _complaint(error: ErrorDetails, path: str, recipe_class: type[Section]) -> str:
    kind, value = error["type"], error["input"]
    if kind == "missing":
        return ": required, but missing"
    if kind == "extra_forbidden":
        return f" = {_shown(value)}: unknown key{_nearest(path, recipe_class)}"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f": {message}" if kind == "value_error" else f" = {_shown(value)}: {message}"


def _nearest(path: str, recipe_class: type[Section]) -> str:
    known = [key for key, _, _ in keys(recipe_class)]
    sections = {key.rsplit(".", n)[0] for key in known for n in range(1, key.count(".") + 1)}
    candidates = sorted({*known, *sections})
    by_path = difflib.get_close_matches(path, candidates, n=1, cutoff=0.6)
    by_name = [key for key in known if key.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
    found = by_path or by_name
    return f"; did you mean {found[0]}?" if found else "; --help lists all keys"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
