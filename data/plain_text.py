r"""Text of others (names of files, messages, values of records) made safe to write and to print.

A name on Linux is bytes, in any encoding. Python keeps bytes that are not UTF-8 as lone surrogates,
which Arrow, JSON, TOML, HTML and terminals refuse; and a name or a message may hold a line break,
or move a terminal's cursor. Such characters are escaped: `caf\xe9.txt`, `\x1b[2J`.
"""

import re
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

_HALVES = "\ud800-\udfff"
_STEERING = f"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069{_HALVES}"
"""Control characters but for tab and line feed, and characters of direction."""
_UNENCODABLE = re.compile(f"[{_HALVES}]")
_OBEYED = re.compile(f"[{_STEERING}]")
_UNPRINTABLE = re.compile(f"[{_STEERING}\t\n\u2028\u2029]")
_BREAKS = re.compile("[\t-\r\x85\u2028\u2029]")


def printable(name: str | PathLike[str]) -> str:
    """Return a name, or another text, as one line that every reader takes and none obeys."""
    return _UNPRINTABLE.sub(_escaped, str(name))


def one_line(text: str) -> str:
    """Return a text as `printable` does, but with a space for each tab and line break."""
    return printable(_BREAKS.sub(" ", text))


def encodable(text: str) -> str:
    """Return a message with half characters escaped; its line breaks stay."""
    return _UNENCODABLE.sub(_escaped, text)


def message_text(text: str) -> str:
    """Return a message that no terminal obeys; its line breaks stay."""
    return _OBEYED.sub(_escaped, text)


def printable_values(value: Any) -> Any:
    """Return a nested value of JSON with every string and key in one printable line."""
    return _each_text(value, one_line)


def encodable_values(value: Any) -> Any:
    """Return a nested value of JSON with every string and key encodable."""
    return _each_text(value, encodable)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_each_text(key, change): _each_text(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each_text(item, change) for item in value]
    return value


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
