r"""A parser for LaTeX mathematics: tokens, rows, scripts, characters. The commands are in `formulas.py`.

Anything unknown, unclosed or misplaced (a stray &, a second superscript) raises `Unreadable`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from xml.etree.ElementTree import Element

from apps.web import symbols

MAX_DEPTH = 40  # of groups in groups
_TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|.", re.DOTALL)
_INFIX = (r"\over", r"\choose", r"\atop")
_TIGHT = ("", "(", "[", r"\left", r"\bigl", r"\Bigl", r"\{", "}", ")", "]", "&", r"\\", r"\right", ",", "=", "+", "-")
_SCRIPTED = ("msub", "msup", "msubsup", "munder", "mover", "munderover")


class Unreadable(ValueError):
    """A formula that cannot be drawn correctly."""


def element(tag: str, *children: Element, text: str = "", **attributes: str) -> Element:
    made = Element(tag, attributes)
    made.text = text
    made.extend(children)
    return made


def joined(made: list[Element]) -> Element:
    return made[0] if len(made) == 1 and made[0].tag != "mo" else element("mrow", *made)


def bracket(character: str, form: str) -> Element:
    """A bracket that grows with its content; nothing for LaTeX's dot."""
    if not character:
        return element("mrow")
    return element("mo", text=character, form=form, fence="true", stretchy="true")


def operator(character: str) -> Element:
    made = element("mo", text=character)
    if character in symbols.BIG_OPERATORS:
        made.set("movablelimits", "true")
    if character in symbols.UPRIGHT:
        made.set("stretchy", "false")
    if character in "|‖/":
        made.attrib |= {"lspace": "0", "rspace": "0"}
    return made


def fraction(above: Element, below: Element, has_line: bool, in_brackets: bool) -> Element:
    made = element("mfrac", above, below)
    if not has_line:
        made.set("linethickness", "0")
    return element("mrow", bracket("(", "prefix"), made, bracket(")", "postfix")) if in_brackets else made


