"""Stand-ins for srun, scontrol, sbatch and squeue as a batch shell meets them; state in a folder.

`state.json` holds what slurmctld would know; `calls.jsonl` gets every call. The wording and the
order of effects are those seen on a real SLURM 22.05 (tests/slurm/real_cluster).
"""

import contextlib
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from hostlist import expand  # noqa: E402 - started as a script, without packages

FOLDER = Path(os.environ["FAKE_SLURM_DIR"])
STATE = FOLDER / "state.json"


def main(program: str, arguments: list[str]) -> int:
    with (FOLDER / "calls.jsonl").open("a") as file:
        file.write(json.dumps([program, *arguments]) + "\n")
    return {"srun": srun, "scontrol": scontrol, "sbatch": sbatch}[program](arguments)


def write_state(state: dict[str, Any]) -> None:
    """Replace the state in one step: the simulator may read it at any moment."""
    temporary = FOLDER / "state.new"
    temporary.write_text(json.dumps(state))
    temporary.replace(STATE)


def scontrol(arguments: list[str]) -> int:
    with (FOLDER / "lock").open("w") as lock:  # the simulator changes the state too
        fcntl.flock(lock, fcntl.LOCK_EX)
        return answer(arguments, json.loads(STATE.read_text()))


def answer(arguments: list[str], state: dict[str, Any]) -> int:
    verb = arguments[0]
    if verb == "show":
        return show(state, [word for word in arguments[1:] if word != "-o"])
    if verb == "requeue":
        if state["requeue_failures"]:
            state["requeue_failures"] -= 1
            write_state(state)
            print("slurm_requeue error: Unable to contact slurm controller", file=sys.stderr)
            return 1
        state |= {"JobState": "COMPLETING", "Restarts": state["Restarts"] + 1}
        write_state(state)
    elif verb == "update":
        state["excluded"] = next(w for w in arguments if w.startswith("ExcNodeList=")).split("=")[1]
        write_state(state)
    return 0


def show(state: dict[str, Any], words: list[str]) -> int:
    what, which = words
    if what == "hostnames":
        os.write(1, "\n".join(expand(which)).encode() + b"\n")
    elif state["silence"]:
        write_state(state | {"silence": state["silence"] - 1})
        print("slurm_load error: Unable to contact slurm controller", file=sys.stderr)
        return 1
    elif what == "node":
        for name in expand(which):
            node = state["nodes"][name]
            print(
                f"NodeName={name} Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName={name} Port="
                f"{node['port']} Version={state['version']} State={node['state']} Reason=none"
            )
    else:
        names = ("JobState", "Reason", "Restarts", "EndTime", "PreemptTime")
        fields = {key: state[key] for key in names}
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        name = os.environ["SLURM_JOB_NAME"]
        print(f"JobId=1 JobName={name} UserId=root(0) {shown} Comment= UserId=1 JobState=FAKED")
    return 0


def sbatch(arguments: list[str]) -> int:
    print("sbatch: warning: as sites write it", file=sys.stderr)
    print("4711;cluster")
    return 0


def srun(arguments: list[str]) -> int:
    options = list(itertools.takewhile(lambda word: word.startswith("--"), arguments))
    command = arguments[len(options) :]
    per_node = int(next(o for o in options if o.startswith("--ntasks-per-node=")).split("=")[1])
    total = int(next(o for o in options if o.startswith("--ntasks=")).split("=")[1])
    nodes = expand(os.environ["SLURM_JOB_NODELIST"])
    tasks = []
    for rank in range(total):
        place = {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank % per_node),
            "SLURM_NODEID": str(rank // per_node),
            "SLURM_NTASKS": str(total),
            "SLURMD_NODENAME": nodes[rank // per_node],
        }
        # A task leads its own process group, as under slurmstepd.
        tasks.append(subprocess.Popen(command, env={**os.environ, **place}, process_group=0))

    def forward(number: int, _frame: Any) -> None:
        for task in tasks:
            if task.poll() is None:
                os.kill(task.pid, number)

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # "forcing job termination", and waits
    return wait_for(tasks, kill_on_bad_exit="--kill-on-bad-exit=1" in options)


def kill_tree(pid: int) -> None:
    """Kill a task and what it started, as slurmstepd does."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        for child in children:
            kill_tree(int(child))


def wait_for(tasks: list[subprocess.Popen[bytes]], *, kill_on_bad_exit: bool) -> int:
    worst = 0
    left = list(tasks)
    while left:
        for task in [task for task in left if task.poll() is not None]:
            left.remove(task)
            code = task.returncode if task.returncode >= 0 else 128 - task.returncode
            worst = max(worst, code)
            if code and kill_on_bad_exit:
                for other in left:
                    kill_tree(other.pid)
        time.sleep(0.01)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
