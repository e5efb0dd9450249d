"""What the site needs beyond mkdocs: pages for files outside of docs/, and formulas as MathML.

On GitHub a page may link to any file of the repository. The site has only docs/, so a linked file becomes a page of its
own below source/: a Markdown file as it is, a notebook as its cells, anything else as text in colours.
"""

from __future__ import annotations

import html
import json
import logging
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from align.commands import GROUPS, shown
from apps.web.formulas import mathml
from apps.web.latex import Unreadable

ROOT = Path(__file__).parents[1]
log = logging.getLogger("mkdocs.hooks")

LINK = re.compile(r'(\]\(|(?:src|srcset|href)=")([^)\s"#:]+)((?:#[^)\s"]*)?[)"])')
FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2[ \t]*$|(`+)(?!`).+?\3", flags=re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL)
NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the page of each command to the navigation, in the order of the pipeline."""
    section = next(part["Commands and recipes"] for part in config.nav or [] if "Commands and recipes" in part)
    for title, group in GROUPS.items():
        section.append({title: [{f"align {shown(name)}": f"commands/{name}.md"} for name in group]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the main page and a page for each file that a page links to, and that those link to."""
    add(files, config, "README.md")
    for path in ("CONTRIBUTING.md", "CHANGELOG.md"):
        add(files, config, path)
    waiting = [file for file in files if file.is_documentation_page()]
    while waiting:
        file = waiting.pop()
        for path in linked(file.content_string, source_of(file.src_uri)):
            if not path.startswith("docs/") and (ROOT / path).exists() and not files.get_file_from_path(page_of(path)):
                waiting.append(add(files, config, path))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to files of the repository at their pages."""
    here = source_of(page.file.src_uri)

    def replace(found: re.Match[str]) -> str:
        target = page_of(resolved(found[2], here))
        if files.get_file_from_path(target) is None:
            return found[0]  # mkdocs warns of it
        return found[1] + posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".") + found[3]

    return outside_code(markdown, lambda text: LINK.sub(replace, text))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Writes formulas as MathML, which browsers draw without a script."""

    def replace(found: re.Match[str]) -> str:
        try:
            return mathml(html.unescape(found[2]).strip(), display=found[1] == "div")
        except Unreadable as error:
            log.warning("%s: the formula %s cannot be read (%s)", page.file.src_uri, found[2], error)
            return found[0]

    return FORMULA.sub(replace, content)


def add(files: Files, config: MkDocsConfig, path: str) -> File:
    """Adds a file of the repository as a page."""
    file = File.generated(config, page_of(path), content=as_page(path))
    files.append(file)
    return file


def page_of(path: str) -> str:
    """Where on the site a file of the repository stands, both as paths with slashes."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" if path.endswith(".md") else f"source/{path}.md"


def source_of(uri: str) -> str:
    """The inverse of `page_of`."""
    if uri == "index.md":
        return "README.md"
    if not uri.startswith("source/"):
        return f"docs/{uri}"
    path = uri.removeprefix("source/")
    return path if (ROOT / path).exists() else path.removesuffix(".md")


def resolved(target: str, here: str) -> str:
    """The path in the repository that a link in the file `here` means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), target))


def linked(text: str, here: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    found: list[str] = []
    outside_code(text, lambda part: found.extend(match[2] for match in LINK.finditer(part)) or part)
    for target in found:
        yield resolved(target, here)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with `change` made everywhere but in code."""
    done, end = [], 0
    for code in FENCE.finditer(text):
        done += [change(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*done, change(text[end:])])


def as_page(path: str) -> str:
    """The Markdown of a page that shows a file or a folder."""
    file = ROOT / path
    if file.suffix == ".md":
        return file.read_text(encoding="utf-8")
    if file.is_dir():
        names = sorted(f"{child.name}/" if child.is_dir() else child.name for child in file.iterdir())
        rows = [f"- [{name}]({file.name}/{name.rstrip('/')})" for name in names if not name.startswith(("_", "."))]
        return "\n".join([f"{NOT_SEARCHED}# {path.rstrip('/')}/", "", *rows])
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        return "\n\n".join(cells(json.loads(text)))
    return f"{NOT_SEARCHED}# {path}\n\n{fenced(text, file.suffix.lstrip('.'))}"


def cells(notebook: dict) -> Iterator[str]:
    """A notebook's cells with their printed outputs and pictures."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else fenced(source, "python")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                yield f"![](data:image/png;base64,{''.join(data['image/png'].split())})"
            elif printed := "".join(output.get("text", data.get("text/plain", ""))):
                yield fenced(printed, "text")


def fenced(text: str, language: str) -> str:
    return f"`````{language}\n{text.rstrip()}\n`````"
