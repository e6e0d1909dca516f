"""Files of a Hugging Face directory, opened only where they are plain files of that directory."""

import errno
import os
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.storage.bounded_json import read_json
from data.storage.plain_name import is_plain_name
from data.tokenization.hub_folder import hub_file
from moe.errors import ConfigError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
JSON_LIMIT_BYTES = 512 * 2**20
"""Largest JSON file that is read; an index has about 100 bytes a tensor."""


def named_file(directory: Path, name: object) -> Path:
    """Return the path of a file that an index names, which may be missing.

    Raises:
        ConfigError: The name is no plain name, or what is there is not the directory's own.
    """
    if not is_plain_name(name):
        raise ConfigError(
            f"{directory}: {repr(name)[:60]} is no plain file name: give files of this folder"
        )
    path = directory / name
    return regular_file(directory, name) if path.exists() or path.is_symlink() else path


def regular_file(directory: Path, name: str) -> Path:
    """Return the path of a directory's own regular file, as `hub_file` does.

    Raises:
        ConfigError: It is missing, leads outside, or is no regular file.
    """
    try:
        path = hub_file(directory, name)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if path is None:
        raise ConfigError(f"{directory / name}: {os.strerror(errno.ENOENT)}")
    return path


def read_json_table(directory: Path, name: str) -> dict[str, Any]:
    """Read a JSON file of a directory whose content is an object.

    Raises:
        ConfigError: It is missing, too large, not JSON, nested too deeply, or no object.
    """
    path = regular_file(directory, name)
    values = read_json(path, ConfigError, max_bytes=JSON_LIMIT_BYTES)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: wanted a JSON object, found a {type(values).__name__}")
    return values
