"""Converting a checkpoint of ours that was damaged, or that somebody else made."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe.convert.hugging_face import from_hub, to_hub
from moe.convert.upcycle import Upcycling, upcycle
from moe.errors import ConfigError
from tests.moe.convert.test_wrong_files import save, tensors

HOW = Upcycling(num_experts=4, top_k=2)
CONVERSIONS: tuple[Callable[[Path, Path], Any], ...] = (
    to_hub,
    lambda source, out: upcycle(source, out, HOW),
)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link(file: Path) -> None:
    file.symlink_to(file.rename(file.parent.parent / "outside"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (flip, r"part-00000.safetensors: missing or damaged \(its SHA-256 does not match\)"),
        (pipe, "part-00000.safetensors: missing or damaged: not a regular file"),
        (link, "part-00000.safetensors: missing or damaged: a symbolic link"),
    ],
)
def test_what_is_not_as_it_was_written_is_not_converted(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    from_hub(save(tmp_path / "hub", tensors()), tmp_path / "ours")
    spoil(tmp_path / "ours" / "part-00000.safetensors")
    for convert in CONVERSIONS:
        with pytest.raises(ConfigError, match=message):
            convert(tmp_path / "ours", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_model_file_is_no_link(tmp_path: Path) -> None:
    from_hub(save(tmp_path / "hub", tensors()), tmp_path / "ours")
    link(tmp_path / "ours" / "model.toml")
    for convert in CONVERSIONS:
        with pytest.raises(ConfigError, match=r"model.toml: a symbolic link"):
            convert(tmp_path / "ours", tmp_path / "out")
