"""Values of a nested configuration by dotted keys: `--set a.b=value`, and flat for comparison."""

import tomllib
from collections.abc import Mapping
from typing import Any

from data.errors import InputError


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
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override!r}: {usage}")
    *parents, leaf = key.strip().split(".")
    table = values
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {override!r}: {parent} {not_a_table}")
    try:
        table[leaf] = _toml_value(text.strip())
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        fault = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"--set {key.strip()}: {fault}: give another value") from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one dictionary with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _toml_value(text: str) -> Any:
    """Parse a value as TOML; what is not TOML is a string without its quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
