"""Several `moe bench` commands, run in one process."""

from typing import Any

from typer.testing import CliRunner

from tests.support.trained_runs import leave_group

STEP = (
    "bench step small --layers 1 --seq-len 64 --micro-batch 2 --repeats 2 --warmup 1"
    " --settle-steps 3 --routing natural --routing forced --routing hot:1"
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
    "table": "bench step tiny --seq-len 32 --repeats 2 --warmup 0 --settle-steps 2",
    "replay": "bench step tiny --seq-len 16 --micro-batch 2 --repeats 2 --warmup 0 --json"
    " --routing untrained --routing natural --routing forced --replay {recording}",
    "replayed layer": "bench layer --experts 4 --hidden 64 --ffn 64 --tokens 16 --repeats 2"
    " --warmup 0 --json --replay {recording}",
    "replay of other experts": "bench routing --replay {recording} --experts 16",
    "replay for nothing": "bench step tiny --routing forced --replay {recording}",
    "no such recording": "bench layer --replay large",
    "natural layer": "bench layer --routing natural",
    "alone": "bench collectives",
    "other section": "bench step tiny --set train.steps=3",
}


KERNELS = {
    "gemm": "bench gemm tiny --tokens 32 --shape 2x8x16x32 --dtype fp32 --dtype bf16 --repeats 2"
    " --warmup 0 --sustained 0.002 --json",
    "gemm table": "bench gemm --shape 32x16x32 --repeats 2 --warmup 0 --sustained 0",
    "attention": "bench attention tiny --heads 2 --head-dim 8 --seq-len 16 --dtype bf16 --repeats 2"
    " --warmup 0 --json",
    "attention table": "bench attention tiny --seq-len 16 --repeats 2 --warmup 0",
    "gemm in fp8": "bench gemm tiny --dtype bf16 --dtype fp8",
    "gemm of nothing": "bench gemm",
    "gemm in two formats": "bench gemm tiny --set precision.dtype=bf16",
    "unaligned groups": "bench gemm --shape 2x8x15x32 --dtype bf16",
    "attention of nothing": "bench attention",
}


def run_all(dense: str, recording: str) -> dict[str, dict[str, Any]]:
    """Run every command but the kernels' in this process; returns {name: {code, out, error}}."""
    paths = {"dense": dense, "recording": recording}
    return run_commands({name: text.format(**paths) for name, text in COMMANDS.items()})


def run_commands(commands: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Run commands in this process; returns {name: {code, out, error}}."""
    leave_group()
    from moescale import app

    found = {}
    for name, command in commands.items():
        result = CliRunner().invoke(app, command.split())
        error = result.exception
        found[name] = {
            "code": getattr(error, "exit_code", result.exit_code),
            "out": result.stdout,
            "error": str(error) if error else "",
        }
    return found
