r"""Converting LaTeX mathematics to MathML, completely or not at all: half a formula would look like another one.

The output is MathML Core, which browsers support. So letters of a font are their own Unicode characters, and page.css
draws alignment, lines, boxes and strokes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from xml.etree.ElementTree import Element, tostring

from apps.web import symbols
from apps.web.latex import Reader, Unreadable, bracket, element, fraction, joined, operator

MAX_EM = 20.0  # the longest space
_LENGTH = re.compile(r"\s*(-?\d*\.?\d+)\s*(em|ex|pt|mm|cm|in|mu)\s*")
_EM = {"em": 1.0, "ex": 0.45, "pt": 0.1, "mm": 0.285, "cm": 2.85, "in": 7.23, "mu": 1 / 18}
_SIDES = {"l": "left", "r": "right", "c": "center"}


def mathml(latex: str, display: bool) -> str:
    """The formula as a `math` element. Raises `Unreadable`."""
    row = Reader(latex, COMMANDS).row("")  # reads to the end
    root = element("math", row, display="block" if display else "inline")
    return tostring(root, encoding="unicode", short_empty_elements=False)


# ---- commands: each function reads its arguments ----
def _accent(reader: Reader, command: str) -> Element:
    mark, grows = symbols.ACCENTS[command]
    sign = element("mo", text=mark, stretchy="true" if grows else "false")
    if command.startswith(r"\under"):
        return element("munder", reader.argument(), sign, accentunder="true")
    return element("mover", reader.argument(), sign, accent="true")


def _arrow(reader: Reader, command: str) -> Element:
    under = _optional(reader)
    arrow = element("mo", text=symbols.ARROWS[command])
    over = reader.argument()
    return element("mover", arrow, over) if under is None else element("munderover", arrow, under, over)


def _function(reader: Reader, command: str) -> Element:
    name = element("mo", text=symbols.FUNCTIONS[command].replace(" ", "\u2009"), form="prefix")
    if command in symbols.WITH_LIMITS:
        name.set("movablelimits", "true")
    return name


def _operator_name(reader: Reader, command: str) -> Element:
    has_limits = reader.takes("*")
    inside = _words(reader, command)
    if inside.tag != "mtext":
        raise Unreadable("a name with a formula in it")
    name = element("mo", text=inside.text or "", form="prefix")
    if has_limits:
        name.set("movablelimits", "true")
    return name


def _big_operator(reader: Reader, command: str) -> Element:
    return element("mrow", reader.argument(), movablelimits="true")


def _fraction(reader: Reader, command: str) -> Element:
    has_line, display = symbols.FRACTIONS[command]
    made = fraction(reader.argument(), reader.argument(), has_line, in_brackets=not has_line)
    return element("mstyle", made, displaystyle=display, scriptlevel="0") if display else made


def _root(reader: Reader, command: str) -> Element:
    index = _optional(reader)
    inside = reader.argument()
    return element("msqrt", inside) if index is None else element("mroot", inside, index)


def _optional(reader: Reader) -> Element | None:
    if not reader.takes("["):
        return None
    made = reader.row("]")
    reader.expect("]")
    return made


def _stacked(reader: Reader, command: str) -> Element:
    mark, base = reader.argument(), reader.argument()
    return element("munder" if command == r"\underset" else "mover", base, mark)


def _lettered(reader: Reader, command: str) -> Element:
    outer, reader.font = reader.font, symbols.FONTS[command]
    made = reader.argument()
    reader.font = outer
    if len(made) > 1 and all(each.tag == "mi" and each.get("mathvariant") == "normal" for each in made):
        return element("mi", text="".join(each.text or "" for each in made))  # a word, as in \mathrm{Var}
    return made


def _enclosed(reader: Reader, command: str) -> Element:
    return element("menclose", reader.argument(), notation=symbols.ENCLOSED[command])


def _phantom(reader: Reader, command: str) -> Element:
    hidden = element("mphantom", reader.argument())
    sizes = {r"\hphantom": {"height": "0", "depth": "0"}, r"\vphantom": {"width": "0"}}
    return element("mpadded", hidden, **sizes[command]) if command in sizes else hidden


def _negated(reader: Reader, command: str) -> Element:
    made = reader.argument()
    if made.tag != "mo" or len(made.text or "") != 1:
        raise Unreadable("what is negated is no sign")
    made.text = unicodedata.normalize("NFC", f"{made.text}\u0338")
    return made


def _modulo(reader: Reader, command: str) -> Element:
    if command != r"\pmod":
        return element("mo", text="mod", lspace="0.222em", rspace="0.222em")
    word = element("mo", text="mod", lspace="0", rspace="0.333em")
    return element("mrow", element("mspace", width="1em"), operator("("), word, reader.argument(), operator(")"))


def _space(reader: Reader, command: str) -> Element:
    return element("mspace", width=f"{_length(reader.braced()):.3f}em")


def _colored(reader: Reader, command: str) -> Element:
    return reader.in_color(reader.braced(), reader.argument())


def _tag(reader: Reader, command: str) -> Element:
    marks = ("", "") if reader.takes("*") else ("(", ")")
    label = _words(reader, command)
    around = [element("mtext", text=mark) for mark in marks]
    return element("mrow", element("mspace", width="2em"), around[0], label, around[1])


# ---- texts ----
def _words(reader: Reader, command: str) -> Element:
    """A text argument; dollars enclose formulas in it."""
    reader.expect("{")
    made: list[Element] = []
    text, level = "", 0
    while (token := reader.tokens[reader.at]) != "}" or level:
        reader.at += 1
        if token == "$":
            made += [_text(text, command), reader.row("$")]
            reader.expect("$")
            text = ""
        elif token in ("{", "}"):
            level += 1 if token == "{" else -1
        else:
            text += _written(token)
    reader.at += 1
    return joined([*made, _text(text, command)])


def _text(text: str, command: str) -> Element:
    made = element("mtext", text=text)
    if variant := symbols.TEXTS.get(command):
        made.set("mathvariant", variant)
    return made


def _written(token: str) -> str:
    """The character of a text's token."""
    if token in symbols.ESCAPED:
        return symbols.ESCAPED[token]
    if token.isspace() or token in ("~", r"\ ", r"\,"):
        return "\u00a0"  # a normal space would be dropped at the ends
    if token in ("", "#", "&", "%") or token.startswith("\\") or unicodedata.category(token) in ("Cc", "Cf"):
        raise Unreadable(f"{token or 'the end'} in a text")
    return token


