"""SLURM's compressed node lists stay as they are: `scontrol show hostnames` reads them back."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostlist import expand
from tests.support.needs import need
from tests.support.paths import ROOT

BATCH = (ROOT / "slurm" / "job" / "batch.sh").read_text()
READ_EXCLUDED = BATCH[BATCH.index("read_excluded() {") :].partition("\n}\n")[0] + "\n}\n"


def read_excluded(folder: Path, exclude: str, failed: list[str]) -> str:
    """Run the batch shell's function on an exclude list and failed nodes."""
    if failed:
        (folder / "excluded").write_text("".join(f"{name}\n" for name in failed))
    script = f'{READ_EXCLUDED}read_excluded\nprintf "%s" "$excluded"'
    env = {**os.environ, "exclude": exclude, "state_dir": str(folder)}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, check=True)
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("exclude", "failed", "nodes"),
    [
        (
            "node[01-04,07],bad9",
            ["node12"],
            "node01 node02 node03 node04 node07 bad9 node12",
        ),
        ("rack[1-2]n[01-02,16]", ["rack3n01", "rack3n01"], "rack1n01 rack1n02 rack1n16 rack2n01"
         " rack2n02 rack2n16 rack3n01"),
        ("", ["n2"], "n2"),
        ("n[1,3]", [], "n1 n3"),
        ("", [], ""),
    ],
)  # fmt: skip
def test_exclude_list_is_never_taken_apart(
    tmp_path: Path, exclude: str, failed: list[str], nodes: str
) -> None:
    assert set(expand(read_excluded(tmp_path, exclude, failed))) == set(nodes.split())


NUMBERS = st.integers(0, 120)
WIDTHS = st.integers(1, 3)


@st.composite
def hostlists(draw: st.DrawFn) -> str:
    """A few names with ranges, zero padding and suffixes."""
    names = []
    for prefix in draw(st.lists(st.sampled_from(["node", "rack-a", "n"]), min_size=1, max_size=3)):
        text = prefix
        for _ in range(draw(st.integers(0, 2))):
            spans = []
            for _ in range(draw(st.integers(1, 3))):
                first, width = draw(NUMBERS), draw(WIDTHS)
                last = first + draw(st.integers(0, 4))
                spans.append(f"{first:0{width}}" if first == last else
                             f"{first:0{width}}-{last:0{width}}")  # fmt: skip
            text += f"[{','.join(spans)}]"
        names.append(text if text != prefix else f"{prefix}{draw(NUMBERS)}")
    return ",".join(names)


@settings(max_examples=25)
@given(st.lists(hostlists(), min_size=1, max_size=1))
def test_stand_in_expands_as_slurm_does(lists: list[str]) -> None:
    """The simulator's clusters have the same names as real ones."""
    need("slurm")
    (text,) = lists
    config = Path("/tmp") / f"moescale-hostnames-{os.getpid()}.conf"
    config.write_text("ClusterName=t\nSlurmctldHost=localhost\nNodeName=n1 CPUs=1\n"
                      "PartitionName=p Nodes=ALL\n")  # fmt: skip
    try:
        done = subprocess.run(
            ["scontrol", "show", "hostnames", text],
            env={**os.environ, "SLURM_CONF": str(config)},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        config.unlink()
    assert expand(text) == done.stdout.split()
