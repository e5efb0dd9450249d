"""Tables of LaTeX commands: symbols, spaces, accents, fonts, environments. 4,000 symbols come from latex2mathml."""

from __future__ import annotations

import unicodedata

from latex2mathml.symbols_parser import SYMBOLS

# Commands that end or control a part of a formula: never symbols.
_RESERVED = "left right middle begin end over choose atop limits nolimits hline cr color"
_MARKS = "overparen underparen wideparen overbracket underbracket obrbrak ubrbrak cuberoot fourthroot longdivision"
RESERVED = {rf"\{word}" for word in f"{_RESERVED} {_MARKS}".split()}  # _MARKS go over or around something
CHARACTERS = {"-": "−", "*": "∗"} | {each: each for each in "+=<>/,;:!?.()[]|"}
ESCAPED = {rf"\{each}": each for each in "{}%&#$_"}
SPACES = {
    "~": "0.333em",
    r"\ ": "0.333em",
    r"\,": "0.167em",
    r"\:": "0.222em",
    r"\>": "0.222em",
    r"\;": "0.278em",
    r"\!": "-0.167em",
    r"\quad": "1em",
    r"\qquad": "2em",
    r"\enspace": "0.5em",
    r"\space": "0.333em",
    r"\thinspace": "0.167em",
    r"\medspace": "0.222em",
    r"\thickspace": "0.278em",
    r"\negthinspace": "-0.167em",
    r"\nonumber": "0",
    r"\notag": "0",
}
_FUNCTIONS = """arccos arcsin arctan arg cos cosh cot coth csc deg dim exp hom ker lg ln log sec sin sinh tan tanh"""
_WITH_LIMITS = "argmax argmin det gcd inf lim max min Pr sup"
FUNCTIONS = {rf"\{word}": word for word in f"{_FUNCTIONS} {_WITH_LIMITS}".split()}
FUNCTIONS |= {r"\argmax": "arg max", r"\argmin": "arg min", r"\liminf": "lim inf", r"\limsup": "lim sup"}
WITH_LIMITS = {rf"\{word}" for word in f"{_WITH_LIMITS} liminf limsup".split()}

BIG_OPERATORS = set("∑∏∐⋃⋂⋁⋀⨀⨁⨂⨄⨆")  # in display formulas their limits go above and below
# Symbols that are not operators: no space around them.
ORDINARY = set("%&#_…⋯⋮⋱∞∅∀∃∄∂∇⊤⊥◻□△∠∡∢°℧∎◯℘")
UPRIGHT = set("|‖∣∥()[]{}⟨⟩⌊⌋⌈⌉⌜⌝⌞⌟⟮⟯↑↓↕⇑⇓⇕∖⧵/\\")  # else they would grow with their neighbours
UNARY = set("+−±∓")
CLOSING = set(")]}|‖⟩⌋⌉!′")
ACCENTS = {  # the mark, and whether it stretches
    r"\hat": ("^", False),
    r"\widehat": ("^", True),
    r"\tilde": ("~", False),
    r"\widetilde": ("~", True),
    r"\bar": ("¯", False),
    r"\overline": ("‾", True),
    r"\vec": ("→", False),
    r"\dot": ("˙", False),
    r"\ddot": ("¨", False),
    r"\acute": ("´", False),
    r"\grave": ("`", False),
    r"\check": ("ˇ", False),
    r"\breve": ("˘", False),
    r"\mathring": ("˚", False),
    r"\overrightarrow": ("→", True),
    r"\overleftarrow": ("←", True),
    r"\overleftrightarrow": ("↔", True),
    r"\overbrace": ("⏞", True),
    r"\underbrace": ("⏟", True),
    r"\underline": ("_", True),
}
BRACES = {"⏞", "⏟"}  # their scripts go above or below
ARROWS = {  # long arrows, since browsers do not stretch arrows with labels
    r"\xrightarrow": "⟶",
    r"\xleftarrow": "⟵",
    r"\xleftrightarrow": "⟷",
    r"\xRightarrow": "⟹",
    r"\xLeftarrow": "⟸",
    r"\xmapsto": "⟼",
    r"\xrightleftharpoons": "⇌",
}
FRACTIONS: dict[str, tuple[bool, str]] = {  # with a line, whether in the size of a line of its own
    r"\frac": (True, ""),
    r"\dfrac": (True, "true"),
    r"\cfrac": (True, "true"),
    r"\tfrac": (True, "false"),
    r"\binom": (False, ""),
    r"\dbinom": (False, "true"),
    r"\tbinom": (False, "false"),
}
STYLES = {
    r"\displaystyle": {"displaystyle": "true", "scriptlevel": "0"},
    r"\textstyle": {"displaystyle": "false", "scriptlevel": "0"},
    r"\scriptstyle": {"displaystyle": "false", "scriptlevel": "1"},
    r"\scriptscriptstyle": {"displaystyle": "false", "scriptlevel": "2"},
}
SIZES = {"big": "1.2em", "Big": "1.623em", "bigg": "2.047em", "Bigg": "2.47em"}
BIG = {rf"\{word}{side}": size for word, size in SIZES.items() for side in ("", "l", "r", "m")}
FENCES = {
    r"\bra": ("⟨", "|"),
    r"\ket": ("|", "⟩"),
    r"\braket": ("⟨", "⟩"),
    r"\abs": ("|", "|"),
    r"\norm": ("‖", "‖"),
}
ENCLOSED = {
    r"\boxed": "box",
    r"\cancel": "updiagonalstrike",
    r"\bcancel": "downdiagonalstrike",
    r"\xcancel": "updiagonalstrike downdiagonalstrike",
}
FONTS = {
    r"\mathrm": "NORMAL",
    r"\mathnormal": "",
    r"\mathit": "",
    r"\mathbf": "BOLD",
    r"\boldsymbol": "BOLD ITALIC",
    r"\bm": "BOLD ITALIC",
    r"\mathbb": "DOUBLE-STRUCK",
    r"\Bbb": "DOUBLE-STRUCK",
    r"\mathcal": "SCRIPT",
    r"\mathscr": "SCRIPT",
    r"\mathfrak": "FRAKTUR",
    r"\mathsf": "SANS-SERIF",
    r"\mathtt": "MONOSPACE",
}
SWITCHES = {r"\rm": "NORMAL", r"\bf": "BOLD", r"\it": "", r"\cal": "SCRIPT", r"\mathstrut": ""}
_UPRIGHT_TEXTS = "text textrm textnormal textup textmd mbox hbox"
TEXTS = {rf"\{word}": "" for word in _UPRIGHT_TEXTS.split()}
TEXTS |= {
    r"\textbf": "bold",
    r"\textit": "italic",
    r"\emph": "italic",
    r"\texttt": "monospace",
    r"\textsf": "sans-serif",
}
_COLORS = "red blue green orange purple magenta brown gray black"  # which page.css makes readable by day and night
COLORS = set(_COLORS.split())

