"""People's names: which can be one, and which look like another's.

Letters of other scripts can look like Latin ones. So a name keeps to one script (Latin may stand among those of East
Asia, as it does there), and the letters that look alike are compared as one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from apps.store.errors import BadPayload

LONGEST_NAME = 60
BESIDE_LATIN = {"LATIN", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"}
# Fillers, joiners and selectors that Unicode counts as letters and marks, though nothing is drawn for them.
INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Of Cyrillic, Greek, Armenian, Cherokee and Lisu, and of Latin itself: after Unicode's confusables.txt (UTS 39).
LIKE_LATIN = {
    **dict(zip("АВЕЅІЈКМНОРСТУХҮԌԚԜѴӀ", "ABESIJKMHOPCTYXYGQWVI", strict=True)),
    **dict(zip("аеѕіјорсгухүһԁԛԝѵӏ", "aesijopcryxyhdqwvl", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧͿ", "ABEZHIKMNOPTYXJ", strict=True)),
    **dict(zip("ανγιοκρυχϳ", "avyiokpuxj", strict=True)),
    **dict(zip("ՕՍՏԼօոսհցզյ", "OUSLonuhgqj", strict=True)),
    **dict(zip("ᎠᎡᎢᎪᎫᎬᎳᎷᎻᎽᏀᏃᏢᏞᏟᏦᏙᏚᎥᏏ", "DRTAJEWMHYGZPLCKVSib", strict=True)),
    **dict(zip("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "BPDTGKJCZFMNLSRVHWXYAEIOU", strict=True)),
    **dict(zip("ıɑɡ", "iag", strict=True)),
}
_LATIN = str.maketrans(LIKE_LATIN)
_STROKES = str.maketrans("I1|0", "lllO")


def checked_name(name: str) -> str:
    """A name as it is shown.

    Raises `BadPayload` for one that is empty, too long, has invisible characters, or letters of scripts that are not
    written together.
    """
    shown = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", name)).strip()
    if not 1 <= len(shown) <= LONGEST_NAME:
        raise BadPayload([f"name: {len(shown)} characters; give 1 to {LONGEST_NAME}"])
    unseen = any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in shown)
    if unseen or INVISIBLE.search(shown):
        raise BadPayload(["name: it has a character that cannot be seen; leave it out"])
    scripts = _scripts(shown)
    if len(scripts) > 1 and not scripts <= BESIDE_LATIN:
        raise BadPayload([f"name: it mixes letters that are {' and '.join(sorted(scripts))}; write it in one script"])
    return shown


def name_key(name: str) -> str:
    """One spelling for names that look alike but for case. None has NUL, which PostgreSQL would not even look for."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).strip().casefold()).replace("\0", "\ufffd")


def look_alike(name: str, others: Iterable[str]) -> str | None:
    """The first of the other names that this one could be taken for, though they differ by more than case."""
    drawn = _drawn(name)
    alike = (other for other in others if any(map(str.__eq__, drawn, _drawn(other))))
    return next((other for other in alike if name_key(other) != name_key(name)), None)


@lru_cache(maxsize=10_000)
def _drawn(name: str) -> tuple[str, str]:
    """What a name looks like: whatever its case, and as it is written, where I, l and 1 are one stroke."""
    latin = name.translate(_LATIN)
    return latin.casefold(), latin.translate(_STROKES)


def _scripts(name: str) -> set[str]:
    """The scripts of its letters, which their Unicode names begin with."""
    letters = [character for character in name if unicodedata.category(character).startswith("L")]
    return {re.split("[ -]", unicodedata.name(letter))[0] for letter in letters} - {"MODIFIER", "IDEOGRAPHIC"}
