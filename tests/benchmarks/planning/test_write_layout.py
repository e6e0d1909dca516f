"""The `[parallel]` section of an experiment file: replaced, and nothing else."""

import os
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.planning.job import JobOptions, read_job
from benchmarks.planning.layout_text import parse_layout
from benchmarks.planning.planner import Planner
from benchmarks.planning.write_layout import write_layout
from moe.config.experiment import load_experiment

LAYOUT = "tp=2,pp=2,ep=8,mbs=2,recompute=layernorm,dispatcher=deepep"
HEAD = """# mine
name = "try"   # a name
[model]
preset = "mixtral-8x7b"
"""
PARALLEL = """
[parallel]  # old
tp = 4
timeout_s = 900.0
"""
TRAIN = """
# about training
[train]
steps = 100
seq_len = 4096
global_batch_size = 512
micro_batch_size = 4  # four
"""
PRECISION = """
[precision]
kernels = "te"
dtype = "bf16"
"""


def write(path: Path, text: str, layout: str = LAYOUT) -> str:
    """Write a layout into a file with that text; returns the new text."""
    path.write_bytes(text.encode())
    planner = Planner(read_job(str(path), JobOptions(gpus=64, gpu="h100")))
    work = planner.workload(parse_layout(layout))
    write_layout(path, work)
    experiment = load_experiment(path)
    assert experiment.train.micro_batch_size == work.batch.micro_batch_size
    assert experiment.parallel == work.layout
    return path.read_bytes().decode()


def test_the_section_is_replaced_and_the_rest_stays_byte_for_byte(tmp_path: Path) -> None:
    new = write(tmp_path / "a.toml", HEAD + PARALLEL + TRAIN + PRECISION)
    section = """
[parallel]  # old
tp = 2
pp = 2
recompute = "selective"
recompute_modules = [
    "layernorm",
]
ep = 8
dispatcher = "flex"
timeout_s = 900.0
"""
    assert new == HEAD + section + TRAIN.replace("= 4  # four", "= 2  # four") + PRECISION


def test_a_file_without_the_section_gets_one_at_its_end(tmp_path: Path) -> None:
    without = HEAD + TRAIN.replace("micro_batch_size = 4  # four\n", "") + PRECISION
    new = write(tmp_path / "a.toml", without.rstrip("\n"), "tp=2,pp=2,ep=8,mbs=2")
    head, _, section = new.partition("\n\n[parallel]\n")
    assert head == without.replace("[train]\n", "[train]\nmicro_batch_size = 2\n").rstrip("\n")
    assert section.startswith("tp = 2\npp = 2\nep = 8\n")


def test_line_ends_mode_and_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "a.toml", tmp_path / "link.toml"
    text = (HEAD + PARALLEL + TRAIN + PRECISION).replace("\n", "\r\n")
    path.write_bytes(text.encode())
    path.chmod(0o640)
    link.symlink_to(path)
    new = write(link, text)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert "\n" not in new.replace("\r\n", "")
    assert os.listdir(tmp_path).count("a.toml") == len(list(tmp_path.glob("a.toml*")))


def test_what_is_no_plain_section_is_left_alone(tmp_path: Path) -> None:
    inline = "parallel = { tp = 4 }\n" + HEAD + TRAIN + PRECISION
    path = tmp_path / "a.toml"
    with pytest.raises(BenchmarkError, match=r"its \[parallel\] or \[train\] is not a plain"):
        write(path, inline)
    assert path.read_text() == inline
    assert [file.name for file in tmp_path.iterdir()] == ["a.toml"]


def test_an_experiment_that_the_loader_refuses_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    text = (
        HEAD + PARALLEL + TRAIN + PRECISION + '[data]\ndocument_mask = true\npacking = "best_fit"\n'
    )
    single = text.replace("micro_batch_size = 4", "micro_batch_size = 1")
    with pytest.raises(ValueError, match=r"needs train\.micro_batch_size = 1"):
        write(path, single)
    assert path.read_text() == single
