"""Where Transformer Engine is: the whole of it on a GPU, or its Python modules in their own folder.

Without its libraries the package cannot be imported, and megatron-core would fail on it: hence a
folder beside the environment's own packages, which `make transformer-engine` fills.
"""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

EXTENSION = "transformer_engine_torch"
FOLDER = Path(sys.prefix) / "transformer_engine"


def has_extension() -> bool:
    """Whether the compiled extension is installed, and a GPU for it found."""
    import torch

    return torch.cuda.is_available() and any(_libraries())


def missing() -> str | None:
    """Return what to run for Transformer Engine's Python modules; None where they are."""
    if (FOLDER / "transformer_engine").is_dir() or has_extension():
        return None
    return "make transformer-engine"


def _libraries() -> Iterator[Path]:
    spec = find_spec("transformer_engine")
    if spec is None or spec.origin is None:
        return
    package = Path(spec.origin).parent
    for folder in (package.parent, package, package / "wheel_lib"):
        yield from folder.glob(f"{EXTENSION}*.so")
