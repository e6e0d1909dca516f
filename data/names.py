"""Names of the file system as text.

A name on Linux is bytes, in any encoding. Python keeps bytes that are not UTF-8 as lone surrogates,
which Arrow, JSON, TOML, HTML and terminals refuse: whatever leaves this process is escaped first.
"""

import re
from os import PathLike
from typing import Any

# Control characters as well: a name may hold a line break, or move a terminal's cursor.
_SURROGATES = re.compile("[\ud800-\udfff]")
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


def printable(name: str | PathLike[str]) -> str:
    r"""Return a name as text that every reader takes; `caf\xe9.txt` for bytes that are no UTF-8."""
    return _UNPRINTABLE.sub(_escaped, str(name))


def encodable(text: str) -> str:
    """Return a message with such bytes escaped; its line breaks stay."""
    return _SURROGATES.sub(_escaped, text)


def message_text(text: str) -> str:
    """Return a message that no terminal obeys: control and direction characters are escaped."""
    return _STEERING.sub(_escaped, text)


def encodable_values(value: Any) -> Any:
    """Return a nested value of JSON with such bytes escaped in every string and key."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {encodable(key): encodable_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable_values(item) for item in value]
    return value


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
