"""Values of a nested configuration by dotted keys: `--set a.b=value`, and flat for comparison."""

import tomllib
from collections.abc import Mapping
from typing import Any

from data.errors import InputError
from data.storage.bounded_json import MAX_DEPTH, parse_toml

_SHOWN = 200
"""Most characters of an override that a message repeats."""


def apply_override(
    values: dict[str, Any],
    override: str,
    *,
    usage: str = "write it as section.key=value",
    not_a_table: str = "is a value, not a section",
) -> None:
    """Set one `a.b=value` in nested dictionaries; the value is TOML, else taken as a string.

    Args:
        values: Changed in place; tables that are missing are created.
        override: Dotted key, equals sign, value.
        usage: What the message says where `override` is not of that form.
        not_a_table: What it says of a parent key that holds a value.

    Raises:
        InputError: `override` is not of that form, or a parent key holds a value.
    """
    shown = override if len(override) <= _SHOWN else f"{override[:_SHOWN]}..."
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {shown!r}: {usage}")
    *parents, leaf = key.strip().split(".")
    if len(parents) >= MAX_DEPTH:
        raise InputError(f"--set {shown!r}: nested deeper than {MAX_DEPTH} levels")
    table = values
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {shown!r}: {parent} {not_a_table}")
    table[leaf] = _toml_value(text.strip(), shown)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one dictionary with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _toml_value(text: str, shown: str) -> Any:
    """Parse a value as TOML; what is not TOML is a string without its quotes."""
    try:
        text.encode()
        values = parse_toml(f"value = {text}")
    except UnicodeEncodeError:
        raise InputError(f"--set {shown!r}: the value is not UTF-8 text") from None
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as error:
        raise InputError(f"--set {shown!r}: {error}") from None
    # More keys: the text has lines of its own, and is no TOML value.
    return values["value"] if len(values) == 1 else text
