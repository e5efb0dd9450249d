"""People's names: which are valid, and which look like another's.

Letters of other scripts can look like Latin ones. So a name keeps to one script (Latin may be mixed with East Asian
scripts, as is usual there), and look-alike letters are compared as equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from apps.store.errors import BadPayload

LONGEST_NAME = 60
BESIDE_LATIN = {"LATIN", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"}
# Fillers, joiners and selectors that Unicode counts as letters and marks, though they are invisible.
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
    """The normalized name to show.

    Raises `BadPayload` if it is empty, too long, has invisible characters, or mixes scripts.
    """
    shown = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", name)).strip()
    if not 1 <= len(shown) <= LONGEST_NAME:
        raise BadPayload([f"name: {len(shown)} characters; give 1 to {LONGEST_NAME}"])
    unseen = any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") for character in shown)
    if unseen or INVISIBLE.search(shown):
        raise BadPayload(["name: it has an invisible character; remove it"])
    scripts = _scripts(shown)
    if len(scripts) > 1 and not scripts <= BESIDE_LATIN:
        raise BadPayload([f"name: it mixes {' and '.join(sorted(scripts))} letters; write it in one script"])
    return shown


def name_key(name: str) -> str:
    """One spelling for names that differ only in case. NUL is replaced, which PostgreSQL cannot search for."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).strip().casefold()).replace("\0", "\ufffd")


def look_alike(name: str, others: Iterable[str]) -> str | None:
    """The first of the other names that this one can be mistaken for, though they differ by more than case."""
    drawn = _drawn(name)
    alike = (other for other in others if any(map(str.__eq__, drawn, _drawn(other))))
    return next((other for other in alike if name_key(other) != name_key(name)), None)


@lru_cache(maxsize=10_000)
def _drawn(name: str) -> tuple[str, str]:
    """A name's looks: ignoring case, and as written with I, l and 1 as the same stroke."""
    latin = name.translate(_LATIN)
    return latin.casefold(), latin.translate(_STROKES)


def _scripts(name: str) -> set[str]:
    """The scripts of a name's letters, from their Unicode names."""
    letters = [character for character in name if unicodedata.category(character).startswith("L")]
    return {re.split("[ -]", unicodedata.name(letter))[0] for letter in letters} - {"MODIFIER", "IDEOGRAPHIC"}
