"""JSON and TOML that somebody else may have written: bounded in size, depth and numbers.

Python's parsers end in RecursionError on deep nesting, take integers of any length (which no float
can hold), and `tomllib` takes time quadratic in the length of a dotted key.
"""

import json
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from data.errors import DataError, InputError
from data.storage.regular_file import MIB, read_regular

MAX_JSON_BYTES = 64 * MIB
MAX_TOML_BYTES = MIB
MAX_DEPTH = 64
"""Most objects, arrays or tables inside one another."""
_JSON_INTEGER_BITS = 128
"""transformers writes 10**30 for "no limit"."""
_TOML_INTEGER_BITS = 64
"""By TOML's specification."""
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_KEY = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_DEEP_KEY = re.compile(rf"(?<![\w-])(?:{_KEY}[ \t]*+\.[ \t]*+){{{MAX_DEPTH}}}")


def parse_json(content: str | bytes) -> Any:
    """Parse a JSON document.

    Raises:
        ValueError: It is not JSON in UTF-8, is nested too deep, has a number out of range, or two
            values of one key, of which readers take the first or the last; says which.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    value = _parsed(
        lambda: json.loads(
            text, parse_constant=_refuse_constant, object_pairs_hook=_with_one_value_a_key
        ),
        text,
    )
    _check(value, _JSON_INTEGER_BITS)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document.

    Raises:
        ValueError: It is not TOML, is nested too deep, or has a value out of range; says which.
    """
    if _DEEP_KEY.search(text):
        raise ValueError(_TOO_DEEP)
    values: dict[str, Any] = _parsed(lambda: tomllib.loads(text), text)
    _check(values, _TOML_INTEGER_BITS, is_toml=True)
    return values


def read_json(
    path: Path,
    error: type[InputError] = DataError,
    *,
    max_bytes: int = MAX_JSON_BYTES,
    follow_link: bool = True,
) -> Any:
    """Return the JSON document in a regular file; see `open_regular` for `follow_link`.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: Of the kind `error`: it cannot be read, is too long, or is not such JSON.
    """
    content = _read(path, error, max_bytes, follow_link)
    try:
        return parse_json(content)
    except ValueError as fault:
        raise error(f"{path}: not valid JSON: {fault}") from None


def read_toml(
    path: Path,
    error: type[InputError] = DataError,
    *,
    max_bytes: int = MAX_TOML_BYTES,
    follow_link: bool = True,
) -> dict[str, Any]:
    """Return the TOML document in a regular file, as `read_json` does.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: Of the kind `error`: it cannot be read, is too long, or is not such TOML.
    """
    content = _read(path, error, max_bytes, follow_link)
    try:
        return parse_toml(content.decode())
    except ValueError as fault:
        raise error(f"{path}: not valid TOML: {fault}") from None


def _read(path: Path, error: type[InputError], max_bytes: int, follow_link: bool) -> bytes:
    try:
        return read_regular(path, max_bytes, follow_link=follow_link)
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise error(f"{path}: {fault.strerror or fault}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _with_one_value_a_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"two values of the key {twice[:60]!r}")
    return values


def _parsed(parse: Callable[[], Any], text: str) -> Any:
    """Call a parser; what is not its own error becomes one that a user can read."""
    try:
        return parse()
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        if "integer string conversion" not in str(error):  # Python's bound, 4300 digits
            raise
        line = re.split(r"[\d_]{4000}", text)[0].count("\n") + 1
        raise ValueError(f"an integer of thousands of digits in line {line}") from None


def _check(value: Any, integer_bits: int, *, is_toml: bool = False) -> None:
    """Check depth and values, level by level: recursion would end where the parser's did."""
    level: list[Any] = [value]
    for depth in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict | list):
                if depth == MAX_DEPTH:
                    raise ValueError(_TOO_DEEP)
                inner += item.values() if isinstance(item, dict) else item
            elif fault := _fault(item, integer_bits, is_toml):
                raise ValueError(f"{_name_of(item, value)} is {fault}")
        level = inner


def _fault(item: Any, integer_bits: int, is_toml: bool) -> str | None:
    if isinstance(item, int):
        bound = 1 << (integer_bits - 1)
        return None if -bound <= item < bound else f"an integer of more than {integer_bits} bits"
    # TOML has `inf` and `nan`: whether a key may be one is for its section to say.
    if isinstance(item, float) and not is_toml and not math.isfinite(item):
        return "beyond the range of floats"
    return (
        "text with a NUL character" if is_toml and isinstance(item, str) and "\0" in item else None
    )


def _name_of(item: Any, value: Any) -> str:
    """Return the dotted name of an item inside `value`, found by identity."""
    level = [("", value)]
    while level:
        inner: list[tuple[str, Any]] = []
        for name, outer in level:
            if outer is item:
                return name.lstrip(".") or "it"
            if isinstance(outer, dict):
                inner += [(f"{name}.{key}", below) for key, below in outer.items()]
            elif isinstance(outer, list):
                inner += [(f"{name}.{i}", below) for i, below in enumerate(outer)]
        level = inner
    return "it"
