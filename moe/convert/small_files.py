"""The small files that come with a Hugging Face model: checked at the door, kept as they came."""

from pathlib import Path
from typing import Any

from data.errors import DataError
from data.storage.regular_file import MIB, read_regular
from data.tokenization.hub_folder import (
    GENERATION_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
    check_tokenizer_folder,
    copy_hub_files,
    hub_file,
    hub_json,
    matching_files,
    named_token,
)
from data.tokenization.info import TOKENIZER_FILE
from moe.convert.class_kinds import one_or_more_ids
from moe.convert.hub_config import HubConfig
from moe.convert.token_ids import KEYS

KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "tokenizer*")
"""Small files stored with a model: tokenizer, chat template, generation defaults."""
OF_WEIGHTS = ("*.index.json", "adapter_config.json")
"""Those that describe weights in other files: shards that there were, and adapters, which are not
read here and which transformers would look for."""
OBJECTS = (
    GENERATION_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, "added_tokens.json",
    "chat_template.json",
)  # fmt: skip
"""Those that the next program reads as objects, and `to-hf` writes again."""
TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "pad", "unk", "sep", "cls", "mask"))
MAX_TEMPLATE_BYTES = MIB


def check_small_files(source: Path) -> None:
    """Check what comes with a Hugging Face model, before its tensors are converted.

    Raises:
        DataError: A file is a link that leads out of the folder, or no regular file; one that
            programs read is not what they read, or holds a value that they would not take; or a
            tokenizer that is there is made by code of the folder.
        ConfigError: A token id is no number.
    """
    names = matching_files(source, KEPT)
    found = {name: hub_json(source, name) for name in OBJECTS}
    generation = HubConfig(str(source / GENERATION_FILE), found[GENERATION_FILE])
    for key in KEYS:
        if generation.values.get(key) is not None:
            one_or_more_ids(generation, key)
    for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE):
        _check_tokens(source / name, found[name])
    _check_stated_template(source / TOKENIZER_CONFIG_FILE, found[TOKENIZER_CONFIG_FILE])
    for name in names:
        if name.endswith(".jinja"):
            _check_template(source / name)
    if hub_file(source, TOKENIZER_FILE) is not None:
        check_tokenizer_folder(source)


def copy_small_files(source: Path, target: Path) -> None:
    """Copy what came with a Hugging Face model, but for what describes its weights.

    Raises:
        DataError: As `matching_files`.
    """
    copy_hub_files(source, target, KEPT, OF_WEIGHTS)


def _check_tokens(path: Path, settings: dict[str, Any]) -> None:
    for key in TOKENS:
        if settings.get(key) is not None and named_token(settings, key) is None:
            raise DataError(
                f"{path}: {key} is neither a text nor an object with its content: mend it, or"
                " remove the key"
            )


def _check_stated_template(path: Path, settings: dict[str, Any]) -> None:
    """Refuse a chat template that is neither a text nor a list of named ones."""
    stated = settings.get("chat_template")
    named = stated if isinstance(stated, list) else []
    texts = [
        one.get(key) if isinstance(one, dict) else None
        for one in named
        for key in ("name", "template")
    ]
    if not isinstance(stated, str | list | None) or not all(isinstance(t, str) for t in texts):
        raise DataError(
            f"{path}: chat_template is neither a text nor a list of objects with name and template:"
            " mend it, or remove the key"
        )


def _check_template(path: Path) -> None:
    try:
        read_regular(path, MAX_TEMPLATE_BYTES).decode()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}: no chat template is") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from None
