"""What conversions of damaged, strange or hostile checkpoints of Megatron have in common."""

import os
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from moe.convert.megatron.from_megatron import from_megatron


def refused(source: Path) -> str:
    """Return the one line that a checkpoint is refused with; nothing is made beside it."""
    out = source.with_name("out")
    with pytest.raises(InputError) as caught:
        from_megatron(source, out)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1200 and not out.exists()
    return line


class Touch:
    """A pickle that would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)
