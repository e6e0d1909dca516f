"""A trainer of two milliseconds a step that keeps `moe train`'s promises, without torch.

Its stream is a pure function of the sample's index; `stream` is the hash of all samples in the
order in which they were trained, so a lost, doubled or swapped sample shows. A stop signal on any
rank makes all of them stop after the same step, with a checkpoint and exit code 75.

Where TOY_HOLD_AT is set, training waits at that step until it is told to stop or killed: what the
simulator does to it comes in time, however slow the machine is.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

STEPS, INTERVAL, BATCH = 30, 8, 4
FOREVER_S = 1000


def main(arguments: list[str]) -> int:
    assert arguments[:3] == ["-m", "moescale", "train"], arguments
    experiment = tomllib.loads(Path(arguments[3]).read_text())
    run_dir = Path(arguments[arguments.index("--run-dir") + 1])
    assert "--resume" in arguments
    rank = int(os.environ["RANK"])
    hold_at = int(os.environ.get("TOY_HOLD_AT", "-1"))
    time.sleep(FOREVER_S if hold_at == 0 else 0.05)  # signals kill, as while torch is imported
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda got, _frame: received.append(got))
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / f"world-{os.environ['SLURM_JOB_ID']}").write_text(os.environ["WORLD_SIZE"])
    if code := experiment.get("exit_code"):
        print("moe: the user was wrong", file=sys.stderr)
        return int(code)
    attempt = Path(os.environ["MOESCALE_ATTEMPT"])
    (attempt / f"toy-ready-{rank}").touch()
    train = lead if rank == 0 else follow
    return train(run_dir, attempt, received, experiment, hold_at)


def lead(
    run_dir: Path, attempt: Path, received: list[int], experiment: dict[str, Any], hold_at: int
) -> int:
    def told() -> bool:
        heard = bool(received) or (attempt / "toy-stop").exists()
        return heard and not experiment.get("deaf")

    while not told() and len(list(attempt.glob("toy-ready-*"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.005)
    state, restarts = restore(run_dir), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    while state["step"] < STEPS:
        fail_if_told(run_dir, state["step"], experiment)
        samples = range(state["step"] * BATCH, (state["step"] + 1) * BATCH)
        for index in samples:
            sample = hashlib.sha256(f"seed 0 sample {index}".encode()).hexdigest()
            state["stream"] = hashlib.sha256((state["stream"] + sample).encode()).hexdigest()
        state["step"] += 1
        time.sleep(0.002)
        row = {"step": state["step"], "restarts": restarts, "loss": loss(state)}
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        while state["step"] == hold_at and not told():
            time.sleep(0.005)
        if told() and state["step"] < STEPS:
            time.sleep(experiment.get("save_s", 0))
            save(run_dir, state)
            return end(attempt, 75)
        if state["step"] % INTERVAL == 0 or state["step"] == STEPS:
            save(run_dir, state)
    record = {"status": "finished", "final_loss": loss(state), "stream": state["stream"]}
    (run_dir / "record.json").write_text(json.dumps(record))
    return end(attempt, 0)


def follow(_run_dir: Path, attempt: Path, received: list[int], *_: Any) -> int:
    while not (attempt / "toy-end").exists():
        if received:
            (attempt / "toy-stop").touch()
        time.sleep(0.01)
    return int((attempt / "toy-end").read_text())


def end(attempt: Path, code: int) -> int:
    """Tell the other ranks how it ended."""
    (attempt / "toy-end.part").write_text(str(code))
    (attempt / "toy-end.part").replace(attempt / "toy-end")
    return code


def fail_if_told(run_dir: Path, step: int, experiment: dict[str, Any]) -> None:
    """Die once (or every time) at each step that the experiment names, without a word."""
    steps, mark = experiment.get("die_at", []), run_dir / f"died-{step}"
    is_due = step in (steps if isinstance(steps, list) else [steps])
    if is_due and (experiment.get("every_time") or not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def restore(run_dir: Path) -> dict[str, Any]:
    state: dict[str, Any] = {"step": 0, "stream": ""}
    with contextlib.suppress(FileNotFoundError):
        state = json.loads((run_dir / "checkpoint.json").read_text())
    rows = run_dir / "metrics.jsonl"
    if rows.exists():
        kept = [
            line
            for line in rows.read_text().splitlines()
            if json.loads(line)["step"] <= state["step"]
        ]
        rows.write_text("".join(f"{line}\n" for line in kept))
    return state


def save(run_dir: Path, state: dict[str, Any]) -> None:
    (run_dir / "checkpoint.part").write_text(json.dumps(state))
    (run_dir / "checkpoint.part").replace(run_dir / "checkpoint.json")


def loss(state: dict[str, Any]) -> float:
    return int(state["stream"][:8], 16) / 2**32


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
