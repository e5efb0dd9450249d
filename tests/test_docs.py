"""The docs tell the truth: pages from code are fresh, links lead somewhere, commands run or at least parse.

A block of commands (```sh) has a mark in the line above it:

    <!-- tested -->            the blocks of a page run here, one after another, in an empty folder with the recipes
    <!-- needs: hub, gpu -->   the block needs what this machine has not: its commands and their keys are only parsed
    <!-- needs: gpu; dry-run -->   the same, and the commands that train run with --dry-run, on a model of 124M
    <!-- dry-run -->           commands that train, with --dry-run in the block or added here
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import align
from align import cli
from align.commands import COMMANDS, Command, entry
from align.config import described, parse_command, parse_training
from align.schema import recipe_class

ROOT = Path(__file__).parents[1]
MADE = ROOT / "docs" / "commands"
FOUND = {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[drb]*/**/README.md")}
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in FOUND if path.relative_to(ROOT).parts[0] != "runs")
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```(?:sh|bash|shell|console)\n(?P<text>.*?)^```", re.M | re.S)
MARK = re.compile(
    r"tested|(?P<needs>needs: (?:files|hub|gpu|people|network|minutes|checkout)(?:, \w+)*)?(?:; )?(?:dry-run)?"
)
PROGRAMS = {"pip", "git", "cd", "make", "python3", ".", "export", "mkdir", "curl", "cat", "echo", "hf"}  # not ours
TRAINS = {"pretrain", "sft", "rm", "ppo", "dpo"}


class Block(NamedTuple):
    """Commands in a page, with the mark above them."""

    page: str
    mark: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for found in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
            yield Block(page, found["mark"] or "", found["text"])


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command, without comments, variables before it, and what is piped."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            yield words


def ours(words: list[str]) -> list[str] | None:
    """`align` and what follows, however it is started; None for another program."""
    if words[0] == "align":
        return words[1:]
    if "-m" in words[:-1]:
        module, *rest = words[words.index("-m") + 1 :]
        names = [name for name, command in COMMANDS.items() if command.module == module and command.main != "demo"]
        assert names or not module.startswith(("align", "apps")), f"no command is {module}"
        return [*names[:1], *rest] if names else None
    assert words[0].removeprefix(".venv/bin/") in PROGRAMS, f"{words[0]}: is this a program that readers have?"
    return None


def indented() -> Iterator[Block]:
    """Single commands in indented blocks, most of them from docstrings; not patterns such as [key=value]."""
    for page in PAGES:
        text = re.sub(BLOCK, "", (ROOT / page).read_text(encoding="utf-8"))
        for line in re.findall(r"^    ((?:align|(?:\S*python|accelerate|torchrun) .*-m) [^\[\n]*)$", text, flags=re.M):
            if "..." not in line and not line.startswith("align COMMAND"):
                yield Block(page, "", re.split(r"  +(?=in ~)", line.rstrip("\\"))[0])


OURS = [(block, words) for block in [*blocks(), *indented()] for words in commands_of(block.text)]


def test_every_block_of_commands_is_marked() -> None:
    found = list(blocks())
    unmarked = [f"{block.page}: {block.text.splitlines()[0]}" for block in found if not known_mark(block.mark)]
    assert len(found) > 40
    assert not unmarked, "\n".join(["mark these blocks (see the top of this file):", *unmarked])


def known_mark(mark: str) -> bool:
    return bool(mark) and re.fullmatch(MARK, mark) is not None


@pytest.mark.parametrize(("block", "words"), OURS, ids=[f"{block.page}: {' '.join(words)}" for block, words in OURS])
def test_a_command_exists_and_takes_these_words(block: Block, words: list[str], capsys: pytest.CaptureFixture) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
        assert words[1] in targets
    given = ours(words)
    if not given or given[0] == "--help":
        return
    name = given[0].replace("-", "_")
    assert name in COMMANDS, f"there is no `align {given[0]}`"
    if "--help" not in given:
        check_words(name, COMMANDS[name], given[1:])


def check_words(name: str, command: Command, words: list[str]) -> None:
    """Raises what the command itself would raise about its options, its recipe and its keys."""
    module = entry(command)
    if hasattr(module, "parser"):
        module.parser().parse_args(words)
    elif name == "demo":
        check_words("pipeline", COMMANDS["pipeline"], ["recipes/demo.yaml", *words])
    elif command.recipe:
        # A recipe of the reader's own is not here: then only the keys can be looked up.
        recipe = next((word for word in words if "=" not in word and not word.startswith("-")), "")
        if recipe and not (ROOT / recipe).exists():
            known = {row.key for row in described(recipe_class(name))}
            asked = {word.partition("=")[0] for word in words if "=" in word and not word.startswith("-")}
            assert not [key for key in asked if not any(row == key or row.startswith(f"{key}.") for row in known)]
            return
        parse = parse_training if name in TRAINS else parse_command
        options = {} if name in TRAINS else {"needs_file": bool(recipe)}
        parse(recipe_class(name), name, [str(ROOT / word) if word == recipe else word for word in words], **options)


DRY = sorted(
    {
        shlex.join(given)
        for block, words in OURS
        if "dry-run" in block.mark
        if (given := ours(words)) and given[0] in TRAINS
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("command", DRY)
def test_a_command_that_trains_passes_its_dry_run(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    sizes = [] if "--dry-run" in command else ["--dry-run", "--model-shape", "124M", "--device-memory", "80GB"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["align", *shlex.split(command), *sizes])
    cli.run()
    assert "peak:" in capsys.readouterr().out


TESTED = sorted({block.page for block in blocks() if block.mark == "tested"})


@pytest.mark.slow
@pytest.mark.parametrize("page", TESTED)
def test_the_commands_of_a_page_run(page: str, tmp_path: Path) -> None:
    for name in ("recipes", "data", "align", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = "\n".join(
        ['align() { "$PYTHON" -m align "$@"; }', 'python() { "$PYTHON" "$@"; }']
        + [block.text for block in blocks() if block.page == page and block.mark == "tested"]
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "-exuo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, f"{page}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


# ---- links ----
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(path.read_text(encoding="utf-8")), flags=re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        found.add(next(s for s in (slug, *(f"{slug}-{n}" for n in range(1, 99))) if s not in found))
    return found


def without_code(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^( *)(`{3,}).*?^\1\2", "", text, flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = ROOT / page
    for target in re.findall(r'\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"', without_code(here.read_text(encoding="utf-8"))):
        path, _, anchor = "".join(target).partition("#")
        if "://" in path:
            continue
        file = (here.parent / path).resolve() if path else here
        assert file.exists(), f"{page} links to {path}, which does not exist"
        assert not anchor or anchor in anchors(file), f"{page}: {path} has no heading for #{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    if page == "docs/log.md":
        return  # dated notes keep the names of their day
    named = re.findall(r"`([\w/.-]+/[\w.-]+\.(?:py|js|css|j2|yaml))`", (ROOT / page).read_text(encoding="utf-8"))
    here = (ROOT, ROOT / "align", ROOT / "apps", (ROOT / page).parent)
    ours = [path for path in named if not path.startswith("trl/")]
    assert not [path for path in ours if not any((folder / path).exists() for folder in here)]


# ---- pages from code ----
def maker() -> ModuleType:
    """docs/pages.py as a module."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_from_code_are_fresh() -> None:
    made = maker().pages()
    stale = [
        path.relative_to(ROOT) for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text
    ]
    assert not stale, f"run `make docs` and commit {', '.join(map(str, stale))}"
    assert set(MADE.glob("*.md")) <= set(made), "a page of a command that is gone"


def test_every_key_has_a_row_and_a_meaning() -> None:
    for name, command in COMMANDS.items():
        page = (MADE / f"{name}.md").read_text(encoding="utf-8")
        for row in described(recipe_class(name)) if command.recipe else ():
            assert row.meaning, f"{name}: {row.key} has no meaning"
            assert f"| `{row.key}` |" in page


def test_the_api_page_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in align.__all__:
        home = getattr(align, name)
        full = home.__name__ if isinstance(home, ModuleType) else f"{home.__module__}.{name}"
        assert f"`{full}`" in page or f"::: {full}\n" in page, f"docs/api.md lacks {full}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 12_000
