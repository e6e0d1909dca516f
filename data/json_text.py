"""JSON and text from outside: one notion of what is bad, for every reader of JSON lines."""

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from typing import Any, Literal

from data.errors import DataError

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAY_HOLD_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")

ARRAY_REMEDY = "an array is not JSON lines: `jq -c '.[]'` makes lines of it"
_UTF16 = "UTF-16: save the file as UTF-8"

BadLineReason = Literal["bad_utf8", "bad_json"]


class BadLineError(ValueError):
    """A line that is not JSON, or not text; `reason` is the word under which it is counted."""

    def __init__(self, reason: BadLineReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: BadLineReason = reason
        self.detail = detail


def decode_text(content: bytes, errors: Literal["strict", "surrogatepass"] = "strict") -> str:
    """Return the text of bytes in UTF-8, with or without its byte order mark.

    Args:
        content: The bytes.
        errors: What becomes of half a character in bytes (WTF-8): refused, or left to the caller.

    Raises:
        BadLineError: They are not UTF-8.
    """
    try:
        text = content.removeprefix(BOM_UTF8).decode(errors=errors)
    except UnicodeDecodeError as error:
        is_utf16 = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
        detail = _UTF16 if is_utf16 else f"{error.reason} at byte {error.start}"
        raise BadLineError("bad_utf8", detail) from None
    # What follows the first line of UTF-16 has no mark, and much of it is UTF-8 with zeros between.
    if 4 * content.count(0) > len(content):
        raise BadLineError("bad_utf8", f"zero bytes, as in {_UTF16}")
    return text


def parse_json(line: bytes) -> Any:
    """Return the value of a line of JSON; its strings may still hold lone surrogates.

    An integer longer than Python's limit of 4,300 digits becomes its text: it stands beside the
    text of a document, and says nothing against it.

    Raises:
        BadLineError: The line is not UTF-8 or not JSON.
    """
    text = decode_text(line, "surrogatepass")  # json.loads would guess another encoding by line
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadLineError("bad_json", str(error)) from None
    except ValueError:  # the limit of digits, which guards int() against quadratic time
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise BadLineError("bad_json", "nested too deeply") from None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < 4000 else digits


def parse_json_text(line: bytes) -> Any:
    r"""Return the value of a line of JSON, all of whose strings and keys can be encoded.

    JSON allows `\ud83d` alone: half a character, which no tokenizer and no file takes. Programs
    that cut text at a number of UTF-16 units write it.

    Raises:
        BadLineError: The line is not UTF-8 or not JSON, or one of its strings holds half a
            character.
    """
    value = parse_json(line)
    if _MAY_HOLD_SURROGATE.search(line):
        try:
            found = find_lone_surrogate(value)
        except RecursionError:
            raise BadLineError("bad_json", "nested too deeply") from None
        if found is not None:
            raise BadLineError("bad_utf8", f"a lone surrogate, U+{ord(found):04X}")
    return value


def find_lone_surrogate(value: Any) -> str | None:
    """Return the first lone surrogate in the strings and keys of a JSON value; None: there is none.

    Python joins the two halves of a pair when it reads JSON: one that is left is alone.
    """
    if isinstance(value, str):
        match = _SURROGATE.search(value)
        return None if match is None else match[0]
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return next(filter(None, map(find_lone_surrogate, value)), None)
    return None


def check_text(text: str, name: str) -> str:
    """Return a text that can be encoded as UTF-8.

    A command line whose bytes are not UTF-8 reaches Python with a lone surrogate for each of them.

    Raises:
        DataError: It cannot; names the text, the character and its position.
    """
    match = _SURROGATE.search(text)
    if match is not None:
        raise DataError(
            f"{name}: character {match.start() + 1} is no character (U+{ord(match[0]):04X}, half of"
            " a pair, or a byte that is not UTF-8): give UTF-8 text"
        )
    return text
