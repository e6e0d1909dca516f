"""Text as people see it: whether there is any, and what is safe to print.

Text from others' files (names, reasons) is made safe: no character steers a terminal.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_BREAKS = (0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029)
_UNSAFE: tuple[Iterable[int], ...] = (
    range(0x20),  # among them escape, by which text moves the cursor and sets titles
    range(0x7F, 0xA0),
    (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # direction
    range(0xD800, 0xE000),  # halves of a pair: no file takes them
)
_TABLE = {code: "\ufffd" for codes in _UNSAFE for code in codes} | dict.fromkeys(_BREAKS, " ")
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
"""Unicode's default-ignorable characters (DerivedCoreProperties.txt), for regular expressions."""
# With control characters, halves of a pair, and the braille pattern without dots.
_UNSEEN = f"\\s\\x00-\\x1f\\x7f-\\x9f\ud800-\udfff\u2800{INVISIBLE}"
_VISIBLE = re.compile(f"[^{_UNSEEN}]+")


def has_visible_text(text: str) -> bool:
    """Return whether anything but white space and invisible characters is in a text."""
    return _VISIBLE.search(text) is not None


def visible_text(text: str) -> str:
    """Return what is left of a text without white space and invisible characters."""
    return "".join(_VISIBLE.findall(text))


def printable(text: str) -> str:
    """Return one line of text; control characters are replaced by U+FFFD."""
    return text.translate(_TABLE)


def printable_values(values: Any) -> Any:
    """Return JSON values with every text in them printable, keys too."""
    if isinstance(values, str):
        return printable(values)
    if isinstance(values, Mapping):
        return {printable_values(key): printable_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [printable_values(value) for value in values]
    return values
