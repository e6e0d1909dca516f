"""A checkpoint's whole tensors, put together from its files by its index alone."""

import json
from pathlib import Path

from safetensors.torch import load_file

from tests.support.layout_equivalence import FullTensors, Shard, assemble


def checkpoint_content(checkpoint: Path) -> FullTensors:
    """Return parameters and optimizer states, by the names in the index."""
    index = json.loads((checkpoint / "index.json").read_text())
    files = {
        name: load_file(checkpoint / name)
        for name in index["files"]
        if name.endswith(".safetensors")
    }
    parts = [
        Shard(
            part["key"],
            tuple(part["whole"]),
            tuple(part["offset"]),
            files[part["file"]][part["name"]].float().reshape(part["shape"]).numpy(),
        )
        for part in index["parts"]
        if not part["key"].startswith("rng")
    ]
    return assemble([parts])
