"""Text from others' files (names, reasons), made safe to print: no character steers a terminal."""

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
