"""Words in any script: on films (Pillow) and on figures (matplotlib).

    text ─ uncovered? ─ no ─> the usual font
                      └ yes ─> a font of this machine that has all of it, or the text spelled out

A font with all scripts would be larger than this package. The extra "fonts" brings one for Hangul.

Lesson: notebooks/10_capstone.ipynb
"""

import logging
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

__all__ = ["cover", "font_for", "legible"]

USUAL = font_manager.findfont("DejaVu Sans")
LETTER = re.compile(r".* (?:SYLLABLE|LETTER|CHARACTER) (.+)")


def font_for(text: str) -> str | None:
    """The file of a font that has every character of a text; None if this machine has none."""
    wanted = frozenset(map(ord, filter(str.isprintable, text))) - _characters(USUAL)
    return _font_with(wanted) if wanted else USUAL


def legible(text: str) -> str:
    """The same text where some font has it, else what no usual font has in Latin letters."""
    if font_for(text):
        return text
    _warn()
    usual = _characters(USUAL)
    runs = groupby(text, key=lambda c: ord(c) in usual or not c.isprintable())
    return "".join("".join(run) if known else "-".join(map(_spelled, run)) for known, run in runs)


def cover(texts: Iterable[Text]) -> None:
    """Let a figure's words be drawn: by another font where theirs lacks something."""
    for text in texts:
        words = text.get_text()
        if words.isascii():
            continue
        path = font_for(words)
        if path is None:
            text.set_text(legible(words))
        elif path != USUAL:
            font_manager.fontManager.addfont(path)
            name = font_manager.FontProperties(fname=path).get_name()
            text.set_fontfamily(["DejaVu Sans", name])


def _spelled(character: str) -> str:
    found = LETTER.fullmatch(unicodedata.name(character, ""))
    return found[1].lower().replace(" ", "") if found else f"U+{ord(character):04X}"


@lru_cache(1024)
def _characters(path: str) -> frozenset[int]:
    """The code points that a font can draw at any size."""
    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap() if font.scalable else ())
    except (OSError, RuntimeError, UnicodeError):  # a broken font is none
        return frozenset()


@lru_cache(1024)
def _font_with(wanted: frozenset[int]) -> str | None:
    """Plain faces first; the font of last resort has a box for everything, which says nothing."""
    korean = find_spec("koreanize_matplotlib")  # the extra "fonts"
    folders = korean.submodule_search_locations if korean else []
    paths = font_manager.findSystemFonts() + font_manager.findSystemFonts(folders)
    for path in sorted(paths, key=lambda path: ("regular" not in path.lower(), path)):
        if wanted <= _characters(path) and "LastResort" not in path:
            return path
    return None


@lru_cache(None)
def _warn() -> None:
    words = "No font of this machine has some letters of these names, which are spelled out. "
    words += "For Korean install the extra: mobileinst[fonts]. Debian has fonts-noto-cjk for more."
    logging.getLogger("minst").warning(words)