class Reader:
    """Parses one formula from first to last token. Each method consumes what it reads."""

    def __init__(self, latex: str, commands: Mapping[str, Callable[[Reader, str], Element]]) -> None:
        self.tokens = [*_TOKEN.findall(latex), ""]
        self.commands = commands
        self.at = 0
        self.depth = 0
        self.font = ""

    # ---- tokens ----
    def peek(self) -> str:
        """The next non-space token; "" at the end."""
        while self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at]

    def take(self) -> str:
        token = self.peek()
        self.at += bool(token)
        return token

    def takes(self, token: str) -> bool:
        """Whether the token is next; if so, consumes it."""
        if found := self.peek() == token:
            self.take()
        return found

    def expect(self, token: str) -> None:
        if not self.takes(token):
            raise Unreadable(f"{token} is missing before {self.peek() or 'the end'}")

    def raw(self, closing: str = "}") -> str:
        """The raw characters up to a closing mark, such as a name or a length."""
        rest = self.tokens[self.at :]
        if closing not in rest:
            raise Unreadable(f"{closing} is missing")
        n = rest.index(closing)
        self.at += n + 1
        return "".join(rest[:n]).strip()

    def braced(self) -> str:
        self.expect("{")
        return self.raw()

    # ---- rows and scripts ----
    def row(self, *ends: str) -> Element:
        """Everything up to one of `ends`, which is not consumed."""
        made: list[Element] = []
        font = self.font
        while (token := self.peek()) not in ends:
            if token in _INFIX:
                self.take()
                under = self.row(*ends, *_INFIX)
                if self.peek() in _INFIX:
                    raise Unreadable(f"a second {self.peek()} in one group")
                made = [fraction(joined(made), under, token == r"\over", token == r"\choose")]
                break
            if token in symbols.SWITCHES:
                self.font = symbols.SWITCHES[self.take()]
            elif token in symbols.STYLES:
                self.take()
                made.append(element("mstyle", self.row(*ends), **symbols.STYLES[token]))
            elif token == r"\color":
                self.take()
                made.append(self.in_color(self.braced(), self.row(*ends)))
            else:
                made.append(self._spaced(self.scripted(), made))
        self.font = font
        return joined(made)

    def in_color(self, color: str, inside: Element) -> Element:
        if color not in symbols.COLORS:
            raise Unreadable(f"the color {color}")
        return element("mstyle", inside, mathcolor=color)

    def _spaced(self, piece: Element, before: list[Element]) -> Element:
        """Sets spacing: function names stand apart from letters and numbers; a sign after an operator is a prefix."""
        core = piece
        while core.tag in _SCRIPTED:
            core = core[0]
        after_sign = bool(before) and before[-1].tag == "mo" and before[-1].text not in symbols.CLOSING
        if core.tag == "mo" and (core.text or "")[:1].isalpha() and core.get("form") == "prefix":
            core.set("lspace", "0.167em" if before and before[-1].tag not in ("mo", "mspace") else "0")
            core.set("rspace", "0" if self.peek() in _TIGHT else "0.167em")
        elif core.text in symbols.UNARY and after_sign:
            core.set("form", "prefix")
        return piece

    def scripted(self) -> Element:
        """One atom with its primes and scripts."""
        token = self.peek()
        is_number = token.isdecimal() or (token == "." and self.tokens[self.at + 1].isdecimal())
        base = element("mrow") if token in ("_", "^", "'") else self.number() if is_number else self.piece()
        over_and_under = self._limits(base)
        found = self._scripts()
        if not found:
            return base
        kinds = ("munder", "mover", "munderover") if over_and_under else ("msub", "msup", "msubsup")
        kind = kinds[2] if len(found) == 2 else kinds["^" in found]
        return element(kind, base, *(found[mark] for mark in "_^" if mark in found))

    def _scripts(self) -> dict[str, Element]:
        found: dict[str, Element] = {}
        primes = 0
        while (token := self.peek()) in ("_", "^", "'"):
            self.take()
            if token in found or (token == "'" and "^" in found):
                raise Unreadable(f"two {token} at one place")
            if token == "'":
                primes += 1
            else:
                found[token] = self.argument()
        if primes:
            prime = element("mo", text="′" * primes)
            found["^"] = element("mrow", prime, found["^"]) if "^" in found else prime
        return found

    def _limits(self, base: Element) -> bool:
        r"""Whether scripts go above and below: the operator's default, or as \limits and \nolimits say."""
        usual = base.get("movablelimits") is not None or (len(base) == 2 and base[1].text in symbols.BRACES)
        if self.peek() not in (r"\limits", r"\nolimits"):
            return usual
        if base.tag != "mo" and base.get("movablelimits") is None:
            raise Unreadable("limits belong to an operator")
        base.set("movablelimits", "false")
        return self.take() == r"\limits"

    def argument(self) -> Element:
        """The argument of a command or script: a group or one token."""
        if self.peek() in ("", "_", "^", "'", "&"):
            raise Unreadable("an argument is missing")
        return self.piece()

    def piece(self) -> Element:
        """A group, a character, or a command with its arguments."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("too deep")
        token = self.take()
        if token == "{":
            made = self.row("}")
            self.expect("}")
        elif token in symbols.SPACES:
            made = element("mspace", width=symbols.SPACES[token])
        elif token in self.commands:
            made = self.commands[token](self, token)
        elif token.startswith("\\"):
            made = self._symbol(token)
        else:
            made = self._character(token)
        self.depth -= 1
        return made

    # ---- characters ----
    def number(self) -> Element:
        text = ""
        while (digit := self.tokens[self.at]).isdecimal() or (
            digit == "." and "." not in text and self.tokens[self.at + 1].isdecimal()
        ):
            text += self._styled(digit)
            self.at += 1
        return element("mn", text=text)

    def _styled(self, character: str) -> str:
        found = symbols.in_font(character, self.font)
        if found is None:
            raise Unreadable(f"{character} in a font that has no such letter")
        return found

    def _character(self, token: str) -> Element:
        if not token.isascii():
            return self._foreign(token)
        if token.isalpha():
            return self._letter(token)
        if token.isdecimal():
            return element("mn", text=self._styled(token))
        if token not in symbols.CHARACTERS:
            raise Unreadable(f"{token or 'the end'} in a wrong place")
        return operator(symbols.CHARACTERS[token])

    def _foreign(self, token: str) -> Element:
        kind, name = unicodedata.category(token)[0], unicodedata.name(token, "")
        if kind in "CZM":
            raise Unreadable("a character that cannot be seen")
        if kind in "SP" or "GREEK" in name or "MATHEMATICAL" in name:
            return self._glyph(token)
        text = token  # a word in another script
        while not (following := self.tokens[self.at]).isascii() and unicodedata.category(following)[0] in "LMN":
            text += following
            self.at += 1
        return element("mtext", text=text)

    def _symbol(self, command: str) -> Element:
        character = symbols.symbol(command)
        if character is None:
            raise Unreadable(f"{command} is not known")
        return self._glyph(character)

    def _glyph(self, character: str) -> Element:
        is_arrow = "←" <= character <= "⇿"
        is_sign = is_arrow or unicodedata.category(character) in ("Sm", "Po", "Pd", "Ps", "Pe")
        if character.isalpha() or character in symbols.ORDINARY or not is_sign:
            return self._letter(character)
        return operator(character)

    def _letter(self, character: str) -> Element:
        made = element("mi", text=self._styled(character))
        is_capital = "GREEK CAPITAL" in unicodedata.name(character, "")
        if self.font == "NORMAL" or is_capital or character == "∇":
            made.set("mathvariant", "normal")  # as in LaTeX; browsers slant single letters
        return made
