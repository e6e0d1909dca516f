"""Text that every machine has: the library of the running Python."""

import sysconfig
from pathlib import Path


def standard_library() -> list[Path]:
    """Return the modules and packages of the running interpreter's library, without its tests."""
    folder = Path(sysconfig.get_path("stdlib"))
    packages = (path.parent for path in folder.glob("*/__init__.py") if path.parent.name != "test")
    return sorted([*folder.glob("*.py"), *packages])