# ---- brackets ----
def _delimiter(reader: Reader) -> str:
    token = reader.take()
    found = {".": "", "<": "⟨", ">": "⟩"}.get(token, token if token in symbols.CHARACTERS else symbols.symbol(token))
    if found is None or (found and found not in symbols.UPRIGHT):
        raise Unreadable(f"{token} is no bracket")
    return found


def _bracketed(reader: Reader, command: str) -> Element:
    made = [bracket(_delimiter(reader), "prefix")]
    while True:
        made.append(reader.row(r"\middle", r"\right"))
        if reader.take() == r"\right":
            return element("mrow", *made, bracket(_delimiter(reader), "postfix"))
        made.append(bracket(_delimiter(reader), "infix"))


def _fenced(reader: Reader, command: str) -> Element:
    before, after = symbols.FENCES[command]
    return element("mrow", bracket(before, "prefix"), reader.argument(), bracket(after, "postfix"))


def _sized(reader: Reader, command: str) -> Element:
    size = symbols.BIG[command]
    return element("mo", text=_delimiter(reader), stretchy="true", minsize=size, maxsize=size)


# ---- tables ----
def _environment(reader: Reader, command: str) -> Element:
    name = reader.braced()
    if name not in symbols.ENVIRONMENTS:
        raise Unreadable(f"the environment {name}")
    before, after, columns = symbols.ENVIRONMENTS[name]
    if name == "array" or "alignat" in name or "alignedat" in name:
        written = reader.braced()
        columns = written if name == "array" else columns
    elif name in ("aligned", "gathered") and reader.tokens[reader.at] == "[":
        reader.raw("]")
    table = _table(reader, name, columns)
    reader.expect(r"\end")
    if reader.braced() != name:
        raise Unreadable(f"{name} does not end")
    if columns == "rl...":
        table.set("columnspacing", "0em")
    if name not in ("array", "cases") and "matrix" not in name:
        table.set("displaystyle", "true")
    return element("mrow", bracket(before, "prefix"), table, bracket(after, "postfix")) if before or after else table


