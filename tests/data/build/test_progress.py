"""What people see of a build, and how much memory it takes."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.progress import BuildProgress, ProgressRate, approximate_duration


def at(done: int, tokens: int = 0, total: int = 1000) -> BuildProgress:
    return BuildProgress("tokenize", done=done, total=total, tokens=tokens)


def test_rates_and_time_left() -> None:
    rate = ProgressRate(at(200, 50), now_s=100.0)  # begun by an earlier process
    assert rate.note(at(200, 50), 101.0) == ""
    assert rate.note(at(400, 2050), 110.0) == "200 tokens/s, 30 s left"
    assert rate.note(at(1000, 9050), 120.0) == "450 tokens/s, 0 s left"
    assert ProgressRate(at(0, total=0), 0.0).note(at(5, total=0), 1.0) == ""


def test_rates_forget_what_is_long_past() -> None:
    rate = ProgressRate(at(0, total=10_000), 0.0)
    rate.note(at(6000, total=10_000), 60.0)
    rate.note(at(6060, total=10_000), 120.0)
    assert rate.note(at(6090, total=10_000), 150.0) == "65 min left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert approximate_duration(seconds) == text


MEASURE = """
import resource, sys
from pathlib import Path
from data.build.build import build_store
if __name__ == "__main__":
    build_store([Path(sys.argv[1])], Path(sys.argv[2]), tokenizer=sys.argv[3])
    status = Path("/proc/self/status").read_text()
    # Not ru_maxrss, which begins with the size of the process that started this one.
    here = status.split("VmHWM:")[1].split()[0]
    print(here, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_mib(tmp_path: Path, source: Path) -> float:
    """Peak memory of a build's largest process, MiB."""
    script = tmp_path / "measure.py"
    script.write_text(MEASURE)
    command = [
        sys.executable,
        str(script),
        str(source),
        str(tmp_path / f"{source.name}.out"),
        "bytes",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return max(map(int, done.stdout.split())) / 1024


def write(source: Path, num_bytes: int, line_bytes: int) -> Path:
    source.mkdir()
    line = json.dumps({"text": "some words of no meaning " * 100})
    with (source / "a.jsonl").open("w") as file:
        for number in range(num_bytes // len(line)):
            file.write(line.replace("meaning", f"m{number}") + "\n")
        file.write('{"text": "')
        for _ in range(line_bytes >> 20):
            file.write("y" * (1 << 20))
        file.write('"}\n{"text": "after the long line"}\n')
    return source


def write_table(source: Path, value_bytes: int) -> Path:
    source.mkdir()
    rows = pa.table({"text": ["before", "z" * value_bytes, "after"]})
    if source.name == "parquet":
        pq.write_table(rows, source / "a.parquet", use_dictionary=False)
    else:
        with pa.ipc.new_file(source / "a.arrow", rows.schema) as writer:
            writer.write_table(rows)
    return source


@pytest.mark.parametrize(("form", "most_mib"), [("arrow", 200), ("parquet", 450)])
def test_a_long_value_of_a_table_is_not_copied(form: str, most_mib: int, tmp_path: Path) -> None:
    """Arrow's is not even read; Parquet's lies in its page and beside it, once each."""
    assert peak_mib(tmp_path, write_table(tmp_path / form, 128 << 20)) < most_mib
    manifest = json.loads((tmp_path / f"{form}.out" / "manifest.json").read_text())
    assert manifest["dropped"] == {"too_large": 1}
    assert manifest["counts"]["read"] == 3


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Four times the corpus, and a single line of 256 MiB, take no more memory."""
    small = peak_mib(tmp_path, write(tmp_path / "small", 20 << 20, 1 << 20))
    large = peak_mib(tmp_path, write(tmp_path / "large", 80 << 20, 256 << 20))
    assert large < 400
    assert large - small < 60
    manifest = json.loads((tmp_path / "large.out" / "manifest.json").read_text())
    assert manifest["dropped"] == {"too_large": 1}
    assert manifest["counts"]["read"] > 25_000
