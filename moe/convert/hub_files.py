"""Files of a Hugging Face directory, opened only where they are plain files of that directory."""

import json
from pathlib import Path
from typing import Any

from moe.errors import ConfigError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "tokenizer*", "additional_chat_templates/*.jinja")
"""Small files stored with a model: tokenizer, chat templates, generation defaults."""
JSON_LIMIT_BYTES = 512 * 2**20
"""Largest JSON file that is read; an index has about 100 bytes a tensor."""
_DEEPEST = 32
"""Levels of a configuration or an index, with room to spare."""


def named_file(directory: Path, name: object) -> Path:
    """Return the path of a file that an index names, which may be missing.

    Raises:
        ConfigError: The name is no plain name, or what is there is not the directory's own.
    """
    if not isinstance(name, str) or name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ConfigError(
            f"{directory}: {repr(name)[:60]} is no plain file name: give files of this folder"
        )
    path = directory / name
    return regular_file(directory, name) if path.exists() or path.is_symlink() else path


def regular_file(directory: Path, name: str) -> Path:
    """Return the path of a directory's own regular file.

    A link may lead elsewhere in the directory, or into the `blobs` of the download cache whose
    snapshot the directory is.

    Raises:
        ConfigError: It is missing, leads outside, or is no regular file (reading a pipe or a
            device would never end).
    """
    path = directory / name
    try:
        target, home = path.resolve(strict=True), directory.resolve()
    except (OSError, RuntimeError) as error:  # the latter for links in a circle, before 3.13
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    is_blob = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    if not (target.is_relative_to(home) or is_blob):
        raise ConfigError(f"{path}: a link to {target}, outside its folder: put the file itself")
    if not target.is_file():
        raise ConfigError(f"{path}: not a regular file: put the file itself there")
    return path


def small_files(directory: Path) -> list[str]:
    """Return the names of the small files that are kept with a model, relative to its directory.

    Raises:
        ConfigError: One is a link that leads outside, or no file that could be copied.
    """
    paths = {path for pattern in KEPT for path in directory.glob(pattern)}
    names = {str(path.relative_to(directory)) for path in paths if not path.is_dir()}
    for name in names:
        regular_file(directory, name)
    return sorted(names - {INDEX})


def read_json_table(directory: Path, name: str) -> dict[str, Any]:
    """Read a JSON file of a directory whose content is an object.

    Raises:
        ConfigError: It is missing, too large, not JSON, nested too deeply, or no object.
    """
    path = regular_file(directory, name)
    try:
        size = path.stat().st_size
        if size > JSON_LIMIT_BYTES:
            raise ConfigError(f"{path}: {size:,} bytes, but at most {JSON_LIMIT_BYTES:,} are read")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except RecursionError:
        raise _too_deep(path) from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: wanted a JSON object, found a {type(values).__name__}")
    if _is_deeper(values, _DEEPEST):
        raise _too_deep(path)
    return values


def _too_deep(path: Path) -> ConfigError:
    return ConfigError(f"{path}: nested deeper than {_DEEPEST} levels: not a file of this kind")


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        containers = [one for one in level if isinstance(one, (dict, list))]
        level = [
            part for one in containers for part in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)
