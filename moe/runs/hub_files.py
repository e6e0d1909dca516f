"""Small files of the original model that a run carries along, for its export."""

from pathlib import Path

from data.errors import DataError
from data.storage.new_directory import discard
from data.tokenization.hub_folder import (
    GENERATION_FILE,
    SPECIAL_TOKENS_FILE,
    TEMPLATE_FILE,
    TOKENIZER_CONFIG_FILE,
    copy_hub_files,
)
from moe.config.locating import HUB_DIRECTORY, hub_folder
from moe.errors import ConfigError

SETTINGS = (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, GENERATION_FILE, TEMPLATE_FILE)


def carry_hub_files(init: Path | None, run: Path) -> None:
    """Copy settings of tokenizer and generation, and chat templates, from what `train.init` names.

    The tokenizer itself is the store's, and the model's configuration the run's own.

    Raises:
        ConfigError: One of them is a link that leads elsewhere, or no file.
    """
    folder = None if init is None else hub_folder(init)
    target = run / HUB_DIRECTORY
    if folder is None or target.exists():
        return
    partial = run / f".{HUB_DIRECTORY}.partial"
    discard(partial)
    partial.mkdir()
    try:
        copy_hub_files(folder, partial, SETTINGS)
    except DataError as error:
        raise ConfigError(f"train.init: {error}") from None
    partial.rename(target)
