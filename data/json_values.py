"""JSON that others wrote: numbers of any length, and a bound on nesting."""

import json
from typing import Any

MAX_DEPTH = 64
"""Of files that describe others, such as manifests; theirs are below ten."""


def parse_json(content: str | bytes) -> Any:
    """Parse JSON; an integer longer than Python's limit of 4,300 digits becomes its text.

    Raises:
        ValueError: It is not JSON, or its bytes are not UTF-8.
        RecursionError: It is nested more deeply than Python's own limit.
    """
    try:
        return json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # the limit of digits, which guards int() against quadratic time
        return json.loads(content, parse_int=_number)


def parse_shallow_json(content: str | bytes) -> Any:
    """Parse the JSON of a manifest, whose nesting is bounded.

    Raises:
        ValueError: It is not JSON, or nested more than `MAX_DEPTH` deep.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for outer in level for item in _items(outer)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) < 4000 else digits


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
