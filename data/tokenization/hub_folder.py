"""Small files of a Hugging Face folder, opened as what a stranger may have made.

Only regular files of the folder itself are read; a link may lead to another one (`LinkBounds`).
Code that `auto_map` names is never run, and nobody is asked whether to.
"""

import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.storage.bounded_json import MAX_JSON_BYTES, parse_json
from data.storage.link_bounds import LinkBounds
from data.storage.regular_file import read_regular

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
GENERATION_FILE = "generation_config.json"
TEMPLATE_FILE = "chat_template.jinja"
EXTRA_TEMPLATES = "additional_chat_templates"
"""Folder of further chat templates, `NAME.jinja`."""


def hub_file(folder: Path, name: str) -> Path | None:
    """Return a file of the folder; None where there is none of that name.

    Raises:
        DataError: It is a link that leads out of the folder, or no regular file.
    """
    path = folder / name
    if not (path.is_symlink() or path.exists()):
        return None
    if target := LinkBounds(folder).target_outside(path):
        raise DataError(
            f"{path}: a link that leads out of its folder, to {target}: put the file itself there"
        )
    if not path.is_file():
        raise DataError(f"{path}: not a regular file: put the file itself there, or remove it")
    return path


def hub_json(folder: Path, name: str, remedy: str = "mend it") -> dict[str, Any]:
    """Return the JSON object of a file of the folder; empty where there is none of that name.

    Raises:
        DataError: It is no JSON object (says `remedy`), or `hub_file` refuses it.
    """
    path = hub_file(folder, name)
    values, fault = ({}, "") if path is None else _json_object(path)
    if values is None:
        raise DataError(f"{path}: {fault}not a JSON object: {remedy}")
    return values


def _json_object(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the JSON object of a file; where it is none, what the parser said."""
    try:
        values = parse_json(read_regular(path, MAX_JSON_BYTES))
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}: put one there that can be read"
        ) from None
    except ValueError as error:
        return None, f"{error}: "
    return (values if isinstance(values, dict) else None), ""


def tokenizer_settings(folder: Path, remedy: str = "mend it") -> dict[str, Any]:
    """Return `tokenizer_config.json`, with the special tokens that older folders name apart.

    Raises:
        DataError: As `hub_json`.
    """
    return hub_json(folder, SPECIAL_TOKENS_FILE) | hub_json(folder, TOKENIZER_CONFIG_FILE, remedy)


def named_token(settings: dict[str, Any], name: str) -> str | None:
    """Return the text of a token that settings name, such as `bos_token`."""
    value = settings.get(name)
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def check_tokenizer_folder(folder: Path) -> None:
    """Refuse a tokenizer that is made by code in its folder, or a link that leads out of it.

    Raises:
        DataError: `auto_map` names such code, or a file that is to be read is such a link.
    """
    hub_file(folder, TEMPLATE_FILE)
    for name in (TOKENIZER_CONFIG_FILE, "config.json"):
        path = hub_file(folder, name)
        values = None if path is None else _json_object(path)[0]
        named = (values or {}).get("auto_map")
        has_own = not isinstance(named, dict) or "AutoTokenizer" in named
        if named is not None and has_own:
            raise DataError(
                f"{folder / name}: auto_map names code of the folder for its tokenizer, and such"
                " code is never run: give a folder whose tokenizer.json needs none (where this"
                " one's does, remove auto_map)"
            )


def check_links(folder: Path) -> None:
    """Refuse any link that leads out of a folder, before a library reads what it likes there.

    Raises:
        DataError: There is one.
    """
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            hub_file(folder, path.name)


def matching_files(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    """Return the names of files that match, and of further chat templates, in the folder.

    Raises:
        DataError: One of them is a link that leads out of the folder, or no regular file.
    """
    wanted = (*patterns, f"{EXTRA_TEMPLATES}/*.jinja")
    paths = {path for pattern in wanted for path in folder.glob(pattern) if not path.is_dir()}
    names = sorted(str(path.relative_to(folder)) for path in paths)
    for name in names:
        hub_file(folder, name)
    return names


def copy_hub_files(
    folder: Path, target: Path, patterns: tuple[str, ...], left_out: tuple[str, ...] = ()
) -> None:
    """Copy regular files whose names match, but for those `left_out`; and further chat templates.

    Raises:
        DataError: As `matching_files`.
    """
    for name in matching_files(folder, patterns):
        if any(fnmatchcase(name, pattern) for pattern in left_out):
            continue
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / name, target / name)
