"""Several `moe bench` commands, run in one process."""

from typing import Any

from typer.testing import CliRunner

from tests.support.trained_runs import leave_group

STEP = (
    "bench step small --layers 1 --seq-len 64 --micro-batch 2 --repeats 2 --warmup 1"
    " --routing natural --routing forced --routing hot:1"
)
COMMANDS = {
    # First: what a lone layer leaves behind must not be in the way of a step.
    "layer": "bench layer --hidden 64 --ffn 64 --tokens 64 --granularity 1 --granularity 4"
    " --repeats 2 --warmup 0 --json",
    "step": f"{STEP} --json",
    "peer": f"{STEP} --peer transformers --json",
    "dense": "bench step {dense} --seq-len 32 --repeats 2 --warmup 0 --json",
    "routing": "bench routing --hidden 64 --ffn 64 --tokens 128 --experts 8 --repeats 2 --json",
    "inference": "bench inference tiny --prompt 16 --new-tokens 4 --repeats 2 --warmup 0 --json",
    "checkpoint": "bench checkpoint tiny --repeats 2 --warmup 0 --json",
    "table": "bench step tiny --seq-len 32 --repeats 2 --warmup 0",
    "alone": "bench collectives",
    "other section": "bench step tiny --set train.steps=3",
}


def run_all(dense: str) -> dict[str, dict[str, Any]]:
    """Run every command in this process; returns {name: {code, out, error}}."""
    leave_group()
    from moescale import app

    found = {}
    for name, command in COMMANDS.items():
        result = CliRunner().invoke(app, command.format(dense=dense).split())
        error = result.exception
        found[name] = {
            "code": getattr(error, "exit_code", result.exit_code),
            "out": result.stdout,
            "error": str(error) if error else "",
        }
    return found
