"""Where a trained or converted model says what it is: its `[model]` table and its tokenizer.

A path names a run directory, a checkpoint in one (`RUN/checkpoints/STEP`), or a converted
checkpoint (`moe convert`). A run has `experiment.toml`, a converted checkpoint `model.toml`.
"""

import os
from pathlib import Path

from data.tokenization.info import TOKENIZER_FILE
from moe.config.toml_file import read_toml

EXPERIMENT_FILE = "experiment.toml"
"""A run's resolved experiment."""
MODEL_FILE = "model.toml"
"""The `[model]` table of a converted checkpoint."""
HUB_DIRECTORY = "hub"
"""Folder of a converted checkpoint, or of a run that began with one, with the small files of the
original model; a run's tokenizer is its store's."""


def model_file(path: Path) -> Path | None:
    """Return the file with the `[model]` table; None where there is none."""
    # Its path as given says which run a checkpoint lies in: a folder of that run may be a link to
    # another disk. A link to the checkpoint itself, from anywhere, says it when it is followed.
    named = Path(os.path.abspath(path))
    candidates = (
        path / EXPERIMENT_FILE,
        path / MODEL_FILE,
        named.parent.parent / EXPERIMENT_FILE,
        path / ".." / ".." / EXPERIMENT_FILE,
    )
    return next((file for file in candidates if file.is_file()), None)


def hub_folder(path: Path) -> Path | None:
    """Return the folder with the original model's small files; None where there is none."""
    file = model_file(path)
    folder = None if file is None else file.parent / HUB_DIRECTORY
    return folder if folder is not None and folder.is_dir() else None


def tokenizer_file(path: Path) -> Path | None:
    """Return the tokenizer's file: the original model's, or the token store's; None if unknown."""
    original = path / HUB_DIRECTORY / TOKENIZER_FILE
    if original.is_file():
        return original
    file = model_file(path)
    data = {} if file is None else read_toml(file).get("data")
    store = data.get("store") if isinstance(data, dict) else None
    tokenizer = None if store is None else Path(store) / TOKENIZER_FILE
    return tokenizer if tokenizer is not None and tokenizer.is_file() else None