def _table(reader: Reader, name: str, columns: str) -> Element:
    table = element("mtable")
    while True:
        has_line = name == "array" and reader.takes(r"\hline")
        if reader.peek() == r"\end" and len(table):  # the last row ended with \\
            _draw("line-bottom", table[-1] if has_line else [])
            return table
        table.append(_table_row(reader, name, columns))
        _draw("line-top", table[-1] if has_line else [])
        if reader.peek() == r"\end":
            return table
        _end_row(reader)


def _table_row(reader: Reader, name: str, columns: str) -> Element:
    letters, lines = _columns(columns)
    row = element("mtr", _cell(reader))
    while reader.takes("&"):
        row.append(_cell(reader))
    if len(row) > len(letters) and not columns.endswith("..."):
        raise Unreadable(f"more cells than {name} has columns")
    for i, cell in enumerate(row):
        cell.set("columnalign", _SIDES[letters[i % len(letters)]])
    for i, side in lines:
        _draw(side, row[i : i + 1])
    return row


def _columns(columns: str) -> tuple[str, list[tuple[int, str]]]:
    """Each column's alignment letter, and the lines as (column, side)."""
    letters = columns.removesuffix("...").replace("|", "")
    if not re.fullmatch("[lrc]+", letters):
        raise Unreadable(f"the columns {columns}")
    before = [len(columns[:i].replace("|", "")) for i, letter in enumerate(columns) if letter == "|"]
    return letters, [(max(0, n - 1), "line-right" if n else "line-left") for n in before]


def _draw(line: str, cells: Iterable[Element]) -> None:
    for cell in cells:
        cell.set("class", f"{cell.get('class', '')} {line}".strip())


def _cell(reader: Reader) -> Element:
    return element("mtd", reader.row("&", r"\\", r"\cr", r"\end"))


def _end_row(reader: Reader) -> None:
    if reader.take() not in (r"\\", r"\cr"):
        raise Unreadable("a row does not end")
    if reader.tokens[reader.at] == "[":
        reader.at += 1
        _length(reader.raw("]"))


def _length(text: str) -> float:
    """A length in em."""
    found = _LENGTH.fullmatch(text)
    if not found or abs(length := float(found[1]) * _EM[found[2]]) > MAX_EM:
        raise Unreadable(f"the length {text}")
    return length


def _substack(reader: Reader, command: str) -> Element:
    reader.expect("{")
    table = element("mtable", rowspacing="0.1em")
    while True:
        table.append(element("mtr", element("mtd", reader.row(r"\\", "}"))))
        if reader.take() == "}":
            return table


COMMANDS: dict[str, Callable[[Reader, str], Element]] = {
    r"\left": _bracketed,
    r"\begin": _environment,
    r"\sqrt": _root,
    r"\operatorname": _operator_name,
    r"\mathop": _big_operator,
    r"\not": _negated,
    r"\substack": _substack,
    r"\textcolor": _colored,
    r"\tag": _tag,
    r"\hspace": _space,
    **dict.fromkeys((r"\bmod", r"\mod", r"\pmod"), _modulo),
    **dict.fromkeys((r"\overset", r"\underset", r"\stackrel"), _stacked),
    **dict.fromkeys((r"\phantom", r"\hphantom", r"\vphantom"), _phantom),
    **dict.fromkeys(symbols.FUNCTIONS, _function),
    **dict.fromkeys(symbols.ACCENTS, _accent),
    **dict.fromkeys(symbols.ARROWS, _arrow),
    **dict.fromkeys(symbols.FRACTIONS, _fraction),
    **dict.fromkeys(symbols.FONTS, _lettered),
    **dict.fromkeys(symbols.ENCLOSED, _enclosed),
    **dict.fromkeys(symbols.TEXTS, _words),
    **dict.fromkeys(symbols.FENCES, _fenced),
    **dict.fromkeys(symbols.BIG, _sized),
}
