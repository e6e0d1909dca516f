"""Starts a rendered batch script as on many nodes, and keeps the environment that ranks find.

Only the ranks that are asked for are started; srun, scontrol, torchrun and Python are stand-ins.
"""

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from slurm.job.batch_script import render
from slurm.job.job import Job
from tests.support.hostlist import expand

SRUN = r"""
printf '%s\0' "$@" >"$SEEN/srun"
for option; do
  case $option in --ntasks=*) total=${option#*=} ;; --ntasks-per-node=*) each=${option#*=} ;; esac
done
while [[ $1 == --* ]]; do shift; done
if [[ -e $SEEN/image ]]; then . "$SEEN/image"; fi
for task in $(<"$SEEN/tasks"); do
  SLURM_PROCID=$task SLURM_LOCALID=$((task % each)) SLURM_NODEID=$((task / each)) \
    SLURM_NTASKS=$total "$@" || exit
done
"""
PYTHON = r"""
if [[ $1 != -c ]]; then env -0 >"$SEEN/rank-$RANK"; exit; fi
printf '%s\0' "${@:3}" >"$SEEN/torchrun-$SLURM_NODEID"
shift 2
while [[ $1 == --* ]]; do shift; done
for local in 0 $((MOESCALE_PROCESSES - 1)); do # as torchrun does
  RANK=$((SLURM_NODEID * MOESCALE_PROCESSES + local)) LOCAL_RANK=$local \
    WORLD_SIZE=$((MOESCALE_NODES * MOESCALE_PROCESSES)) "$@" || exit
done
"""
STAND_INS = {"srun": SRUN, "python": PYTHON, "python3": PYTHON, "scontrol": 'cat "$SEEN/hosts"',
             "getent": "exit 0"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Start:
    """What one start of a job handed on."""

    srun: list[str]
    """Arguments of srun."""
    torchrun: dict[int, list[str]]
    """Arguments of torchrun, by node."""
    ranks: dict[int, dict[str, str]]
    """Environments, by rank."""


def start(
    folder: Path, job: Job, hostlist: str, tasks: list[int], *, image: str = "", **slurm: str
) -> Start:
    """Run the batch script of `job`, which lies in `folder`, on the nodes of a list.

    Args:
        folder: An empty folder for the stand-ins and what they saw.
        job: Its Python is to be `python`, or `python3` as in containers.
        hostlist: Nodes as SLURM writes them.
        tasks: The SLURM tasks that are started, one after the other.
        image: Shell lines that change a task's environment, as a container's image does.
        slurm: More variables of the batch shell.
    """
    for name, text in STAND_INS.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    hosts = expand(hostlist)
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    (folder / "tasks").write_text(" ".join(map(str, tasks)))
    if image:
        (folder / "image").write_text(image)
    (folder / "job.sh").write_text(render(job))
    env = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SEEN": str(folder),
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NODELIST": hostlist,
        "SLURM_JOB_NUM_NODES": str(len(hosts)), **slurm,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(folder / "job.sh")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Start(
        srun=_words(folder / "srun"),
        torchrun={int(path.name[9:]): _words(path) for path in folder.glob("torchrun-*")},
        ranks={
            int(path.name[5:]): dict(word.split("=", 1) for word in _words(path))
            for path in folder.glob("rank-*")
        },
    )


def _words(path: Path) -> list[str]:
    return path.read_text().split("\0")[:-1]
