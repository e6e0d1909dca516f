"""Designs of sweeps over the tests' smallest model."""

from pathlib import Path

from benchmarks.sweeps.design import Design, read_design

BASE = """
[model]
preset = "tiny"

[data]
store = "store"

[train]
steps = 10
seq_len = 32
global_batch_size = 4
micro_batch_size = 2
learning_rate = 1e-2
min_learning_rate = 1e-3
"""


def write_design(folder: Path, text: str, *, base: str = BASE, name: str = "design") -> Path:
    """Write a base and a design; returns the design's file."""
    (folder / "base.toml").write_text(base)
    file = folder / f"{name}.toml"
    file.write_text(f'base = "base.toml"\n{text}')
    return file


def make_design(folder: Path, text: str, *, base: str = BASE) -> Design:
    """Write and read a design."""
    return read_design(write_design(folder, text, base=base))
