"""Text as it is searched for personal data: plain ASCII in place of its look-alikes.

Digits of every script, wide letters, spaces, hyphens and apostrophes of word processors become
those of ASCII, one for one; characters that show nothing (soft hyphens, zero-width spaces, marks
of direction) are left out. What is found is told by its place in the text as it was.
"""

import sys
import unicodedata
from bisect import bisect_right

from data.visible_text import INVISIBLE

_SPACES = "\u00a0\u2007\u2008\u2009\u200a\u202f\u3000"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2212"
_ALIKE = {
    **dict.fromkeys(map(ord, _SPACES), " "),
    **dict.fromkeys(map(ord, _HYPHENS), "-"),
    **dict.fromkeys(map(ord, "\u2019\u02bc"), "'"),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full width
    **{
        code: str(unicodedata.decimal(chr(code)))
        for code in range(0x80, sys.maxunicode + 1)
        if chr(code).isdecimal()
    },
}


class PlainForm:
    """The plain form of a text; `text` is searched, `span` tells places in the original."""

    def __init__(self, original: str) -> None:
        self.text = original
        self._gaps: list[int] = []
        self._removed: list[int] = []
        if original.isascii():
            return
        self.text = original.translate(_ALIKE)
        if not INVISIBLE.search(self.text):
            return
        removed = 0
        for match in INVISIBLE.finditer(self.text):
            self._gaps.append(match.start() - removed)
            removed += len(match.group())
            self._removed.append(removed)
        self.text = INVISIBLE.sub("", self.text)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the start and end in the original of text[start:end]."""
        return self._original(start), self._original(end - 1) + 1

    def _original(self, position: int) -> int:
        gaps = bisect_right(self._gaps, position)
        return position + (self._removed[gaps - 1] if gaps else 0)