# Environments: the brackets around the table, and its columns (one letter each; with `...` the last ones repeat,
# without it there are no more).
ENVIRONMENTS = {
    "matrix": ("", "", "c..."),
    "smallmatrix": ("", "", "c..."),
    "pmatrix": ("(", ")", "c..."),
    "bmatrix": ("[", "]", "c..."),
    "Bmatrix": ("{", "}", "c..."),
    "vmatrix": ("|", "|", "c..."),
    "Vmatrix": ("‖", "‖", "c..."),
    "array": ("", "", ""),  # written after it
    "cases": ("{", "", "ll"),
    "dcases": ("{", "", "ll"),
    "rcases": ("", "}", "ll"),
    "eqnarray": ("", "", "rcl"),
    "eqnarray*": ("", "", "rcl"),
}
_ALIGNED, _GATHERED = (
    "aligned align align* split alignat alignat* alignedat",
    "gathered gather gather* equation equation*",
)
ENVIRONMENTS |= dict.fromkeys(_ALIGNED.split(), ("", "", "rl..."))
ENVIRONMENTS |= dict.fromkeys(_GATHERED.split(), ("", "", "c"))

_CORRECTED = {r"\sim": "∼", r"\ast": "∗", r"\setminus": "∖", r"\perp": "⟂", r"\square": "□", r"\Box": "□", r"\|": "‖"}
_CORRECTED |= {r"\dag": "†", r"\S": "§", r"\P": "¶", r"\copyright": "©", r"\pounds": "£"}
_SHORTER = {
    "DOUBLE-STRUCK": "DOUBLE-STRUCK",
    "SCRIPT": "SCRIPT",
    "FRAKTUR": "BLACK-LETTER",
    "BOLD ITALIC": "MATHEMATICAL BOLD",
}


def symbol(command: str) -> str | None:
    r"""The character of `\name`, or None. Combining marks and spaces are not symbols."""
    if command in RESERVED:
        return None
    if found := ESCAPED.get(command) or _CORRECTED.get(command):
        return found
    code = SYMBOLS.get(command)
    return chr(int(code, 16)) if code and unicodedata.category(chr(int(code, 16)))[0] not in "MZC" else None


def in_font(character: str, font: str) -> str | None:
    """The Unicode character of a letter in a font, since browsers apply no math fonts. None if Unicode has none."""
    if font in ("", "NORMAL") or not (character.isalnum() or character == "∇"):
        return character
    name = unicodedata.name(character)
    for word in ("LATIN ", "GREEK ", "LETTER ", "LUNATE "):
        name = name.replace(word, "")
    for prefix in (f"MATHEMATICAL {font}", _SHORTER.get(font)):
        try:
            return unicodedata.lookup(f"{prefix} {name}")
        except KeyError:
            continue
    return None
