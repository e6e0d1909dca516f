"""The software that a run or a benchmark ran on."""

import platform
from importlib import metadata
from typing import Any

PACKAGES = ("moescale", "torch", "megatron-core", "numpy", "pyarrow", "tokenizers",
            "transformer-engine", "apex")  # fmt: skip


def environment() -> dict[str, Any]:
    """Return Python's version, the platform, and versions of packages (None: not installed)."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
