"""What the loader's tests share: stores of several sources, loaders, and streams' hashes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.build.build import build_recipe
from data.config import DataConfig
from data.loading.batch import Batch
from data.loading.loader import Loader
from data.recipe import DataRecipe

S = 32
GLOBAL_BATCH = 24


def build_sources(path: Path, sources: dict[str, list[str]], **keys: Any) -> Path:
    """Build a byte store at `path`, each document from a file of its own."""
    for name, documents in sources.items():
        folder = path.with_name(f"{path.name}-text") / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, text in enumerate(documents):
            (folder / f"{index:04d}.txt").write_text(text)
    folder = path.with_name(f"{path.name}-text")
    weights = keys.pop("source_weights", {})
    recipe = {
        "source": [
            {"name": name, "paths": [folder / name], "weight": weights.get(name)}
            for name in sources
        ],
        "tokenizer": "bytes",
        **keys,
    }
    build_recipe(DataRecipe.model_validate(recipe), path)
    return path


def make(store: Path, **changes: Any) -> Loader:
    """Open a loader; `changes` are keys of `[data]` or of the loader."""
    data = {key: value for key, value in changes.items() if key in DataConfig.model_fields}
    sizes = {"seq_len": S, "global_batch_size": GLOBAL_BATCH, "micro_batch_size": 1}
    sizes |= {key: value for key, value in changes.items() if key not in data}
    return Loader(DataConfig(**{"store": store, **data}), **sizes)


def rows(batches: Sequence[Batch]) -> np.ndarray:
    """Return the tokens of batches, [rows, S]."""
    return np.concatenate([batch.tokens.numpy() for batch in batches])


def stream_hash(store: Path, steps: int, ranks: int = 1, begin: int = 0, **changes: Any) -> str:
    """Return the hash of the tokens of steps [begin, begin + steps) over all ranks."""
    digest = hashlib.sha256()
    loaders = [
        make(store, data_parallel_rank=rank, data_parallel_size=ranks, **changes)
        for rank in range(ranks)
    ]
    for step in range(begin, begin + steps):
        for loader in loaders:
            digest.update(rows(loader.step(step)).tobytes())
    for loader in loaders:
        loader.close()
    return digest.hexdigest()


def restarted(loader: Loader, store: Path, **changes: Any) -> Loader:
    """Open another loader from this one's state, through JSON as a checkpoint keeps it."""
    state = json.loads(json.dumps(loader.state_dict()))
    loader.close()
    other = make(store, **changes)
    other.load_state_dict(state)
    return other
