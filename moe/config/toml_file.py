"""TOML files as plain values."""

from pathlib import Path
from typing import Any

from data.storage import bounded_json
from moe.errors import ConfigError


def read_toml(path: Path, *, follow_link: bool = True) -> dict[str, Any]:
    """Parse a TOML file; `follow_link` is for files that the user names, as in `open_regular`.

    Raises:
        ConfigError: It is missing, cannot be read, or is no TOML within bounds.
    """
    try:
        return bounded_json.read_toml(path, ConfigError, follow_link=follow_link)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
